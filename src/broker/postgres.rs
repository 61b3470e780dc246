//! To be written.
pub struct PostgresBroker;
