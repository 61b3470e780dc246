//! A relay inside the test process, on a database whose outbox the test fills.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use chrono::{DateTime, Utc};
use ledger::{
    broker::{self, SharedBroker},
    event::lane_of,
    relay::Relay,
    runtime::LeaseGroup,
};
use uuid::Uuid;

use super::{DEADLINE, eventually, postgres::TestDatabase};

/// An outbox row as a test writes it.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub event_id: Uuid,
    pub event_type: &'static str,
    pub created_at: DateTime<Utc>,
    pub traceparent: Option<String>,
    /// An array of `[name, base64 value]`. `None` for the CloudEvents headers.
    pub headers: Option<serde_json::Value>,
}

impl OutboxRow {
    /// A row that was created now and gets the CloudEvents headers.
    pub fn new(topic: &str, key: Option<&str>, value: Vec<u8>) -> Self {
        Self {
            topic: topic.to_owned(),
            key: key.map(|key| key.as_bytes().to_owned()),
            value: Some(value),
            event_id: Uuid::now_v7(),
            event_type: "Test.v1",
            created_at: Utc::now(),
            traceparent: None,
            headers: None,
        }
    }
}

/// A database with an outbox.
pub struct Outbox(pub TestDatabase);

impl Outbox {
    /// Inserts rows in their order.
    pub async fn insert(&self, rows: &[OutboxRow]) {
        let sql = "INSERT INTO outbox
                     (lane, topic, key, value, event_id, event_type, created_at, traceparent, headers)
                   VALUES ($1, $2, $3, $4, $5::text::uuid, $6, $7, $8, $9::text::json)";
        let client = self.0.client().await;
        for row in rows {
            let lane = lane_of(row.key.as_deref().unwrap_or_default());
            let (event_id, created_at) = (row.event_id.to_string(), SystemTime::from(row.created_at));
            let headers = row.headers.as_ref().map(ToString::to_string);
            client
                .execute(
                    sql,
                    &[
                        &lane,
                        &row.topic,
                        &row.key,
                        &row.value,
                        &event_id,
                        &row.event_type,
                        &created_at,
                        &row.traceparent,
                        &headers,
                    ],
                )
                .await
                .expect("inserted");
        }
    }

    /// The number of rows that wait.
    pub async fn rows(&self) -> String {
        self.0.value("SELECT count(*) FROM outbox").await
    }

    /// Reason and error of every dead letter.
    pub async fn dead_letters(&self) -> String {
        let sql = "SELECT coalesce(string_agg(reason || ' ' || error, '; '), '') FROM dead_letters";
        self.0.value(sql).await
    }
}

/// A relay in this process that holds all lanes.
pub struct RelayStage {
    pub outbox: Outbox,
    pub broker: SharedBroker,
    pub relay: Arc<Relay>,
    pub group: LeaseGroup,
}

impl RelayStage {
    pub async fn new(overrides: &[(&str, &str)]) -> Self {
        let database = TestDatabase::new().await;
        let context = database.context_with(overrides);
        let broker = broker::connect(&context.config, database.pool()).await.expect("Kafka");
        let relay = Arc::new(Relay::new(&context, Arc::clone(&broker)));
        let names = (0..32).map(|lane| format!("relay/lane/{lane}")).collect();
        let group = LeaseGroup::join(&context, "relay", names, context.config.relay.lease_ttl);
        eventually("all lanes are held", async || group.held().len() == 32).await;
        Self { outbox: Outbox(database), broker, relay, group }
    }

    /// Publishes until the outbox is empty.
    pub async fn drain(&self) {
        let deadline = Instant::now() + DEADLINE;
        while self.outbox.rows().await != "0" {
            assert!(Instant::now() < deadline, "{} rows are left", self.outbox.rows().await);
            self.relay.run_once(&self.group.held()).await.expect("no refusal");
        }
    }

    /// Publishes until the broker refuses permanently, and returns the error.
    pub async fn drain_until_refused(&self) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.relay.run_once(&self.group.held()).await {
                Err(error) => return error.to_string(),
                Ok(_) => assert!(Instant::now() < deadline, "nothing was refused"),
            }
        }
    }
}
