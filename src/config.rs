//! Configuration: compiled-in defaults, then `--config FILE`, then `LEDGER_SECTION__KEY` from the environment, then
//! flags. The result is typed, every key is known, and a wrong one stops the start with the nearest right name.
//!
//! `config/default.toml` documents every key; it is the one list of what exists.

mod error;
mod kafka;
mod load;
mod print;
mod secret;
mod sections;

pub use error::ConfigError;
pub use kafka::{Compression, SaslMechanism};
pub use load::{DEFAULTS, Overrides, load};
pub use print::print;
pub use sections::{
    Admin, Aggregate, Broker, BrokerKind, Config, ConsumeRisk, Database, Kafka, Listen, Log, LogFormat,
    Relay, Risk, Serve, Topics, WRITERS_MAX,
};
