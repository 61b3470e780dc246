//! Consumers come and go under load. They share the partitions again within seconds, and each partition has one owner at
//! every moment.

use std::time::Duration;

use crate::support::{
    binary::Binary,
    clients::{Clients, timed},
    system::System,
};

const PARTITIONS: usize = 6;
const REBALANCE_MAX: Duration = Duration::from_secs(5);
const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// Records the owner of each lease and epoch.
const HISTORY: &str = "
    CREATE TABLE lease_history (name text, epoch bigint, owner text, UNIQUE (name, epoch, owner));
    CREATE FUNCTION remember_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF new.owner IS NOT NULL THEN
        INSERT INTO lease_history VALUES (new.name, new.epoch, new.owner) ON CONFLICT DO NOTHING;
      END IF;
      RETURN NULL;
    END $$;
    CREATE TRIGGER remember AFTER UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION remember_lease();";

/// Returns whether this many consumers hold all partitions, in equal shares.
async fn share(system: &System, consumers: usize) -> bool {
    let sql = "SELECT coalesce(string_agg(count::text, ',' ORDER BY count DESC), '') FROM
               (SELECT count(*) FROM leases WHERE name LIKE 'consume-risk/%' AND owner IS NOT NULL GROUP BY owner) AS c";
    let shares: Vec<String> = (0..consumers)
        .map(|number| (PARTITIONS / consumers + usize::from(number < PARTITIONS % consumers)).to_string())
        .collect();
    system.database.value(sql).await == shares.join(",")
}

/// Seen to fail with this planted bug: taking a lease does not raise its epoch, so that two owners have the same epoch.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_scale_from_one_to_four_to_two_under_load() {
    let system = System::on_postgres().await;
    system.database.client().await.batch_execute(HISTORY).await.expect("a trigger");
    // The default: leases of 5 s.
    let default_ttl = [("LEDGER_CONSUME_RISK__LEASE_TTL", "5s")];
    let (serve, url) = system.serve(&[]);
    let relay = system.relay(&[]);
    let clients = Clients::start(&[url], 8, 60, Duration::from_millis(10));
    let mut consumers: Vec<Binary> = vec![system.consumer(&default_ttl)];
    let one = timed("one has all", async || share(&system, 1).await).await;
    clients.more(100).await;
    consumers.extend((0..3).map(|_| system.consumer(&default_ttl)));
    let four = timed("four share", async || share(&system, 4).await).await;
    assert!(four < REBALANCE_MAX, "{four:?}");
    clients.more(200).await;
    // Both are asked to stop at once, as in a deployment, and release their leases.
    let leaving: Vec<Binary> = consumers.drain(..2).collect();
    leaving.iter().for_each(Binary::terminate);
    let two = timed("two share", async || share(&system, 2).await).await;
    assert!(two < HANDOVER_MAX, "{two:?}");
    leaving.into_iter().for_each(Binary::stop);
    clients.more(200).await;
    // One is killed: its leases must expire first.
    consumers.remove(0).kill();
    timed("one has all again", async || share(&system, 1).await).await;
    let known = clients.finish().await;
    assert_eq!(known.differences(&system.database).await, Vec::<String>::new());
    system.is_whole().await;
    let shared = "(SELECT name, epoch FROM lease_history GROUP BY 1, 2 HAVING count(*) > 1) AS two_owners";
    assert_eq!(system.count(shared).await, 0, "one owner per epoch");
    assert!(system.count("lease_history WHERE name LIKE 'consume-risk/%'").await > 2 * PARTITIONS);
    println!("one {one:?}, four {four:?}, two {two:?}");
    for role in consumers.into_iter().chain([serve, relay]) {
        role.stop();
    }
}
