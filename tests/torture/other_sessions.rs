//! Other sessions on the ledger's database. One kind locks the row of the hot account. The other kind posts in a database
//! transaction that stays open while rows with higher outbox ids are published, and then commits or disappears.

use std::time::Duration;

use ledger::{
    domain::{AccountId, Amount, Currency, Decision, Direction, IdempotencyKey, Posting},
    event::lane_of,
    posting::{Request, post_locked},
    repository::{self, Connection, RepositoryError, transaction},
};
use tokio::task::JoinHandle;

use crate::support::{clients::Known, postgres::TestDatabase};

/// The account that all clients use. The late rows are in its lane.
const HOT: &str = "hot";

/// The sessions that left a transaction open.
#[derive(Default)]
pub struct OtherSessions(Vec<JoinHandle<LateTransaction>>);

/// A transaction that was left open, and its end as far as the session knows.
struct LateTransaction {
    key: String,
    end: End,
}

enum End {
    Committed(String),
    Disappeared,
    /// The server failed before the commit was acknowledged.
    InDoubt(RepositoryError),
}

impl OtherSessions {
    /// Posts to an account in the lane of the hot account and leaves the transaction open for this time.
    pub fn leave_open(&mut self, database: TestDatabase, time: Duration, commits: bool) {
        let number = self.0.len();
        self.0.push(tokio::spawn(async move {
            let key = format!("late-{number}");
            let end = post_late(&database, number, &key, time, commits).await;
            LateTransaction { key, end }
        }));
    }

    /// Locks the row of the hot account for this time.
    pub fn lock_account(database: TestDatabase, time: Duration) {
        tokio::spawn(async move {
            let mut client = database.client().await;
            if let Ok(transaction) = client.transaction().await {
                let _ = transaction
                    .execute("SELECT 1 FROM accounts WHERE account_id = $1 FOR UPDATE", &[&HOT])
                    .await;
                tokio::time::sleep(time).await;
            }
        });
    }

    /// Adds the transactions that must be in the ledger to `known`. Returns a summary and the differences.
    pub async fn ended(self, known: &mut Known, database: &TestDatabase) -> (String, Vec<String>) {
        let mut differences = Vec::new();
        let mut counts = [0; 3];
        for late in self.0 {
            let LateTransaction { key, end } = late.await.expect("no panic");
            let sql = format!(
                "SELECT coalesce(max(id::text), '') FROM transactions WHERE idempotency_key = '{key}'"
            );
            let stored = Some(database.value(&sql).await).filter(|id| !id.is_empty());
            match (&end, &stored) {
                (End::Committed(_), _) => counts[0] += 1,
                (End::Disappeared, Some(_)) => {
                    differences.push(format!("{key} is in the ledger and was never committed"))
                }
                (End::Disappeared, None) => counts[1] += 1,
                (End::InDoubt(error), _) => {
                    println!(
                        "{key} in doubt, {}: {error}",
                        if stored.is_some() { "there" } else { "not there" }
                    );
                    counts[2] += 1;
                }
            }
            let id = if let End::Committed(id) = end { Some(id) } else { stored };
            known.acknowledged.extend(id.map(|id| (key, id)));
        }
        let [committed, disappeared, in_doubt] = counts;
        let summary = format!(
            "transactions left open: {committed} committed, {disappeared} disappeared, {in_doubt} in doubt"
        );
        (summary, differences)
    }
}

async fn post_late(database: &TestDatabase, number: usize, key: &str, time: Duration, commits: bool) -> End {
    let mut connection = match repository::connect(&database.config.database, "other session").await {
        Ok(connection) => connection,
        Err(error) => return End::InDoubt(error),
    };
    let request = Request { posting: posting(number, key).into(), traceparent: None };
    let open = if commits { time } else { time * 100 };
    let posting = transaction("late", &mut connection, async |connection: &mut Connection| {
        let posted = post_locked(connection, std::slice::from_ref(&request)).await?;
        tokio::time::sleep(open).await;
        match posted.decisions.first() {
            Some(Decision::Create(created)) => Ok(created.id.to_string()),
            other => panic!("the key is unique: {other:?}"),
        }
    });
    match tokio::time::timeout(if commits { time * 100 } else { time }, posting).await {
        Ok(Ok(id)) => End::Committed(id),
        Ok(Err(error)) => End::InDoubt(error),
        Err(_) => End::Disappeared,
    }
}

fn posting(number: usize, key: &str) -> Posting {
    let in_lane = (0..)
        .map(|n| format!("late-{n}"))
        .filter(|account| lane_of(account.as_bytes()) == lane_of(HOT.as_bytes()));
    let account = in_lane.into_iter().nth(number % 20).expect("enough of them");
    Posting {
        account_id: AccountId::parse(&account).expect("valid"),
        idempotency_key: IdempotencyKey::parse(key).expect("valid"),
        direction: Direction::Credit,
        amount: Amount::from_minor(100).expect("valid"),
        currency: Currency::parse("EUR").expect("known"),
        counterparty: None,
        description: None,
        metadata: None,
        reverses: None,
        created_at: None,
    }
}
