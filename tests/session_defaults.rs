//! Defaults of role and database change no result, and a database that hides rows is refused.

use crate::support::{
    binary,
    postgres::TestDatabase,
    system::System,
    whole_path::{OWN_SETTINGS, whole_path},
};

/// A value for each setting that would change a result, end a session or refuse a statement.
const HOSTILE: &str =
    "default_transaction_isolation=serializable default_transaction_deferrable=on TimeZone=Pacific/Kiritimati
    DateStyle=SQL,DMY IntervalStyle=sql_standard search_path=other statement_timeout=2s lock_timeout=1
    idle_in_transaction_session_timeout=2s idle_session_timeout=2s row_security=on bytea_output=escape
    extra_float_digits=-15 standard_conforming_strings=off client_encoding=LATIN1 jit=on jit_above_cost=0
    plan_cache_mode=force_custom_plan exit_on_error=on quote_all_identifiers=on array_nulls=off
    synchronous_commit=off enable_indexscan=off work_mem=64kB";

const TABLES: &str = "SELECT string_agg(relname, ' ') FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";

/// Sets every hostile default, for the database or for the role in the database, in turns. Another schema comes first in
/// `search_path`, with a table of each name.
async fn make_hostile(database: &TestDatabase) {
    let name = database.value("SELECT current_database()").await;
    let user = database.value("SELECT current_user").await;
    let tables = database.value(TABLES).await;
    let client = database.client().await;
    client.batch_execute("CREATE SCHEMA other").await.unwrap();
    for table in tables.split(' ') {
        client.batch_execute(&format!("CREATE TABLE other.{table} (hidden integer)")).await.unwrap();
    }
    for (number, setting) in HOSTILE.split_whitespace().enumerate() {
        let of = if number % 2 == 0 {
            format!("DATABASE {name}")
        } else {
            format!("ROLE {user} IN DATABASE {name}")
        };
        let (setting, value) = setting.split_once('=').unwrap();
        client.batch_execute(&format!("ALTER {of} SET {setting} = '{value}'")).await.expect(setting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_path_gives_the_same_facts_whatever_the_defaults_are() {
    let usual = System::on_postgres().await;
    let hostile = System::on_postgres().await;
    make_hostile(&hostile.database).await;
    let observer = |system: &System| TestDatabase::at(&format!("{}{OWN_SETTINGS}", system.database.url));
    let expected = whole_path(&usual, &observer(&usual)).await;
    assert!(expected.lines().count() == 4 && expected.contains("2026-03-01 import-1 1 "), "{expected}");
    assert_eq!(whole_path(&hostile, &observer(&hostile)).await, expected);
}

/// Seen to fail when one of the settings was not set at the connect.
#[tokio::test(flavor = "multi_thread")]
async fn every_setting_that_changes_results_has_the_same_value_whatever_the_default_is() {
    let (usual, hostile) = (TestDatabase::new().await, TestDatabase::new().await);
    make_hostile(&hostile).await;
    assert_eq!(effective_settings(&hostile).await, effective_settings(&usual).await);
}

/// Returns the values of a new connection. Settings that only change plans are left out.
async fn effective_settings(database: &TestDatabase) -> String {
    #[derive(diesel::QueryableByName)]
    struct Settings {
        #[diesel(sql_type = diesel::sql_types::Text)]
        all: String,
    }
    let left_out = [
        "default_transaction_deferrable",
        "jit",
        "jit_above_cost",
        "plan_cache_mode",
        "array_nulls",
        "enable_indexscan",
        "work_mem",
    ];
    let names: Vec<String> = HOSTILE
        .split_whitespace()
        .filter_map(|setting| setting.split('=').next())
        .filter(|name| !left_out.contains(name))
        .map(str::to_lowercase)
        .collect();
    let query = format!(
        "SELECT string_agg(name || '=' || setting, E'\\n' ORDER BY name) AS all FROM pg_settings
         WHERE lower(name) IN ('{}', 'transaction_isolation')",
        names.join("', '")
    );
    let settings = diesel::sql_query(query);
    let found: Settings =
        diesel_async::RunQueryDsl::get_result(settings, &mut database.connection().await).await.unwrap();
    assert_eq!(found.all.lines().count(), names.len() + 1, "{}", found.all);
    found.all
}

/// Returns the line with which each command refuses the database.
fn refusal(command: &[&str], environment: &[(&str, &str)]) -> String {
    let output = binary::run(command, environment);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
    // The server of the tests runs without fsync, which is a warning.
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains(" WARN ")).collect();
    assert_eq!(lines.len(), 1, "{command:?}: {stderr}");
    lines[0].to_owned()
}

const COMMANDS: [&[&str]; 5] = [&["migrate"], &["serve"], &["relay"], &["consume-risk"], &["verify"]];

/// Seen to fail without the check at the start.
#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_that_hides_rows_is_refused_and_fails_later_statements() {
    let database = TestDatabase::new().await;
    let name = database.value("SELECT current_database()").await;
    let user = format!("limited_{name}");
    let client = database.client().await;
    let grant = format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'p'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {user};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {user}"
    );
    client.batch_execute(&grant).await.unwrap();
    let login = database.url.split("://").nth(1).unwrap().split('@').next().unwrap();
    let limited = TestDatabase::at(&database.url.replace(login, &format!("{user}:p")));
    let environment = [("LEDGER_DATABASE__URL", limited.url.as_str()), ("LEDGER_ADMIN__LISTEN", "off")];
    let mut open = limited.connection().await;
    client.batch_execute("ALTER TABLE accounts ENABLE ROW LEVEL SECURITY").await.unwrap();
    for command in COMMANDS {
        let line = refusal(command, &environment);
        assert!(line.contains(&format!("hides rows of accounts from the user {user}")), "{line}");
    }
    let error = ledger::repository::accounts::states(&mut open, &["a"]).await.err();
    assert!(
        error.is_some_and(|error| error.is_transient()),
        "a session from before does not see an empty table"
    );
    client.batch_execute(&format!("ALTER ROLE {user} BYPASSRLS")).await.unwrap();
    assert!(binary::run(&["verify"], &environment).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_without_triggers_are_refused() {
    let database = TestDatabase::new().await;
    let name = database.value("SELECT current_database()").await;
    let set = format!("ALTER DATABASE {name} SET session_replication_role = replica");
    database.client().await.batch_execute(&set).await.unwrap();
    let environment = [("LEDGER_DATABASE__URL", database.url.as_str()), ("LEDGER_ADMIN__LISTEN", "off")];
    for command in COMMANDS {
        let line = refusal(command, &environment);
        assert!(line.contains("session_replication_role = replica (database)"), "{line}");
    }
}

/// Another application of diesel keeps its migrations in the same schema. Seen to fail without the check: `migrate` called
/// the schema newer than the binary and advised an upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_another_application_is_refused_and_one_of_its_own_works() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    let foreign = "CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp DEFAULT now());
         INSERT INTO __diesel_schema_migrations VALUES ('00000000000000'), ('20271231000000')";
    client.batch_execute(foreign).await.unwrap();
    let mut environment =
        vec![("LEDGER_DATABASE__URL", database.url.as_str()), ("LEDGER_ADMIN__LISTEN", "off")];
    for command in COMMANDS {
        let line = refusal(command, &environment);
        assert!(line.contains("the version 00000000000000, which is no migration of ledger"), "{line}");
    }
    environment.push(("LEDGER_DATABASE__SCHEMA", "order"));
    let line = refusal(&["migrate"], &environment);
    assert!(line.contains("the schema order (database.schema) does not exist"), "{line}");
    client.batch_execute("CREATE SCHEMA \"order\"").await.unwrap();
    for command in ["migrate", "verify"] {
        let output = binary::run(&[command], &environment);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let ours =
        "SELECT count(*) > 10 FROM pg_class WHERE relnamespace = '\"order\"'::regnamespace AND relkind = 'r'";
    assert_eq!(database.value(ours).await, "t");
}
