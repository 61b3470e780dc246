//! Others on the product's database: one holds a row that everybody wants, one posts in a transaction that it leaves
//! open while rows with higher outbox ids are published, and in the end commits or vanishes.

use std::time::Duration;

use ledger::{
    domain::{AccountId, Amount, Currency, Decision, Direction, IdempotencyKey, Posting},
    event::lane_of,
    posting::{Request, post_locked},
    repository::{self, Connection, RepositoryError, transaction},
};
use tokio::task::JoinHandle;

use crate::support::{clients::Known, postgres::TestDatabase};

/// Everybody's account, of whose lane the late rows are.
const HOT: &str = "hot";

/// Those who left a transaction open.
#[derive(Default)]
pub struct Strangers(Vec<JoinHandle<Late>>);

/// How one of them ended, as far as it knows.
struct Late {
    key: String,
    end: End,
}

enum End {
    Committed(String),
    Vanished,
    /// The server was killed in the middle.
    InDoubt(RepositoryError),
}

impl Strangers {
    /// Posts to an account of its own whose rows are in the lane of the hot one, and leaves the transaction open for
    /// that time.
    pub fn leave_open(&mut self, database: TestDatabase, time: Duration, commits: bool) {
        let number = self.0.len();
        self.0.push(tokio::spawn(async move {
            let key = format!("late-{number}");
            let end = post_late(&database, number, &key, time, commits).await;
            Late { key, end }
        }));
    }

    /// Holds the hot account's row.
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

    /// Adds to what is known to be in the ledger; answers a summary, and what is not as it was told.
    pub async fn ended(self, known: &mut Known, database: &TestDatabase) -> (String, Vec<String>) {
        let mut differences = Vec::new();
        let mut counts = [0; 3];
        for late in self.0 {
            let Late { key, end } = late.await.expect("no panic");
            let sql = format!(
                "SELECT coalesce(max(id::text), '') FROM transactions WHERE idempotency_key = '{key}'"
            );
            let kept = Some(database.value(&sql).await).filter(|id| !id.is_empty());
            match (&end, &kept) {
                (End::Committed(_), _) => counts[0] += 1,
                (End::Vanished, Some(_)) => {
                    differences.push(format!("{key} is there and was never committed"))
                }
                (End::Vanished, None) => counts[1] += 1,
                (End::InDoubt(error), _) => {
                    println!(
                        "{key} in doubt, {}: {error}",
                        if kept.is_some() { "there" } else { "not there" }
                    );
                    counts[2] += 1;
                }
            }
            let id = if let End::Committed(id) = end { Some(id) } else { kept };
            known.acknowledged.extend(id.map(|id| (key, id)));
        }
        let [committed, vanished, in_doubt] = counts;
        let summary = format!(
            "transactions left open: {committed} committed, {vanished} vanished, {in_doubt} in doubt"
        );
        (summary, differences)
    }
}

async fn post_late(database: &TestDatabase, number: usize, key: &str, time: Duration, commits: bool) -> End {
    let mut connection = match repository::connect(&database.config.database, "stranger").await {
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
            other => panic!("a key of its own is new: {other:?}"),
        }
    });
    match tokio::time::timeout(if commits { time * 100 } else { time }, posting).await {
        Ok(Ok(id)) => End::Committed(id),
        Ok(Err(error)) => End::InDoubt(error),
        Err(_) => End::Vanished,
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
