//! Commands for operators.

pub mod broker;
pub mod consumers;
pub mod dlq;
pub mod health;
pub mod lanes;
pub mod migrate;
pub mod republish;
pub mod risk;
pub mod topics;
pub mod verify;

mod current_user;
mod installation;
mod time_argument;
