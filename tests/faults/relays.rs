//! Relays that die or freeze between two steps, on a real Kafka.

use nix::sys::signal::Signal;

use crate::support::{
    eventually,
    system::{System, dies},
};

const SMALL_BATCHES: (&str, &str) = ("LEDGER_RELAY__BATCH_SIZE_MAX", "100");

/// Seen to fail with this planted bug: rows are removed when they are read. A relay that dies at `relay/read` then
/// loses them.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_between_any_two_steps_loses_nothing_and_keeps_the_order() {
    let Some(system) = System::on_kafka().await else { return };
    let points = ["relay/read", "relay/published", "relay/removed@2", "relay/published@3"];
    for (round, point) in points.into_iter().enumerate() {
        system.post(round * 600, 600, 40, |_| None).await;
        dies(system.start("relay", &[SMALL_BATCHES, ("LEDGER_FAIL_POINT", point)]));
    }
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    system.is_whole().await;
    let audit = system.audit().await;
    assert!(audit.duplicates > 0, "a relay died after publishing and before removing");
    assert_eq!(audit.distinct(), 2_400);
    relay.stop();
    consumer.stop();
}

/// Seen to fail with this planted bug: rows are removed without a check of the leases. The rows are in the topic by
/// then, so only the epoch shows that they belong to the new owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_freezes_after_publishing_removes_nothing_when_it_thaws() {
    let Some(system) = System::on_kafka().await else { return };
    system.post(0, 300, 40, |_| None).await;
    let frozen = system.start("relay", &[("LEDGER_FAIL_POINT", "relay/published:stop")]);
    eventually("it freezes", async || frozen.is_frozen()).await;
    // The rival takes all lanes, reads their rows and freezes too. Now it owns them.
    let long = ("LEDGER_RELAY__LEASE_TTL", "60s");
    let rival = system.start("relay", &[long, ("LEDGER_FAIL_POINT", "relay/read:stop")]);
    eventually("the rival takes over and freezes", async || rival.is_frozen()).await;
    frozen.signal(Signal::SIGCONT);
    eventually("the first relay notices", async || frozen.stderr().contains("lost a lease while publishing"))
        .await;
    assert_eq!(system.count("outbox").await, 300, "nothing is removed under a lost lease");
    rival.signal(Signal::SIGCONT);
    system.post(300, 300, 40, |_| None).await;
    let consumer = system.consumer(&[]);
    system.is_whole().await;
    for role in [frozen, rival, consumer] {
        role.stop();
    }
}
