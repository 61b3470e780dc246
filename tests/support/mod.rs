//! The helpers of the tests: a real PostgreSQL with a database per test, the real binary, a real Kafka.
//! All of it ends with the test process and leaves nothing behind.

pub mod api;
pub mod binary;
pub mod clients;
pub mod german;
pub mod kafka;
pub mod kafka_admin;
pub mod kafka_script;
pub mod load;
pub mod own_kafka;
pub mod own_postgres;
pub mod pgbouncer;
pub mod postgres;
pub mod promtool;
pub mod proxy;
pub mod relay_stage;
pub mod rskafka_client;
pub mod server;
pub mod system;
pub mod topic_audit;
pub mod whole_path;

use std::time::{Duration, Instant};

/// The longest wait for a condition. Generous, because tests share the cores with databases, brokers and whatever else runs
/// on the machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Checks the condition until it holds. Panics with `what` at the deadline.
pub async fn eventually<F, Looked>(what: &str, look: F)
where
    F: FnMut() -> Looked,
    Looked: Future<Output = bool>,
{
    eventually_within(DEADLINE, what, look).await;
}

/// Like [`eventually`], with another limit, for steps that take longer with Kafka or a slow network.
pub async fn eventually_within<F, Looked>(limit: Duration, what: &str, mut look: F)
where
    F: FnMut() -> Looked,
    Looked: Future<Output = bool>,
{
    let deadline = Instant::now() + limit;
    while !look().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
