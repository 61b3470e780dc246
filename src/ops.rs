//! Commands for people who look after a ledger.

pub mod risk;
pub mod verify;
