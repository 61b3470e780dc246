//! Two users: one owns the schema and runs `ledger migrate --grants`, the other owns nothing and runs everything else.

use chrono::Utc;
use ledger::{
    broker::OutgoingRecord,
    event::{Headers, TRANSACTIONS_TOPIC},
};

use crate::support::{
    DEADLINE,
    binary::{self, Binary},
    eventually,
    own_kafka::OwnKafka,
    postgres::TestDatabase,
    system::System,
    whole_path::whole_path,
};

/// An empty database, and a user of it without any rights.
struct TwoUsers {
    owner: TestDatabase,
    user: String,
}

impl TwoUsers {
    async fn new() -> Self {
        let owner = TestDatabase::empty().await;
        // A name that must be quoted.
        let user = format!("app-{}", owner.value("SELECT current_database()").await);
        let create = format!("CREATE ROLE \"{user}\" LOGIN PASSWORD 'p'");
        owner.client().await.batch_execute(&create).await.expect("created");
        Self { owner, user }
    }

    /// Runs `ledger migrate` as the owner.
    fn migrate(&self, role: &str) -> std::process::Output {
        binary::run(&["migrate", "--grants", role], &[("LEDGER_DATABASE__URL", &self.owner.url)])
    }

    /// Returns a handle for the user without rights of its own.
    fn limited(&self) -> TestDatabase {
        let login =
            self.owner.url.split("://").nth(1).and_then(|rest| rest.split('@').next()).expect("a login");
        TestDatabase::at(&self.owner.url.replace(login, &format!("{}:p", self.user)))
    }
}

fn ends(system: &System, code: i32, arguments: &[&str]) -> String {
    let output = system.run(arguments);
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(!text.contains("permission denied"), "{arguments:?}: {text}");
    text
}

/// A busy machine may cause other warnings.
fn stop_without_refusals(role: Binary) {
    let stderr = role.stderr();
    let refusals: Vec<&str> = stderr.lines().filter(|line| line.contains("permission denied")).collect();
    assert!(refusals.is_empty(), "{refusals:#?}");
    role.stop();
}

/// Publishes a record of another program and waits until it is a dead letter. Returns its id.
async fn dead_letter(system: &System) -> String {
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    let record = OutgoingRecord {
        key: Some("acct-1".into()),
        value: Some("not ours".into()),
        headers: Headers::default(),
        timestamp: Utc::now(),
    };
    system.broker().await.produce(TRANSACTIONS_TOPIC, 0, vec![record]).await.expect("published");
    eventually("a dead letter", async || system.count("dead_letters").await == 1).await;
    eventually("the outbox is empty", async || system.count("outbox").await == 0).await;
    stop_without_refusals(relay);
    stop_without_refusals(consumer);
    system.database.value("SELECT id FROM dead_letters").await
}

/// The relay reads the last id of the outbox, which needs `SELECT` on the sequence.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_owns_nothing_runs_every_command() {
    let users = TwoUsers::new().await;
    for _ in 0..2 {
        let migrated = users.migrate(&users.user);
        let stdout = String::from_utf8_lossy(&migrated.stdout);
        assert!(migrated.status.success() && stdout.contains("its rights on 21 tables"), "{migrated:?}");
    }
    let system = System { database: users.limited(), kafka: None };
    whole_path(&system, &users.owner).await;

    let id = dead_letter(&system).await;
    ends(&system, 1, &["dlq", "replay", &id]);
    ends(&system, 0, &["dlq", "list"]);
    ends(&system, 0, &["dlq", "show", &id]);
    ends(&system, 0, &["dlq", "dismiss", &id, "--note", "foreign"]);
    ends(&system, 0, &["aggregate", "--full"]);
    for command in
        [&["topics"][..], &["consumers"], &["lanes"], &["broker"], &["risk", "assess", "--to", "1s"]]
    {
        ends(&system, 0, command);
    }
    ends(&system, 0, &["republish", "--account", "import-1", "--yes"]);
    ends(&system, 0, &["consumers", "reset", "--group", "risk", "--to", "earliest"]);
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    eventually("published again", async || system.count("outbox").await == 0).await;
    ends(&system, 0, &["verify", "--wait", "60s"]);
    stop_without_refusals(relay);
    stop_without_refusals(consumer);
    ends(&system, 0, &["consumers", "forget", "risk"]);

    let Some(kafka) = OwnKafka::start().await else { return };
    let on_kafka = System::with(users.limited(), kafka).await;
    ends(&on_kafka, 0, &["broker", "switch", "--yes"]);
    on_kafka.post(0, 20, 5, |_| None).await;
    let (relay, consumer) = (on_kafka.relay(&[]), on_kafka.consumer(&[]));
    eventually("published to Kafka", async || on_kafka.count("outbox").await == 0).await;
    ends(&on_kafka, 0, &["verify", "--wait", "60s"]);
    stop_without_refusals(relay);
    stop_without_refusals(consumer);
}

/// A user that had more rights before has only these afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn the_user_can_change_neither_the_schema_nor_migrations_nor_posted_transactions() {
    let users = TwoUsers::new().await;
    let before = format!(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO \"{user}\"; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO \"{user}\"",
        user = users.user
    );
    users.owner.client().await.batch_execute(&before).await.expect("granted");
    assert!(users.migrate(&users.user).status.success());
    let client = users.limited().client().await;
    for statement in [
        "INSERT INTO __diesel_schema_migrations VALUES ('20990101000000')",
        "UPDATE transactions SET description = ''",
        "DELETE FROM risk_assessments",
        "TRUNCATE broker_records",
        "DELETE FROM dead_letters",
        "ALTER TABLE transactions DISABLE TRIGGER ALL",
        "SELECT setval('outbox_id', 1)",
        "CREATE TABLE mine ()",
    ] {
        let refused = client.batch_execute(statement).await.expect_err(statement);
        assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("42501"), "{statement}");
    }
}

/// The instances race: without the lock of the grants, some runs of this test fail.
#[tokio::test(flavor = "multi_thread")]
async fn several_instances_grant_at_once() {
    let users = TwoUsers::new().await;
    let environment = [("LEDGER_DATABASE__URL", users.owner.url.as_str())];
    let instances: Vec<Binary> =
        (0..6).map(|_| Binary::start(&["migrate", "--grants", users.user.as_str()], &environment)).collect();
    for instance in instances {
        let (status, stderr) = instance.ended_within(DEADLINE * 2);
        assert!(status.success(), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_for_an_unknown_user_or_for_the_owner_are_refused() {
    let users = TwoUsers::new().await;
    let owner = users.owner.value("SELECT current_user").await;
    for (role, part) in [("nobody\"; DROP", "CREATE ROLE"), (&owner, "who owns the tables")] {
        let refused = users.migrate(role);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(part) && stderr.contains("--grants"), "{stderr}");
    }
}
