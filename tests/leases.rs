//! Leases on a real PostgreSQL: sharing, takeover, fencing and release.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use ledger::{
    repository::{Connection, RepositoryError, leases},
    runtime::{Context, Lease, LeaseGroup},
};

use crate::support::{DEADLINE, postgres::TestDatabase, proxy::Proxy};

const TTL: Duration = Duration::from_secs(2);

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("test/{number}")).collect()
}

fn join(context: &Context, count: usize) -> LeaseGroup {
    LeaseGroup::join(context, "test", names(count), TTL)
}

/// Returns the context of an instance with this name.
fn instance(database: &TestDatabase, name: &str) -> Context {
    Context { instance: name.into(), ..database.context() }
}

async fn sql(connection: &mut Connection, text: &str) {
    connection.batch_execute(text).await.unwrap();
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn members_share_evenly_and_again_when_a_member_joins_or_leaves() {
    let database = TestDatabase::new().await;
    let a = join(&instance(&database, "a"), 7);
    until("a has all", || a.held().len() == 7).await;
    let b = join(&instance(&database, "b"), 7);
    until("4 and 3", || a.held().len() == 4 && b.held().len() == 3).await;
    let c = join(&instance(&database, "c"), 7);
    until("3, 2 and 2", || (a.held().len(), b.held().len(), c.held().len()) == (3, 2, 2)).await;
    let mut all: Vec<String> =
        [&a, &b, &c].iter().flat_map(|group| group.held()).map(|lease| lease.name).collect();
    all.sort();
    assert_eq!(all, names(7), "each lease has one holder");
    b.leave().await;
    until("4 and 3 again", || a.held().len() == 4 && c.held().len() == 3).await;
}

#[tokio::test]
async fn the_leases_of_a_dead_member_are_taken_over_with_a_higher_epoch_and_the_zombie_is_fenced() {
    let database = TestDatabase::new().await;
    let mut connection = database.connection().await;
    // A member that dies: it takes all leases and never renews them.
    leases::create(&mut connection, &names(4)).await.unwrap();
    leases::heartbeat(&mut connection, "test", "dead", TTL).await.unwrap();
    let taken = leases::take(&mut connection, "dead", &names(4), 9, TTL).await.unwrap();
    let zombies: Vec<Lease> =
        taken.into_iter().map(|taken| Lease::new(taken.name, "dead".into(), taken.epoch, TTL)).collect();
    assert_eq!(zombies.len(), 4);
    let refs: Vec<&Lease> = zombies.iter().collect();
    leases::hold(&mut connection, &refs).await.expect("the leases are still its own");

    let started = Instant::now();
    let b = join(&instance(&database, "b"), 4);
    until("b has all", || b.held().len() == 4).await;
    assert!(started.elapsed() > TTL / 2, "taken over only after they expired");
    assert!(b.held().iter().all(|lease| lease.epoch == 2), "{:?}", b.held());

    // Fails if `hold` compares the owner but not the epoch: then a zombie with the same name passes the fence.
    let error = leases::hold(&mut connection, &refs).await.expect_err("fenced");
    assert!(matches!(&error, RepositoryError::LeaseLost(name) if name == "test/0"), "{error}");
    let held = b.held();
    let same_name_old_epoch = Lease::new("test/1".into(), "b".into(), 1, TTL);
    assert!(leases::hold(&mut connection, &[&same_name_old_epoch]).await.is_err());
    leases::hold(&mut connection, &[&held[1]]).await.expect("the new owner passes the fence");
}

#[tokio::test]
async fn a_database_transaction_that_holds_a_lease_keeps_it_until_its_commit() {
    let database = TestDatabase::new().await;
    let (mut first, mut second) = (database.connection().await, database.connection().await);
    leases::create(&mut first, &names(1)).await.unwrap();
    let ttl = Duration::from_millis(100);
    let taken = leases::take(&mut first, "a", &names(1), 1, ttl).await.unwrap();
    let lease = Lease::new(taken[0].name.clone(), "a".into(), taken[0].epoch, ttl);
    sql(&mut first, "BEGIN").await;
    leases::hold(&mut first, &[&lease]).await.unwrap();
    tokio::time::sleep(ttl * 3).await;
    assert_eq!(
        leases::take(&mut second, "b", &names(1), 1, ttl).await.unwrap(),
        [],
        "a held lease was taken"
    );
    let renewed = leases::renew(&mut second, "a", &names(1), ttl).await.unwrap();
    assert!(renewed[0].remaining_seconds < 0.0, "renewed without a wait and without an extension");
    sql(&mut first, "COMMIT").await;
    assert_eq!(leases::take(&mut second, "b", &names(1), 1, ttl).await.unwrap()[0].epoch, 2);
}

#[tokio::test]
async fn a_stop_releases_the_leases_before_the_ttl_but_not_those_in_use() {
    let database = TestDatabase::new().await;
    let ttl = Duration::from_secs(60);
    let context = instance(&database, "a");
    let a = LeaseGroup::join(&context, "test", names(3), ttl);
    until("a has all", || a.held().len() == 3).await;
    let working = a.held();
    context.stop.request();
    until("a holds nothing", || a.held().is_empty()).await;
    let b = LeaseGroup::join(&instance(&database, "b"), "test", names(3), ttl);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(b.held(), [], "a lease in use was released");
    let mut connection = database.connection().await;
    leases::hold(&mut connection, &working.iter().collect::<Vec<_>>())
        .await
        .expect("the last commit succeeds");
    let finished = Instant::now();
    drop(working);
    until("b has all", || b.held().len() == 3).await;
    assert!(finished.elapsed() < ttl / 2, "{:?}", finished.elapsed());
}

#[tokio::test]
async fn a_member_without_the_database_drops_its_leases_before_they_expire() {
    let database = TestDatabase::new().await;
    let a = join(&instance(&database, "a"), 2);
    until("a has all", || a.held().len() == 2).await;
    // Blocks renewals: the statements of the member wait and time out, as on a connection without answers.
    let mut rival = database.connection().await;
    let mut looking = database.connection().await;
    sql(&mut rival, "BEGIN; LOCK TABLE lease_members IN EXCLUSIVE MODE").await;
    until("a drops its leases", || a.held().is_empty()).await;
    let taken = leases::take(&mut looking, "b", &names(2), 2, TTL).await.unwrap();
    assert_eq!(taken, [], "the leases have not expired in the database");
    sql(&mut rival, "ROLLBACK").await;
    until("a has all again", || a.held().len() == 2).await;
}

/// Fails if connecting must fit into the time of one heartbeat: the first host uses all of it.
#[tokio::test]
async fn leases_are_taken_although_the_first_host_of_the_url_never_answers() {
    let database = TestDatabase::new().await;
    let (server, _) = database.url.rsplit_once('/').expect("a database's name");
    let address = server.rsplit(['@', '/']).next().expect("an address").to_owned();
    let silent = Proxy::start(address.parse().expect("an address")).await;
    silent.swallow(true);
    let url = database.url.replace(&address, &format!("{},{address}", silent.address));
    let context = TestDatabase::at(&url).context_with(&[("database.connect_timeout", "4s")]);
    let group = join(&context, 3);
    until("the group has all", || group.held().len() == 3).await;
}
