//! The start of every command that works on the ledger.
//!
//! ```text
//! connect to PostgreSQL ─▶ check the server ─▶ check the schema ─▶ connect to the broker and ─▶ open the admin listener
//!         every command that uses the database       not `migrate`    compare it with the         ─▶ log "started"
//!                                                                     record, if it is used     only a role that keeps running
//! ```
//!
//! Guarantees: a command fails before it has written anything if the server is unsuitable, the schema does not fit this
//! binary, or the broker is not the recorded one; every role that keeps running logs the same line with the same fields.
//!
//! Deliberately absent: retries. A command that cannot start exits with the reason, and its supervisor restarts it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;

use super::{
    Context,
    admin::{AdminListener, start_admin},
    recorded_broker::{self, BrokerRecord},
    version::{COMMIT, VERSION},
};
use crate::{
    broker::{self, SharedBroker, TopicProblems, TopicSpec, check_topic},
    config::{BrokerKind, Config},
    repository::{
        self, Connection, Pool, RepositoryError, migrations, read_clock, sequences, server_properties,
    },
};

/// The first steps of one command.
pub struct Boot<'a> {
    context: &'a Context,
    role: &'static str,
    /// The record of the database, if the command uses the broker.
    broker_record: Option<BrokerRecord>,
}

/// The part of the start line that differs between roles.
#[derive(Debug, Default)]
pub struct StartDetails<'a> {
    /// The address of the API.
    pub listen: Option<SocketAddr>,
    /// The largest number of open connections of the API.
    pub connections_max: Option<usize>,
    /// The consumer group.
    pub group: Option<&'a str>,
    /// The number of partitions of the topic that the role reads.
    pub partitions: Option<i32>,
    /// The version of the rule set.
    pub ruleset: Option<String>,
    /// The interval of a role that works at intervals.
    pub every: Option<Duration>,
    /// The features of this role that are switched off.
    pub off: Vec<&'static str>,
}

impl<'a> Boot<'a> {
    /// Begins to start `role`. The name is part of PostgreSQL's `application_name` and of the start line.
    pub fn new(context: &'a Context, role: &'static str) -> Self {
        Self { context, role, broker_record: None }
    }

    /// Opens a connection and checks the server. Only for commands that work without the schema.
    pub async fn connect_unmigrated(&self) -> Result<Connection, RepositoryError> {
        let mut connection = self.connect_unchecked().await?;
        self.check_server(&mut connection).await?;
        Ok(connection)
    }

    /// Opens another connection to a server that was checked.
    pub async fn connect_unchecked(&self) -> Result<Connection, RepositoryError> {
        repository::connect(&self.context.config.database, self.role).await
    }

    /// Opens a connection and checks server and schema.
    pub async fn connect(&self) -> Result<Connection, RepositoryError> {
        let mut connection = self.connect_unmigrated().await?;
        migrations::check_schema(&mut connection).await?;
        Ok(connection)
    }

    /// Opens a connection and checks server, schema and sequences. For commands that write rows.
    pub async fn connect_to_write(&self) -> Result<Connection, RepositoryError> {
        let mut connection = self.connect().await?;
        sequences::check(&mut connection).await?;
        Ok(connection)
    }

    /// Opens a connection for statements that may run for `statement_timeout`, and checks server and schema.
    pub async fn connect_for_long_statements(
        &self,
        statement_timeout: Duration,
    ) -> Result<Connection, RepositoryError> {
        let database = &self.context.config.database;
        let mut connection =
            repository::connect_for_long_statements(database, self.role, statement_timeout).await?;
        self.check_server(&mut connection).await?;
        migrations::check_schema(&mut connection).await?;
        Ok(connection)
    }

    /// Refuses an unsuitable server, and a pooler that shares sessions. Logs a warning if the server is not durable and
    /// the configuration accepts that, and if this machine's clock differs from the server's.
    async fn check_server(&self, connection: &mut Connection) -> Result<(), RepositoryError> {
        let database = &self.context.config.database;
        let properties = server_properties(connection).await?;
        properties.check(database)?;
        repository::refuse_shared_sessions(connection, &properties, database).await?;
        self.context.clock.observe(read_clock(connection).await?);
        let is_durable = properties.not_durable.is_none();
        metrics::gauge!("ledger_database_durable").set(if is_durable { 1.0 } else { 0.0 });
        if let Some(settings) = properties.not_durable {
            tracing::warn!(
                settings,
                "a crash of PostgreSQL's machine can lose acknowledged transactions, as database.accept_data_loss allows"
            );
        }
        Ok(())
    }

    /// Returns a pool that opens its connections on demand.
    pub fn pool(&self) -> Result<Pool, RepositoryError> {
        repository::pool(&self.context.config.database, self.role)
    }

    /// Connects to the configured broker without a comparison with the record. Only for `ledger broker`.
    pub async fn configured_broker(&self) -> anyhow::Result<SharedBroker> {
        Ok(broker::connect(&self.context.config, self.pool()?).await?)
    }

    /// Connects to the configured broker. Refuses a broker that is not the recorded one.
    pub async fn broker(&mut self) -> anyhow::Result<SharedBroker> {
        let config = &self.context.config;
        let record = BrokerRecord::read(&mut *repository::pooled(&self.pool()?).await?).await?;
        record.check_kind(config)?;
        let broker = self.configured_broker().await?;
        record.check_broker(config, &broker).await?;
        self.broker_record = Some(record);
        Ok(broker)
    }

    /// Connects to the configured broker and checks these topics and their settings. Creates missing ones if
    /// `broker.create_topics` is true. Records the broker and the topics if the database has no record of them, and
    /// returns the record.
    pub async fn broker_with_topics(
        &mut self,
        topics: &[TopicSpec],
    ) -> anyhow::Result<(SharedBroker, BrokerRecord)> {
        let broker = self.broker().await?;
        let config = &self.context.config;
        let create = config.broker.create_topics;
        broker.ensure_topics(topics, create).await.context("the topics are not as configured")?;
        check_topics(&broker, topics).await?;
        let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
        let by = format!("{} {}", self.role, self.context.instance);
        let mut connection = repository::connect(&config.database, self.role).await?;
        let record = recorded_broker::record(&mut connection, config, &broker, &names, &by).await?;
        self.broker_record = Some(record.clone());
        Ok((broker, record))
    }

    /// Returns the generation of the recorded broker, if the command uses the broker and there is a record.
    pub fn broker_generation(&self) -> Option<i64> {
        self.broker_record.as_ref()?.generation()
    }

    /// Opens the admin listener and logs the start line of a role that keeps running.
    pub fn started(self, details: StartDetails<'_>) -> anyhow::Result<AdminListener> {
        let admin = start_admin(self.context)?;
        let config = &self.context.config;
        let broker = if self.uses_broker() { broker_address(config) } else { "unused".to_owned() };
        let recorded = self.broker_record.as_ref().and_then(|record| record.broker.as_ref());
        let cluster = recorded.map(|broker| broker.identity.cluster_id.as_str()).filter(|id| !id.is_empty());
        tracing::info!(
            role = self.role,
            version = VERSION,
            commit = COMMIT,
            instance = %self.context.instance,
            schema = migrations::schema_version()?,
            database = repository::database_address(&config.database)?,
            broker,
            cluster,
            listen = details.listen.map(tracing::field::display),
            connections_max = details.connections_max,
            admin = admin.address.map(tracing::field::display),
            group = details.group,
            partitions = details.partitions,
            ruleset = details.ruleset,
            every = details.every.map(humantime::format_duration).map(tracing::field::display),
            off = self.off(&admin, details.off),
            "started"
        );
        Ok(admin)
    }

    fn uses_broker(&self) -> bool {
        self.broker_record.is_some()
    }

    /// Names everything that is switched off, or returns None.
    fn off(&self, admin: &AdminListener, of_role: Vec<&'static str>) -> Option<String> {
        let creates_topics = self.context.config.broker.create_topics;
        let common = [
            ("admin", admin.address.is_none()),
            ("traces", !self.context.exports_traces),
            ("create_topics", self.uses_broker() && !creates_topics),
        ];
        let off = common.into_iter().filter(|(_, is_off)| *is_off).map(|(name, _)| name);
        let off: Vec<&str> = off.chain(of_role).collect();
        (!off.is_empty()).then(|| off.join(" "))
    }
}

/// Refuses topics whose settings lose events, and logs a warning for settings that promise less than the configuration.
async fn check_topics(broker: &SharedBroker, topics: &[TopicSpec]) -> anyhow::Result<()> {
    let mut hidden = Vec::new();
    for spec in topics {
        let Some(state) = broker.describe_topic(&spec.name).await? else { continue };
        let TopicProblems { refusal, warnings } = check_topic(spec, &state);
        if let Some(refusal) = refusal {
            anyhow::bail!(refusal);
        }
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if state.hides_settings {
            hidden.push(spec.name.as_str());
        }
    }
    if !hidden.is_empty() {
        tracing::warn!(
            "the settings of {} are not checked, because this user lacks the permission DescribeConfigs",
            hidden.join(", ")
        );
    }
    Ok(())
}

fn broker_address(config: &Config) -> String {
    match config.broker.kind {
        BrokerKind::Kafka => format!("kafka {}", config.broker.kafka.bootstrap_servers),
        BrokerKind::Postgres => "postgres".to_owned(),
    }
}
