//! To be written.
pub struct KafkaBroker;
