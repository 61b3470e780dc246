//! The configuration. Later layers override earlier ones: the built-in defaults, `--config FILE`, `LEDGER_SECTION__KEY` in
//! the environment, flags.
//!
//! Guarantees: the result is typed and checked. An unknown key is refused, with the most similar known key in the error.
//! The error of a refused value names the key, the value, its origin (file and line, or variable) and the allowed values.
//!
//! `config/default.toml` is the complete list of keys, and documents each.

mod check;
mod database_url;
mod error;
mod kafka;
mod load;
mod print;
mod secret;
mod sections;
mod values;

pub use check::WRITERS_MAX;
pub use error::ConfigError;
pub use kafka::{Compression, SaslMechanism};
pub use load::{DEFAULTS, Overrides, load};
pub use print::print;
pub use sections::{
    Admin, Aggregate, Broker, BrokerKind, Config, ConsumeRisk, Database, Kafka, Log, LogFormat, Relay, Risk,
    Serve, Topics,
};
pub use values::Listen;
