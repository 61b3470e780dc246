//! The configuration. Later layers override earlier ones: the built-in defaults, `--config FILE`, `LEDGER_SECTION__KEY` in
//! the environment, flags.
//!
//! Guarantees: the result is typed and checked. An unknown key is refused, with the most similar known key in the error.
//!
//! `config/default.toml` is the complete list of keys, and documents each.

mod database_url;
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
