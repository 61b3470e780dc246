//! Balances are read in groups: each reader gets its own account's balance, which is never older than its request.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    api::{Api, transaction},
    eventually,
    postgres::TestDatabase,
};

/// Planted bugs that this catches: answers assigned by their position among the found rows, which a missing account
/// shifts; and cached answers.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_readers_see_the_current_balance_of_their_own_account() {
    const READERS: usize = 48;
    const ROUNDS: usize = 6;
    let api = Arc::new(Api::start().await);
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let api = Arc::clone(&api);
        readers.spawn(async move {
            let account = format!("reader-{reader}");
            for round in 1..=ROUNDS {
                let posted =
                    api.post(&format!("k{round}"), &transaction(&account, "credit", "1.00", "EUR")).await;
                assert_eq!(posted.status, 201, "{posted:?}");
                let (own, missing, shared) = tokio::join!(
                    async { api.get(&format!("/accounts/{account}/balance")).await },
                    async { api.get(&format!("/accounts/nobody-{reader}/balance")).await },
                    async { api.get("/accounts/reader-0").await },
                );
                let own = own.json();
                assert_eq!(own["account_id"], json!(account));
                assert_eq!(own["balance"], json!(format!("{round}.00")), "{own}");
                assert_eq!(own["account_seq"], json!(round));
                missing.is_problem(404, "not-found");
                assert!([200, 404].contains(&shared.status), "{shared:?}");
            }
        });
    }
    while let Some(ended) = readers.join_next().await {
        ended.expect("a reader");
    }
}

/// Planted bug that this catches: `as_of` taken after the query.
#[tokio::test(flavor = "multi_thread")]
async fn as_of_is_not_later_than_the_query_and_not_earlier_than_the_last_transaction() {
    let api = Arc::new(Api::start().await);
    assert_eq!(api.post("k", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    let client = api.database.client().await;
    client.batch_execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reader = Arc::clone(&api);
    let reading = tokio::spawn(async move { reader.get("/accounts/a/balance").await.json() });
    let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'accounts'::regclass AND NOT granted";
    eventually("the query waits for the lock", async || api.database.value(waiting).await == "t").await;
    let before_the_answer = Utc::now();
    // A transaction of another instance, whose clock is ahead.
    let ahead = (before_the_answer + TimeDelta::hours(1)).trunc_subsecs(6);
    client.batch_execute("COMMIT").await.unwrap();
    let as_of = |json: &serde_json::Value| json["as_of"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let answer = reading.await.unwrap();
    assert!(as_of(&answer) < before_the_answer, "{answer}");
    let sql = format!("UPDATE accounts SET last_created_at = '{}'", ahead.to_rfc3339());
    client.batch_execute(&sql).await.unwrap();
    let answer = api.get("/accounts/a/balance").await.json();
    assert_eq!(as_of(&answer), ahead, "{answer}");
}

/// Two instances post and answer readers at the same time. Each balance that a reader gets is one that the account had,
/// and a reader that waits for each answer never sees `account_seq` go back.
///
/// Planted bug that this catches: `account_seq` and the balance taken from two queries.
#[tokio::test(flavor = "multi_thread")]
async fn each_returned_balance_is_one_that_the_account_had() {
    const ACCOUNTS: usize = 3;
    let one = Arc::new(Api::start().await);
    let other = Arc::new(Api::on(TestDatabase::at(&one.database.url), &[]).await);
    let (posted, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (mut posters, mut readers) = (JoinSet::new(), JoinSet::new());
    for poster in 0..8 {
        let (api, count) = (Arc::clone(if poster % 2 == 0 { &one } else { &other }), Arc::clone(&posted));
        posters.spawn(async move {
            for n in 0..60 {
                let direction = if (n + poster) % 3 == 0 { "debit" } else { "credit" };
                let amount = format!("{}.{:02}", 1 + (n * 7 + poster) % 90, n);
                let body = transaction(&format!("a{}", (n + poster) % ACCOUNTS), direction, &amount, "EUR");
                let answer = api.post(&format!("{poster}-{n}"), &body).await;
                assert_eq!(answer.status, 201, "{answer:?}");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for reader in 0..6 {
        let (api, done) = (Arc::clone(if reader % 2 == 0 { &one } else { &other }), Arc::clone(&done));
        readers.spawn(async move {
            let mut seen: Vec<(String, i64, String)> = Vec::new();
            let mut last = [0; ACCOUNTS];
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let account = n % ACCOUNTS;
                let answer = api.get(&format!("/accounts/a{account}/balance")).await;
                if answer.status == 404 {
                    continue;
                }
                let json = answer.json();
                let sequence = json["account_seq"].as_i64().expect("a number");
                assert!(
                    sequence >= last[account],
                    "a{account} went back from {} to {sequence}",
                    last[account]
                );
                last[account] = sequence;
                seen.push((
                    format!("a{account}"),
                    sequence,
                    json["balance"].as_str().expect("text").to_owned(),
                ));
            }
            seen
        });
    }
    while let Some(ended) = posters.join_next().await {
        ended.expect("a poster");
    }
    done.store(true, Ordering::Relaxed);
    let client = one.database.client().await;
    let prefix_sums = "SELECT account_id, account_seq,
        (sum(amount) OVER (PARTITION BY account_id ORDER BY account_seq) / 100.0)::numeric(20, 2)::text FROM transactions";
    let rows = client.query(prefix_sums, &[]).await.unwrap();
    let had: HashSet<(String, i64, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!((had.len(), posted.load(Ordering::Relaxed)), (480, 480));
    let mut reads = 0;
    while let Some(seen) = readers.join_next().await {
        for read in seen.expect("a reader") {
            assert!(had.contains(&read), "the account never had {read:?}");
            reads += 1;
        }
    }
    assert!(reads > 200, "{reads}");
}
