//! The database and the broker that a command looks at: its first line, and fields of its JSON output.

use serde::Serialize;
use serde_json::Value;

use crate::{
    repository::{self, Connection, broker_identity},
    runtime::{Context, OutputFormat, print_text},
};

/// The database and the broker of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installation {
    /// Hosts and name of the database.
    database: String,
    /// The recorded kind of broker, or the configured kind if none is recorded yet.
    broker: &'static str,
    /// The id of the recorded Kafka cluster.
    cluster_id: Option<String>,
    #[serde(skip)]
    is_recorded: bool,
}

impl Installation {
    /// Reads the recorded broker.
    pub(super) async fn read(context: &Context, connection: &mut Connection) -> anyhow::Result<Self> {
        let config = &context.config;
        let recorded = broker_identity::read(connection).await?.map(|recorded| recorded.identity);
        let kind = recorded.as_ref().map_or(config.broker.kind, |identity| identity.kind);
        Ok(Self {
            database: repository::database_address(&config.database)?,
            broker: kind.name(),
            is_recorded: recorded.is_some(),
            cluster_id: recorded.map(|identity| identity.cluster_id).filter(|id| !id.is_empty()),
        })
    }

    /// Prints the first line of a table. JSON output gets fields instead; see [`Installation::json`].
    pub(super) fn print(&self, output: OutputFormat) -> std::io::Result<()> {
        match output {
            OutputFormat::Table => print_text(self),
            OutputFormat::Json => Ok(()),
        }
    }

    /// Adds the fields `database`, `broker` and `cluster_id` to a JSON object.
    pub(super) fn json(&self, mut object: Value) -> anyhow::Result<Value> {
        if let (Value::Object(fields), Value::Object(more)) = (&mut object, serde_json::to_value(self)?) {
            fields.extend(more);
        }
        Ok(object)
    }
}

impl std::fmt::Display for Installation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "database {}, broker {}", self.database, self.broker)?;
        if let Some(id) = &self.cluster_id {
            write!(formatter, " cluster {id}")?;
        }
        match self.is_recorded {
            true => Ok(()),
            false => write!(formatter, " (as configured; the first relay or consumer records it)"),
        }
    }
}
