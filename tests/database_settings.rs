//! Settings of a database that could lose acknowledged transactions or refuse texts: set, refused or reported at the start.

use ledger::{config::Config, repository};

use crate::support::{
    api::{Api, transaction},
    binary::{self, Binary, get},
    postgres::TestDatabase,
    server::Server,
};

const COMMANDS: [&[&str]; 7] =
    [&["migrate"], &["serve"], &["relay"], &["consume-risk"], &["aggregate"], &["verify"], &["lanes"]];

/// Returns the effective value of a new connection and its origin.
async fn synchronous_commit(config: &Config) -> String {
    #[derive(diesel::QueryableByName)]
    struct Setting {
        #[diesel(sql_type = diesel::sql_types::Text)]
        value: String,
    }
    let mut connection = repository::connect(&config.database, "test").await.unwrap();
    let query =
        "SELECT setting || ' by ' || source AS value FROM pg_settings WHERE name = 'synchronous_commit'";
    let setting = diesel::sql_query(query);
    let found: Setting = diesel_async::RunQueryDsl::get_result(setting, &mut connection).await.unwrap();
    found.value
}

/// A setting of the session also survives a reload of the server's configuration. Seen to fail when connections kept the
/// default: `off by database`.
#[tokio::test(flavor = "multi_thread")]
async fn a_weaker_default_of_synchronous_commit_is_set_to_on_and_a_stronger_one_stays() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let name = database.value("SELECT current_database()").await;
    for (default, expected) in [
        ("off", "on by session"),
        ("local", "on by session"),
        ("remote_write", "on by session"),
        ("on", "on by session"),
        ("remote_apply", "remote_apply by session"),
    ] {
        let set = format!("ALTER DATABASE {name} SET synchronous_commit = {default}");
        client.batch_execute(&set).await.unwrap();
        assert_eq!(synchronous_commit(&database.config).await, expected, "{default} of the database");
    }
    let url = format!("{}?options=-c%20synchronous_commit%3Doff", database.url);
    assert_eq!(synchronous_commit(&TestDatabase::at(&url).config).await, "on by session");
}

/// Seen to fail when writers kept the default of the database: the commit of the 201 did not wait for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_committed_to_disk_although_the_database_defaults_to_off() {
    let database = TestDatabase::new().await;
    let name = database.value("SELECT current_database()").await;
    let record = format!(
        "ALTER DATABASE {name} SET synchronous_commit = off;
         CREATE TABLE seen (setting text);
         CREATE FUNCTION record_setting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
         CREATE TRIGGER record_setting AFTER INSERT ON transactions EXECUTE FUNCTION record_setting()"
    );
    database.client().await.batch_execute(&record).await.unwrap();
    let api = Api::on(database, &[]).await;
    for key in ["1", "2"] {
        assert_eq!(api.post(key, &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    }
    let database = api.stop().await;
    assert_eq!(database.value("SELECT string_agg(setting, ' ') FROM seen").await, "on on");
}

/// Asserts that every command refuses the database in one line with these parts.
fn every_command_refuses(url: &str, parts: &[&str]) {
    let environment = [
        ("LEDGER_DATABASE__URL", url),
        ("LEDGER_DATABASE__ACCEPT_DATA_LOSS", "false"),
        ("LEDGER_ADMIN__LISTEN", "off"),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
    ];
    for command in COMMANDS {
        let output = binary::run(command, &environment);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{command:?}: {stderr}");
    }
}

async fn has_no_tables(database: &TestDatabase) -> bool {
    let count = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    database.value(count).await == "0"
}

/// Seen to fail when the start did not ask for the settings: every command ran.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_fsync_is_refused_before_anything_is_written() {
    let database = TestDatabase::empty().await;
    let parts =
        ["error: PostgreSQL runs with fsync = off (", "full_page_writes = off (", "accept_data_loss = true"];
    every_command_refuses(&database.url, &parts);
    assert!(has_no_tables(&database).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_server_without_fsync_is_reported_by_log_metric_and_verify() {
    let database = TestDatabase::new().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0"),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
    ];
    let mut serve = Binary::start(&["serve"], &environment);
    let warning = serve.line_with("can lose acknowledged transactions");
    assert!(warning.contains("WARN") && warning.contains("fsync = off"), "{warning}");
    let (status, metrics) = get(&serve.field("admin"), "/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("\nledger_database_durable 0\n"), "{metrics}");
    serve.stop();
    let verified = String::from_utf8(binary::run(&["verify"], &environment).stdout).unwrap();
    assert!(verified.contains("accepted by database.accept_data_loss"), "{verified}");
    assert!(verified.contains("nothing differs"), "{verified}");
}

/// A server is also refused if only `full_page_writes` is off.
#[tokio::test(flavor = "multi_thread")]
async fn a_durable_server_starts_without_a_warning() {
    let mut server = Server::start(&["fsync=on", "full_page_writes=off"]).await;
    every_command_refuses(
        &server.url(),
        &["error: PostgreSQL runs with full_page_writes = off (command line), so"],
    );
    server.down().await;
    server.set(&["full_page_writes=on"]);
    server.up().await;
    let url = server.url();
    let environment = [
        ("LEDGER_DATABASE__URL", url.as_str()),
        ("LEDGER_DATABASE__ACCEPT_DATA_LOSS", "false"),
        ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0"),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
    ];
    let mut serve = Binary::start(&["serve"], &environment);
    let (_, metrics) = get(&serve.field("admin"), "/metrics").unwrap();
    assert!(metrics.contains("\nledger_database_durable 1\n"), "{metrics}");
    assert!(!serve.stderr().contains("WARN"), "{}", serve.stderr());
    serve.stop();
}

/// Seen to fail when the start did not ask for the encoding: `migrate` filled the database, and each text outside of
/// Latin-1 was answered 500.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_store_every_text_is_refused_before_anything_is_written() {
    let database = TestDatabase::empty().await;
    let name = database.value("SELECT current_database()").await;
    let latin = format!("{name}_latin1");
    let create =
        format!("CREATE DATABASE {latin} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    database.client().await.batch_execute(&create).await.unwrap();
    let url = database.url.replace(&format!("/{name}"), &format!("/{latin}"));
    let parts =
        [&format!("error: the database {latin} has the server_encoding LATIN1"), "TEMPLATE template0"];
    every_command_refuses(&url, &parts);
    assert!(has_no_tables(&TestDatabase::at(&url)).await);
}
