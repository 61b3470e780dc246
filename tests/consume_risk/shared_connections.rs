//! The partitions of a process share a bounded number of database connections.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::scene::{PARTITIONS, Scene};
use crate::support::{binary::get, eventually, system::System};

/// Connections of the role and of its PostgreSQL broker have the same name.
const CONNECTIONS: &str =
    "pg_stat_activity WHERE datname = current_database() AND application_name = 'ledger consume-risk'";

/// Seen to fail when each partition had two connections of its own.
#[tokio::test(flavor = "multi_thread")]
async fn all_partitions_together_open_at_most_pool_size_max_connections() {
    const POOL_SIZE_MAX: usize = 2;
    let scene = Scene::new().await;
    let records = scene.post(60, 2_000).await;
    let consumer = scene.binary(&[
        ("LEDGER_DATABASE__POOL_SIZE_MAX", &POOL_SIZE_MAX.to_string()),
        ("LEDGER_CONSUME_RISK__BATCH_SIZE_MAX", "50"),
    ]);
    scene.publish(&records[..1_000]).await;
    let most = AtomicUsize::new(0);
    let consume = async |count: usize| {
        eventually("the records are consumed", async || {
            most.fetch_max(scene.count(CONNECTIONS).await, Ordering::Relaxed);
            scene.count("risk_assessments").await == count
        })
        .await;
    };
    consume(1_000).await;
    scene.publish(&records[1_000..]).await;
    consume(2_000).await;
    // The PostgreSQL broker of the role has a pool of the same size.
    let most = most.into_inner();
    assert!(most <= 2 * POOL_SIZE_MAX, "{most} connections");
    consumer.stop();
    scene.assessed_exactly(2_000).await;
    assert!(usize::try_from(PARTITIONS).expect("few") > POOL_SIZE_MAX, "partitions had to share");
}

/// Returns the largest lag of all partitions, and how many steps failed because of the database.
fn lag_and_failures(admin: &str) -> (f64, f64) {
    let (_, metrics) = get(admin, "/metrics").expect("metrics");
    let values = |name: &str, label: &str| -> Vec<f64> {
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    };
    let lag = values("ledger_consumer_lag_records", "").into_iter().fold(0.0, f64::max);
    (lag, values("ledger_consumer_errors_total", "reason=\"database\"").iter().sum())
}

/// The server allows the role two connections: one for the leases, and one for six partitions. They share it. Then the
/// server allows no connection for the partitions: their lag, the log and the metric show it.
///
/// Seen to fail when each partition needed two connections of its own: nothing was assessed, and the lag was not shown.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_share_the_connections_that_the_server_allows_and_report_when_there_is_none() {
    let Some(system) = System::on_kafka().await else { return };
    let client = system.database.client().await;
    let database = system.database.value("SELECT current_database()").await;
    let role = format!("limited_{database}");
    let limited = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'limited' CONNECTION LIMIT 2;
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    client.batch_execute(&limited).await.expect("a role");
    let (_, host_and_database) = system.database.url.split_once('@').expect("a user");
    let url = format!("postgres://{role}:limited@{host_and_database}");
    let relay = system.relay(&[]);
    system.post(0, 600, 60, |_| None).await;
    let mut consumer = system.start("consume-risk", &[("LEDGER_DATABASE__URL", &url)]);
    let admin = consumer.field("admin");
    eventually("all are assessed", async || system.count("risk_assessments").await == 600).await;

    let take_away = format!(
        "ALTER ROLE {role} CONNECTION LIMIT 1;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE usename = '{role}' AND application_name = 'ledger consume-risk'"
    );
    client.batch_execute(&take_away).await.expect("taken away");
    system.post(600, 600, 60, |_| None).await;
    eventually("the lag and the failures are shown", async || {
        let (lag, failures) = lag_and_failures(&admin);
        lag > 0.0 && failures > 0.0
    })
    .await;
    assert!(consumer.stderr().contains("too many connections for role"), "{}", consumer.stderr());
    assert_eq!(system.count("risk_assessments").await, 600);
    client.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 2")).await.expect("given back");
    eventually("all are assessed", async || system.count("risk_assessments").await == 1_200).await;
    system.is_whole().await;
    for role in [relay, consumer] {
        role.stop();
    }
}
