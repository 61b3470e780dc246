//! Whether a position belongs to the log that its partition has. Pure.

use uuid::Uuid;

/// How the log of a position compares with the log of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCheck {
    /// The position belongs to this log, or the broker has no ids.
    Fits,
    /// The position does not say which log it belongs to: it belongs to this one from now on.
    Adopt(Uuid),
    /// The position belongs to another log, so its offset means nothing here.
    Replaced {
        /// The log of the position.
        expected: Uuid,
        /// The log of the partition.
        found: Uuid,
    },
}

impl LogCheck {
    /// Compares the log of a position with the log that the partition has. `found` is None for a broker without ids.
    pub fn new(expected: Option<Uuid>, found: Option<Uuid>) -> Self {
        match (expected, found) {
            (_, None) => Self::Fits,
            (None, Some(found)) => Self::Adopt(found),
            (Some(expected), Some(found)) if expected == found => Self::Fits,
            (Some(expected), Some(found)) => Self::Replaced { expected, found },
        }
    }
}
