//! A database that keeps its connections open and stops answering.

use std::time::Duration;

use ledger::{event::partition_of, risk::SHIPPED_RULES, runtime::Stop};

use super::scene::{PARTITIONS, Scene};
use crate::support::{eventually, proxy::Proxy};

/// Makes each commit of assessments wait for the advisory lock 7.
const COMMITS_WAIT: &str = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON risk_assessments
      DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()";

/// The answer to a commit is lost: the consumer continues at the position that the database holds. Later, the answer to
/// another commit is lost while the consumer stops: it ends nevertheless.
///
/// Seen to fail without the answer timeout: the partition then waited as long as the process lived.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_gets_no_answer_continues_and_can_be_stopped() {
    let scene = Scene::new().await;
    let records = scene.post(1, 220).await;
    let config: tokio_postgres::Config = scene.database.url.parse().expect("a URL");
    let port = config.get_ports()[0];
    let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await;
    let through = scene.database.url.replace(&format!("127.0.0.1:{port}"), &proxy.address.to_string());
    let client = scene.database.client().await;
    client.batch_execute(COMMITS_WAIT).await.expect("a trigger");
    client.batch_execute("SELECT pg_advisory_lock(7)").await.expect("locked");
    let overrides = [
        ("database.url", through.as_str()),
        ("database.connect_timeout", "500ms"),
        ("database.statement_timeout", "900ms"),
        ("consume_risk.batch_size_max", "20"),
    ];
    let consumer = scene.consumer(partition_of(b"acct-0", PARTITIONS), SHIPPED_RULES, &overrides).await;
    let stop = Stop::new();
    let running = tokio::spawn(consumer.run(stop.clone()));
    let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    let commit_waits = async |commits: usize| {
        eventually("a commit waits, or does not", async || scene.count(waiting).await == commits).await;
    };
    scene.publish(&records[..200]).await;
    commit_waits(1).await;
    proxy.swallow(true);
    client.batch_execute("SELECT pg_advisory_unlock(7)").await.expect("unlocked");
    commit_waits(0).await;
    proxy.swallow(false);
    scene.consumed().await;
    client.batch_execute("SELECT pg_advisory_lock(7)").await.expect("locked");
    scene.publish(&records[200..]).await;
    commit_waits(1).await;
    proxy.swallow(true);
    stop.request();
    let ended = tokio::time::timeout(Duration::from_secs(15), running).await;
    ended.expect("it ends").expect("no panic");
    scene.assessed_exactly(200).await;
    assert_eq!(scene.count("dead_letters").await, 0);
}
