//! A partition that cannot go on leaves the others alone.

use super::scene::{Scene, start, stop};
use crate::support::eventually;

/// How often the others may be too slow to be done while the same statement waits; it does so for five seconds.
const ROUNDS_MAX: usize = 6;
const RECORDS_A_ROUND: usize = 240;

/// The statement that waits for the lock on the position: who sent it, and when.
async fn waiting(scene: &Scene) -> Option<String> {
    let waiting = "SELECT min(pid || ' since ' || query_start) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'ledger consume-risk'
                     AND wait_event_type = 'Lock' AND query LIKE '%consumer_positions%'";
    Some(scene.database.value(waiting).await).filter(|found| found != "NULL")
}

async fn is_at_its_end(scene: &Scene, partition: i32) -> bool {
    let latest = scene.broker.offset_range(&scene.topic, partition).await.expect("range").latest;
    let at = format!("consumer_positions WHERE partition = {partition} AND next_offset = {latest}");
    latest > 0 && scene.count(&at).await == 1
}

/// One partition is halted, because its position is beyond what the broker holds; another one's statement waits for a
/// lock. What is published meanwhile is consumed from the others before that wait is over.
///
/// Seen to fail when a partition had the turn of the whole process for as long as it handled a batch, its statements
/// included: the others then go on only when the wait has timed out.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_stands_still_holds_up_no_other() {
    let scene = Scene::new().await;
    let records = scene.post(60, ROUNDS_MAX * RECORDS_A_ROUND).await;
    let client = scene.database.client().await;
    let positions = "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset)
                    VALUES ('risk', 'transactions.v1', 0, 1000000), ('risk', 'transactions.v1', 1, 0)";
    client.batch_execute(positions).await.expect("inserted");
    let locked = "BEGIN; SELECT FROM consumer_positions WHERE partition = 1 FOR UPDATE";
    client.batch_execute(locked).await.expect("locked");
    // So that the one that waits keeps its lease for as long as it does.
    let context = scene.context(&[("consume_risk.lease_ttl", "60s")]);
    let mut rounds = records.chunks(RECORDS_A_ROUND);
    scene.publish(rounds.next().expect("a round")).await;
    let role = start(&context);
    let (mut wait, mut is_overtaken) = (None, false);
    while !is_overtaken && let Some(round) = rounds.next() {
        let before = wait;
        let waits_anew = async || waiting(&scene).await.is_some_and(|found| Some(found) != before);
        eventually("a statement waits", waits_anew).await;
        wait = waiting(&scene).await;
        scene.publish(round).await;
        eventually("the others are consumed", async || {
            is_at_its_end(&scene, 2).await && is_at_its_end(&scene, 3).await
        })
        .await;
        is_overtaken = wait.is_some() && waiting(&scene).await == wait;
    }
    assert!(is_overtaken, "the others were consumed only when the wait was over");
    assert_eq!(scene.count("consumer_positions WHERE partition = 1 AND next_offset = 0").await, 1);
    client.batch_execute("COMMIT").await.expect("unlocked");
    eventually("the one that waited goes on", async || is_at_its_end(&scene, 1).await).await;
    assert_eq!(scene.count("consumer_positions WHERE partition = 0 AND next_offset = 1000000").await, 1);
    assert_eq!(scene.count("dead_letters").await, 0);
    stop(&context, role).await;
}
