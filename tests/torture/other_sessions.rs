//! Other sessions on the ledger's database. One kind locks the row of the hot account. The other kind posts in a database
//! transaction that stays open while rows with higher outbox ids are published, and then commits or disappears.

use std::time::Duration;

use ledger::{
    domain::{AccountId, Amount, Currency, Decision, Direction, IdempotencyKey, Posting},
    event::lane_of,
    posting::{Request, post_locked},
    repository::{self, RepositoryError},
};
use tokio::task::JoinHandle;

use crate::support::{clients::Known, postgres::TestDatabase};

/// The account that all clients use. The late rows are in its lane.
const HOT: &str = "hot";

/// Delays the commit of a late transaction for the milliseconds in its key. A transaction that shall disappear fails after
/// that delay.
const DELAY_COMMITS: &str = "
    CREATE FUNCTION delay_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_sleep(split_part(NEW.idempotency_key, '-', 3)::float8 / 1000);
      IF NEW.idempotency_key LIKE '%-disappears' THEN RAISE 'it disappears'; END IF;
      RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER delay_commit AFTER INSERT ON transactions DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW WHEN (NEW.idempotency_key LIKE 'late-%') EXECUTE FUNCTION delay_commit()";

/// Makes late transactions possible.
pub async fn prepare(database: &TestDatabase) {
    database.client().await.batch_execute(DELAY_COMMITS).await.expect("created");
}

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
            let end = if commits { "commits" } else { "disappears" };
            let key = format!("late-{number}-{}-{end}", time.as_millis());
            let end = post_late(&database, number, &key, commits).await;
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

async fn post_late(database: &TestDatabase, number: usize, key: &str, commits: bool) -> End {
    let mut connection = match repository::connect(&database.config.database, "other session").await {
        Ok(connection) => connection,
        Err(error) => return End::InDoubt(error),
    };
    let request = Request { posting: posting(number, key).into(), traceparent: None };
    match post_locked(&mut connection, std::slice::from_ref(&request)).await {
        Ok(posted) => match posted.decisions.first() {
            Some(Decision::Create(created)) => End::Committed(created.id.to_string()),
            other => panic!("the key is unique: {other:?}"),
        },
        Err(_) if !commits => End::Disappeared,
        Err(error) => End::InDoubt(error),
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
