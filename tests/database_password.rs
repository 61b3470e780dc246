//! Running roles use a password that is changed in the database and in the file of `database.url_file`.
//!
//! Seen to fail when roles kept the URL that they started with.

use ledger::repository::database_address;

use crate::support::{api::transaction, binary, eventually, postgres::TestDatabase, system::System};

#[tokio::test(flavor = "multi_thread")]
async fn running_roles_use_a_changed_password() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let system = System::on_postgres().await;
    let user = format!("rotating_{}", std::process::id());
    let administrator = system.database.client().await;
    let user_with = |password: &str| format!("ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'");
    administrator.batch_execute(&format!("CREATE {}", user_with("first"))).await.unwrap();
    let (_, server) = system.database.url.split_once('@').unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    let write = |password: &str| std::fs::write(&file, format!("postgres://{user}:{password}@{server}\n"));
    write("first").unwrap();
    let settings = [("LEDGER_DATABASE__URL_FILE", file.to_str().unwrap())];
    let (serve, url) = system.serve(&settings);
    let (relay, consumer) = (system.relay(&settings), system.consumer(&settings));
    let http = reqwest::Client::new();
    let post = async |key: &str| {
        let body = transaction("a", "credit", "1.00", "EUR");
        let request = http.post(format!("{url}/transactions")).header("idempotency-key", key).json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    let assessed = async |count: &str| {
        eventually("all are assessed", async || {
            system.database.value("SELECT count(*) FROM risk_assessments").await == count
        })
        .await;
    };
    assert_eq!(post("1").await, 201);
    assessed("1").await;

    administrator.batch_execute(&format!("ALTER {}", user_with("second"))).await.unwrap();
    write("second").unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'");
    administrator.batch_execute(&end).await.unwrap();
    eventually("a posting is accepted", async || [200, 201].contains(&post("2").await)).await;
    assessed("2").await;
    for role in [serve, relay, consumer] {
        role.stop();
    }
    eventually("no session is connected", async || {
        administrator.batch_execute(&format!("DROP ROLE IF EXISTS {user}")).await.is_ok()
    })
    .await;
}

/// In a URL, the first of these passwords would end at its `@`, and the second would be another one after decoding.
#[tokio::test(flavor = "multi_thread")]
async fn any_password_works_beside_a_url_without_a_login() {
    let system = System::on_postgres().await;
    let administrator = system.database.client().await;
    let database = system.database.value("SELECT current_database()").await;
    let user = format!("any_{database}");
    administrator.batch_execute(&format!("CREATE ROLE {user} LOGIN SUPERUSER")).await.unwrap();
    let (_, server) = system.database.url.split_once('@').unwrap();
    let url = format!("postgres://{server}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    for password in ["p@s/s?w#rd:", "%41%", "\\ \"$x"] {
        administrator.batch_execute(&format!("ALTER ROLE {user} PASSWORD '{password}'")).await.unwrap();
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let file = file.to_str().unwrap();
        for login in [("LEDGER_DATABASE__PASSWORD", password), ("LEDGER_DATABASE__PASSWORD_FILE", file)] {
            let environment =
                [("LEDGER_DATABASE__URL", url.as_str()), ("LEDGER_DATABASE__USER", &user), login];
            let output = binary::run(&["lanes"], &environment);
            assert!(output.status.success(), "{login:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let with_login = format!("postgres://{user}:first@{server}");
    for (url, part) in [(&url, "password authentication failed"), (&with_login, "remove one of them")] {
        let login = [("LEDGER_DATABASE__USER", user.as_str()), ("LEDGER_DATABASE__PASSWORD", "hunter@2")];
        let output = binary::run(&["lanes"], &[&login[..], &[("LEDGER_DATABASE__URL", url)]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(part) && !stderr.contains("hunter") && !stderr.contains("first"), "{stderr}");
    }
}

/// The URL is not at fault.
#[test]
fn a_password_file_that_becomes_unreadable_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first").unwrap();
    let path = file.path().to_str().unwrap();
    let overrides = [("database.user", "someone"), ("database.password_file", path)];
    let database = TestDatabase::at("postgres://127.0.0.1/ledger").config_with(&overrides).database;
    assert_eq!(database_address(&database).unwrap(), "127.0.0.1:5432/ledger");
    std::fs::write(file.path(), b"\xff").unwrap();
    let error = database_address(&database).unwrap_err().to_string();
    let named = format!("cannot read database.password_file from {path}: ");
    assert!(error.starts_with(&named) && !error.contains("database.url"), "{error}");
}
