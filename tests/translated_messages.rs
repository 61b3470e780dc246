//! PostgreSQL reports in German, and every failure is handled as in English: errors are recognised by their SQLSTATE. The
//! tests check the German texts too, so recognition by an English text cannot pass them.

use std::sync::atomic::Ordering;

use ledger::repository::{Connection, RepositoryError, transaction};
use tokio::sync::Barrier;

use crate::support::{
    api::{Api, transaction as body},
    eventually,
    load::{load, nothing_is_lost_or_doubled},
    postgres::TestDatabase,
    server::Server,
};

async fn run(connection: &mut Connection, sql: &str) -> Result<(), RepositoryError> {
    diesel_async::RunQueryDsl::execute(diesel::sql_query(sql), connection).await?;
    Ok(())
}

/// Runs a statement that fails and checks SQLSTATE and message.
async fn failure(connection: &mut Connection, sql: &str, text: &str) -> RepositoryError {
    let error = run(connection, sql).await.expect_err(sql);
    assert!(error.to_string().contains(text), "{sql}: {error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_ended_sessions_under_load_are_503_and_heal() {
    let Some(mut server) = Server::german(&[]).await else { return };
    let api = Api::on(TestDatabase::at(&server.url()), &[("serve.request_timeout", "2s")]).await;
    // Its clients accept 201 and 503 only.
    let load = load(&api.url);
    for _ in 0..5 {
        load.until_acknowledged(load.acknowledged.load(Ordering::Relaxed) + 20).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ledger serve%'";
        TestDatabase::at(&server.url()).client().await.batch_execute(end).await.unwrap();
        let status = api.get("/accounts/a0/balance").await.status;
        assert!([200, 503].contains(&status), "{status}");
    }
    server.down().await;
    api.get("/accounts/a0/balance").await.is_problem(503, "unavailable");
    server.up().await;
    load.until_acknowledged(load.acknowledged.load(Ordering::Relaxed) + 50).await;
    assert_eq!(api.get("/accounts/a0/balance").await.status, 200);
    load.stop.store(true, Ordering::Relaxed);
    let known = load.ended().await;
    api.stop().await;
    nothing_is_lost_or_doubled(&TestDatabase::at(&server.url()), &known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_runs_the_database_transaction_again() {
    let Some(server) = Server::german(&["deadlock_timeout=100ms"]).await else { return };
    let database = TestDatabase::at(&server.url());
    let client = database.client().await;
    client.batch_execute("INSERT INTO accounts VALUES ('a', 'EUR'), ('b', 'EUR')").await.unwrap();

    // Without the wrapper, one of two crossing transactions fails, in German.
    let mut connections = [database.connection().await, database.connection().await];
    let [one, other] = &mut connections;
    for (connection, account) in [(&mut *one, 'a'), (&mut *other, 'b')] {
        run(connection, "BEGIN").await.unwrap();
        run(connection, &lock(account)).await.unwrap();
    }
    let (first, second) = (lock('b'), lock('a'));
    let outcomes = tokio::join!(run(one, &first), run(other, &second));
    let error = outcomes.0.err().or(outcomes.1.err()).expect("a deadlock");
    assert!(error.to_string().contains("40P01: Verklemmung"), "{error}");
    assert!(error.is_conflict() && error.is_transient() && !error.is_connection_lost());

    // With the wrapper, both commit.
    let both_locked = Barrier::new(2);
    let mut connections = [database.connection().await, database.connection().await];
    let [one, other] = &mut connections;
    let outcomes =
        tokio::join!(crossing(one, ['a', 'b'], &both_locked), crossing(other, ['b', 'a'], &both_locked));
    let attempts = outcomes.0.expect("committed") + outcomes.1.expect("committed");
    assert!(attempts > 2, "no deadlock was provoked");
}

fn lock(account: char) -> String {
    format!("SELECT 1 FROM accounts WHERE account_id = '{account}' FOR UPDATE")
}

/// Locks two accounts in the given order in one database transaction. Returns the number of attempts.
async fn crossing(
    connection: &mut Connection,
    accounts: [char; 2],
    both_locked: &Barrier,
) -> Result<u32, RepositoryError> {
    let attempts = std::sync::atomic::AtomicU32::new(0);
    transaction("crossing", connection, async |connection: &mut Connection| {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        run(connection, &lock(accounts[0])).await?;
        if attempt == 0 {
            both_locked.wait().await;
        }
        run(connection, &lock(accounts[1])).await
    })
    .await?;
    Ok(attempts.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn time_outs_full_storage_and_faulty_requests_are_told_apart() {
    let Some(server) = Server::german(&[]).await else { return };
    let database = TestDatabase::at(&server.url());
    let mut connection = database.connection().await;
    let mut holder = database.connection().await;
    run(&mut connection, "INSERT INTO accounts VALUES ('a', 'EUR')").await.unwrap();

    for (setting, sql, text) in [
        ("statement_timeout = '50ms'", "SELECT pg_sleep(5)", "57014: storniere Anfrage"),
        (
            "temp_file_limit = 0",
            "SELECT count(*) FROM (SELECT n FROM generate_series(1, 200000) n ORDER BY n DESC) s",
            "53400: Größe der temporären Datei",
        ),
    ] {
        run(&mut connection, "SET work_mem = '64kB'").await.unwrap();
        run(&mut connection, &format!("SET {setting}")).await.unwrap();
        let error = failure(&mut connection, sql, text).await;
        assert!(error.is_transient() && !error.is_conflict() && !error.is_connection_lost(), "{error}");
        run(&mut connection, "RESET ALL").await.unwrap();
    }

    run(&mut holder, "BEGIN").await.unwrap();
    run(&mut holder, &lock('a')).await.unwrap();
    run(&mut connection, "SET lock_timeout = '50ms'").await.unwrap();
    let error = failure(&mut connection, &lock('a'), "55P03: storniere Anfrage").await;
    assert!(error.is_transient() && !error.is_conflict() && !error.is_connection_lost(), "{error}");
    run(&mut holder, "ROLLBACK").await.unwrap();

    for (sql, text) in [
        ("SELECT 1 / 0", "22012: Division durch Null"),
        ("SELEC 1", "42601: Syntaxfehler"),
        ("INSERT INTO accounts VALUES ('b', 'XXX')", "23503: Einfügen"),
        ("SELECT ledger_stale_group()", "LG001: "),
    ] {
        let error = failure(&mut connection, sql, text).await;
        assert!(!error.is_transient(), "{error}");
    }

    // An operator took the table away, or a restore has not created it yet.
    let error = failure(&mut connection, "SELECT * FROM no_such_table", "42P01: Relation").await;
    assert!(error.is_transient() && !error.is_connection_lost(), "{error}");

    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sleep(30)%' AND pid <> pg_backend_pid()";
    let ended = tokio::join!(failure(&mut connection, "SELECT pg_sleep(30)", "57P01: Verbindung"), async {
        eventually("the session is ended", async || {
            database.client().await.query(end, &[]).await.is_ok_and(|rows| !rows.is_empty())
        })
        .await;
    });
    assert!(ended.0.is_connection_lost() && ended.0.is_transient(), "{}", ended.0);
}

/// Seen to fail when class 54 counted as a fault of the request: the protection from wraparound was answered 500.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_protection_from_wraparound_and_revoked_rights_are_503_until_they_end() {
    let Some(server) = Server::german(&[]).await else { return };
    let api = Api::on(TestDatabase::at(&server.url()), &[]).await;
    assert_eq!(api.post("0", &body("a", "credit", "1.00", "EUR")).await.status, 201);
    let client = api.database.client().await;
    // These are PostgreSQL's codes and German messages.
    for (key, code, message) in [
        (
            "1",
            "53100",
            "konnte Datei »base/16384/16509« nicht erweitern: Auf dem Gerät ist kein Speicherplatz mehr verfügbar",
        ),
        (
            "2",
            "53100",
            "konnte Block 7 in Datei »base/16384/16509« nicht schreiben: es wurden nur 4096 von 8192 Bytes geschrieben",
        ),
        (
            "3",
            "54000",
            "Datenbank nimmt keine Befehle an, die neue Transaktions-IDs erzeugen, um Datenverlust wegen Überlauf zu vermeiden",
        ),
        ("4", "42501", "keine Berechtigung für Tabelle transactions"),
        ("5", "57P03", "das Datenbanksystem startet"),
    ] {
        let fail = format!(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = '{message}'; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON transactions EXECUTE FUNCTION fail()"
        );
        client.batch_execute(&fail).await.unwrap();
        let refused = api.post(key, &body("a", "credit", "1.00", "EUR")).await;
        refused.is_problem(503, "unavailable");
        let said =
            if ["54000", "42501", "57P03"].contains(&code) { "nothing was written" } else { "is unknown" };
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{refused:?}");
        client.batch_execute("DROP TRIGGER fail ON transactions; DROP FUNCTION fail").await.unwrap();
        eventually("the request is accepted", async || {
            api.post(key, &body("a", "credit", "1.00", "EUR")).await.status == 201
        })
        .await;
    }
}
