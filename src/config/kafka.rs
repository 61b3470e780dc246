//! The choices of `[broker.kafka]`: compression and authentication.

use serde::{Deserialize, Deserializer};

use super::values::one_of;

/// The compression of the record batches that the relay publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// gzip.
    Gzip,
    /// Snappy, in the framing of snappy-java.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The authentication of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN: sends the password in clear text inside the connection.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl Compression {
    /// Every value with its name in the configuration.
    pub const ALL: [(&str, Self); 5] = [
        ("none", Self::None),
        ("gzip", Self::Gzip),
        ("snappy", Self::Snappy),
        ("lz4", Self::Lz4),
        ("zstd", Self::Zstd),
    ];
}

impl SaslMechanism {
    const ALL: [(&str, Option<Self>); 4] = [
        ("", None),
        ("plain", Some(Self::Plain)),
        ("scram-sha-256", Some(Self::ScramSha256)),
        ("scram-sha-512", Some(Self::ScramSha512)),
    ];

    /// Reads a mechanism; an empty text means no authentication.
    pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        one_of(deserializer, &Self::ALL)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer, &Self::ALL)
    }
}
