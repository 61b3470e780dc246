//! Everything on one machine: a private PostgreSQL, all roles in one process, traffic to try them with, and a demo
//! that ties these together. For people who try, develop and test; nothing here is needed in production.

pub mod cluster;
pub mod simulate;

mod binaries;
mod os_user;
mod watchdog;
