//! The expected path, with the locked path as its model: the same requests give the same answers and the same rows,
//! however wrong the memory of a writer is.
//!
//! Seen to fail with a statement that does not count the accounts it updated (a stale memory forks an account), with one
//! that does not compare the limit, with a refusal based on the memory, and with a memory of transactions that keeps the
//! oldest ones or all of them.

use std::sync::atomic::{AtomicU32, Ordering};

use ledger::{
    domain::{AccountId, Amount, Currency, Decision, Direction, IdempotencyKey, Posting},
    posting::{CommitPath, GroupPoster, MemoryLimits, Request, post_locked},
    repository::{Connection, accounts},
    runtime::DatabaseClock,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::support::postgres::TestDatabase;

/// Account, key, minor units (negative for a debit), currency.
type Wanted<'a> = (&'a str, &'a str, i64, &'a str);

fn request((account, key, minor, code): Wanted<'_>) -> Request {
    let posting = Posting {
        account_id: AccountId::parse(account).unwrap(),
        idempotency_key: IdempotencyKey::parse(key).unwrap(),
        direction: if minor < 0 { Direction::Debit } else { Direction::Credit },
        amount: Amount::from_minor(minor.abs()).unwrap(),
        currency: Currency::parse(code).unwrap(),
        counterparty: None,
        description: None,
        metadata: None,
        reverses: None,
        created_at: None,
    };
    Request { posting: posting.into(), traceparent: None }
}

/// Returns a decision as text, without the id and the moment, which differ between databases.
fn answer(decision: &Decision) -> String {
    match decision {
        Decision::Create(row) => format!("created {} {}", row.account_seq, row.balance_after),
        Decision::Replay(row) => format!("replayed {} {}", row.account_seq, row.balance_after),
        Decision::Mismatch { field } => format!("another {field}"),
        Decision::Refused(refusal) => format!("{refusal:?}"),
    }
}

const ROOMY: MemoryLimits = MemoryLimits { accounts_max: 100, transactions_max: 100 };
const CRAMPED: MemoryLimits = MemoryLimits { accounts_max: 3, transactions_max: 2 };

/// Queries for everything that is stored about the accounts with a prefix, without ids and moments: transactions,
/// accounts, events in order, and whether each transaction has its event.
const STORED: [&str; 4] = [
    "SELECT string_agg(concat_ws(' ', account_id, account_seq, amount, balance_after, idempotency_key), E'\\n'
                       ORDER BY account_id, account_seq)
     FROM transactions WHERE account_id LIKE '{prefix}%'",
    "SELECT string_agg(concat_ws(' ', account_id, currency, balance, account_seq, min_balance), E'\\n'
                       ORDER BY account_id)
     FROM accounts WHERE account_id LIKE '{prefix}%'",
    "SELECT string_agg(concat_ws(' ', lane, topic, event_type, event - '{event_id,transaction_id,created_at}'::text[]),
                       E'\\n' ORDER BY key, id)
     FROM outbox, LATERAL (SELECT convert_from(value, 'UTF8')::jsonb AS event) v
     WHERE convert_from(key, 'UTF8') LIKE '{prefix}%'",
    "SELECT concat_ws(' ', count(*), count(DISTINCT event_id), bool_and(a.last_created_at >= t.created_at))
     FROM transactions t JOIN accounts a USING (account_id)
     JOIN outbox o ON o.event_id = t.id AND convert_from(o.key, 'UTF8') = t.account_id
     WHERE account_id LIKE '{prefix}%'",
];

/// Queries for violations: a gap, a balance that is not the sum, an event out of order. The model writes with the same
/// statement, so a comparison with it would not show these.
const NEVER: [&str; 2] = [
    "SELECT count(*) FROM (
       SELECT account_seq, balance_after, row_number() OVER w AS n, sum(amount) OVER w AS total
       FROM transactions WHERE account_id LIKE '{prefix}%'
       WINDOW w AS (PARTITION BY account_id ORDER BY account_seq)) t
     WHERE account_seq <> n OR balance_after <> total",
    "SELECT count(*) FROM (
       SELECT (convert_from(value, 'UTF8')::jsonb ->> 'account_seq')::bigint AS account_seq,
              row_number() OVER (PARTITION BY key ORDER BY id) AS n
       FROM outbox WHERE convert_from(key, 'UTF8') LIKE '{prefix}%') e
     WHERE account_seq <> n",
];

/// Two instances on one database, and the model on another.
struct Twins<'a> {
    database: &'a TestDatabase,
    model_database: &'a TestDatabase,
    instances: [GroupPoster; 2],
    model: Connection,
    /// The prefix of all account names, so that several scenes can share the databases.
    prefix: String,
}

impl<'a> Twins<'a> {
    async fn on(database: &'a TestDatabase, model_database: &'a TestDatabase) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let open = async |limits| {
            let clock = DatabaseClock::default();
            GroupPoster::connect(&database.config.database, "test", limits, clock).await.unwrap()
        };
        Self {
            database,
            model_database,
            instances: [open(ROOMY).await, open(CRAMPED).await],
            model: model_database.connection().await,
            prefix: format!("{}-", NEXT.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Posts a group on one instance and on the model. Returns the path that the instance took.
    async fn group(&mut self, instance: usize, wanted: &[Wanted<'_>]) -> CommitPath {
        let prefix = &self.prefix;
        let named = |(account, key, minor, code): &Wanted<'_>| {
            request((&format!("{prefix}{account}"), key, *minor, code))
        };
        let requests: Vec<Request> = wanted.iter().map(named).collect();
        let (decisions, path) = self.instances[instance].post(&requests).await.unwrap();
        let expected = post_locked(&mut self.model, &requests).await.unwrap().decisions;
        let [decisions, expected] =
            [decisions, expected].map(|decisions| decisions.iter().map(answer).collect::<Vec<_>>());
        assert_eq!(decisions, expected, "{wanted:?} {path:?}");
        path
    }

    /// Sets an account's limit without the knowledge of either instance.
    async fn limit(&mut self, account: &str, min_balance: Option<i64>) {
        let account_id = AccountId::parse(&format!("{}{account}", self.prefix)).unwrap();
        let currency = Currency::parse("EUR").unwrap();
        let mut other = self.database.connection().await;
        for connection in [&mut other, &mut self.model] {
            accounts::open_or_limit(connection, &account_id, currency, min_balance).await.unwrap();
        }
    }

    /// Checks that the databases hold the same.
    async fn stored_the_same(&self) {
        let questions = STORED.map(|question| question.replace("{prefix}", &self.prefix));
        for question in &questions {
            let (ours, models) =
                (self.database.value(question).await, self.model_database.value(question).await);
            assert_eq!(ours, models, "{question}");
        }
        for question in NEVER.map(|question| question.replace("{prefix}", &self.prefix)) {
            assert_eq!(self.database.value(&question).await, "0", "{question}");
        }
    }
}

async fn databases() -> (TestDatabase, TestDatabase) {
    tokio::join!(TestDatabase::new(), TestDatabase::new())
}

#[tokio::test]
async fn known_accounts_take_the_expected_path_and_new_ones_the_locked_path() {
    let (database, model) = databases().await;
    let mut twins = Twins::on(&database, &model).await;
    assert_eq!(
        twins.group(0, &[("a", "1", 5, "EUR"), ("b", "1", 5, "JPY")]).await,
        CommitPath::Locked,
        "both are new"
    );
    assert_eq!(twins.group(0, &[("a", "2", -7, "EUR"), ("a", "3", 1, "EUR")]).await, CommitPath::Expected);
    // The other instance does not know these accounts and reads them without a lock.
    assert_eq!(twins.group(1, &[("a", "4", 5, "EUR"), ("b", "4", 5, "JPY")]).await, CommitPath::Expected);
    assert_eq!(
        twins.group(1, &[("b", "5", 5, "JPY"), ("c", "5", 5, "EUR")]).await,
        CommitPath::Locked,
        "c is new"
    );
    twins.stored_the_same().await;
}

#[tokio::test]
async fn a_stale_memory_costs_a_second_attempt_and_nothing_else() {
    let (database, model) = databases().await;
    let mut twins = Twins::on(&database, &model).await;
    twins.group(0, &[("a", "1", 5, "EUR"), ("b", "1", 5, "EUR")]).await;
    twins.group(1, &[("a", "2", 50, "EUR")]).await;
    // One of the two accounts has changed: the whole group takes the locked path, and the memory is correct afterwards.
    assert_eq!(twins.group(0, &[("b", "3", 7, "EUR"), ("a", "3", 7, "EUR")]).await, CommitPath::Locked);
    assert_eq!(twins.group(0, &[("b", "4", 7, "EUR"), ("a", "4", 7, "EUR")]).await, CommitPath::Expected);
    twins.stored_the_same().await;
}

#[tokio::test]
async fn an_account_with_another_history_is_recognised() {
    let (database, model) = databases().await;
    let mut twins = Twins::on(&database, &model).await;
    twins.group(0, &[("a", "1", 5, "EUR")]).await;
    // As after a failover that lost the last commit: the same sequence number has another balance.
    for database in [&database, &model] {
        let lost = "SET session_replication_role = replica;
                    UPDATE transactions SET amount = 7, balance_after = 7; UPDATE accounts SET balance = 7";
        database.client().await.batch_execute(lost).await.unwrap();
    }
    assert_eq!(twins.group(0, &[("a", "2", 5, "EUR")]).await, CommitPath::Locked);
    twins.stored_the_same().await;
}

#[tokio::test]
async fn a_replayed_key_inside_a_group_is_answered_with_its_transaction() {
    let (database, model) = databases().await;
    let mut twins = Twins::on(&database, &model).await;
    twins.group(0, &[("a", "1", 5, "EUR")]).await;
    let group = [
        ("a", "2", 7, "EUR"),
        ("a", "1", 5, "EUR"),
        ("a", "3", 9, "EUR"),
        ("a", "1", 6, "EUR"),
        ("a", "2", 7, "EUR"),
    ];
    assert_eq!(twins.group(0, &group).await, CommitPath::Expected, "the key is remembered");
    // The other instance does not know the keys: the unique index fails the statement, and the transactions are read.
    let again = [("a", "4", 7, "EUR"), ("a", "1", 5, "EUR"), ("a", "5", 9, "EUR"), ("b", "1", 5, "EUR")];
    twins.group(1, &[("b", "0", 1, "EUR")]).await;
    assert_eq!(twins.group(1, &again).await, CommitPath::Locked);
    twins.stored_the_same().await;
}

#[tokio::test]
async fn the_memory_of_transactions_is_bounded_and_keeps_the_latest() {
    let (database, model) = databases().await;
    let mut twins = Twins::on(&database, &model).await;
    for key in ["1", "2", "3", "4"] {
        twins.group(1, &[("a", key, 5, "EUR")]).await;
    }
    // There is room for two transactions. A transaction read under the lock is not remembered.
    for (key, path) in [
        ("4", CommitPath::Expected),
        ("3", CommitPath::Expected),
        ("2", CommitPath::Locked),
        ("2", CommitPath::Locked),
    ] {
        assert_eq!(twins.group(1, &[("a", key, 5, "EUR")]).await, path, "{key}");
    }
    twins.stored_the_same().await;
}

#[tokio::test]
async fn a_limit_reached_within_a_group_refuses_the_same_requests() {
    let (database, model) = databases().await;
    let mut twins = Twins::on(&database, &model).await;
    twins.limit("a", Some(-100)).await;
    let group = [
        ("a", "1", -60, "EUR"),
        ("a", "2", -60, "EUR"),
        ("b", "2", 5, "EUR"),
        ("a", "3", -40, "EUR"),
        ("a", "4", 1, "EUR"),
    ];
    assert_eq!(twins.group(0, &group).await, CommitPath::Locked, "a refusal is decided under the lock");
    // Another instance loosens and tightens the limit: neither an accepted nor a refused debit depends on the memory.
    twins.limit("a", None).await;
    twins.group(0, &[("a", "5", -500, "EUR")]).await;
    twins.limit("a", Some(0)).await;
    assert_eq!(twins.group(0, &[("a", "6", -1, "EUR")]).await, CommitPath::Locked);
    twins.stored_the_same().await;
}

/// The next step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Group(usize, Vec<(u8, u8, i64, bool)>),
    Limit(u8, Option<i64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let minor = prop_oneof![-60_i64..0, 1_i64..60];
    let request = (0_u8..4, 0_u8..20, minor, prop::bool::weighted(0.97));
    let group = (0_usize..2, prop::collection::vec(request, 1..8));
    let limit = (0_u8..4, prop::option::of(-80_i64..20));
    let step = prop_oneof![
        6 => group.prop_map(|(instance, requests)| Step::Group(instance, requests)),
        1 => limit.prop_map(|(account, min_balance)| Step::Limit(account, min_balance)),
    ];
    prop::collection::vec(step, 1..16)
}

#[test]
fn random_groups_on_two_instances_leave_what_the_locked_path_leaves() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (database, model) = runtime.block_on(databases());
    let expected_path = AtomicU32::new(0);
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let history = |steps: Vec<Step>| async {
        let mut twins = Twins::on(&database, &model).await;
        for account in ["a0", "a1", "a2"] {
            twins.limit(account, None).await;
        }
        for step in steps {
            match step {
                Step::Limit(account, min_balance) => twins.limit(&format!("a{account}"), min_balance).await,
                Step::Group(instance, requests) => {
                    let names: Vec<_> = requests
                        .iter()
                        .map(|(account, key, ..)| (format!("a{account}"), format!("k{key}")))
                        .collect();
                    let wanted: Vec<Wanted<'_>> = names
                        .iter()
                        .zip(&requests)
                        .map(|((account, key), (.., minor, euro))| {
                            (account.as_str(), key.as_str(), *minor, if *euro { "EUR" } else { "USD" })
                        })
                        .collect();
                    if twins.group(instance, &wanted).await == CommitPath::Expected {
                        expected_path.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        twins.stored_the_same().await;
    };
    let outcome = runner.run(&steps(), |steps| {
        runtime.block_on(history(steps));
        Ok(())
    });
    outcome.unwrap();
    let expected_path = expected_path.into_inner();
    assert!(expected_path > 48, "the expected path was taken: {expected_path}");
}
