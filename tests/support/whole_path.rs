//! Every role once, on one database: import, post, relay, assess, aggregate, verify.

use super::{api::transaction, eventually, postgres::TestDatabase, system::System};

/// Around midnight in UTC and in other zones, with texts that settings of literals would change.
const HISTORY: &str = r#"account_id,idempotency_key,direction,amount,currency,created_at,description,metadata.channel
import-1,1,credit,100.00,EUR,2026-03-01T23:59:59.999999Z,a\b'c,branch
import-1,2,debit,1.10,EUR,2026-03-02T00:00:00Z,"Grüße, ""Ärger"" ↔",web
import-2,1,credit,7,JPY,2026-03-02T11:30:00+14:00,,
import-2,2,debit,3,JPY,2026-03-02T12:00:00-11:00,\x41,
"#;
const TRANSACTIONS: &str = "6";

/// Options of a URL for a test's own sessions, which then do not depend on the defaults of role and database.
pub const OWN_SETTINGS: &str = "?options=-c%20statement_timeout%3D0%20-c%20lock_timeout%3D0%20-c%20TimeZone%3DUTC%20\
    -c%20DateStyle%3DISO%20-c%20idle_session_timeout%3D0%20-c%20idle_in_transaction_session_timeout%3D0%20\
    -c%20search_path%3Dpublic%20-c%20exit_on_error%3Doff";

/// Runs every role until it has nothing more to do, and `verify`. Returns the facts of the imported history, which are
/// the same on every database. `observer` is a handle for the same database.
pub async fn whole_path(system: &System, observer: &TestDatabase) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("history.csv");
    std::fs::write(&file, HISTORY).expect("written");
    succeeds(system, &["import", file.to_str().expect("UTF-8")]);
    post(system).await;
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    eventually("every transaction is assessed", async || {
        observer.value("SELECT count(*) FROM risk_assessments").await == TRANSACTIONS
    })
    .await;
    eventually("the outbox is empty", async || observer.value("SELECT count(*) FROM outbox").await == "0")
        .await;
    relay.stop();
    consumer.stop();
    succeeds(system, &["aggregate"]);
    let verified = succeeds(system, &["verify", "--wait", "30s"]);
    assert!(verified.contains("nothing differs"), "{verified}");
    let facts = "SELECT string_agg(concat_ws(' ', business_date, account_id, account_seq, created_at, hour, currency,
                   direction, amount, balance_after, description, metadata, risk_score), E'\n' ORDER BY account_id, account_seq)
                 FROM fact_transactions WHERE created_at < '2026-06-01'";
    observer.value(facts).await
}

/// Posts through the API: a new account, and an account that the writer has read.
async fn post(system: &System) {
    let (serve, url) = system.serve(&[]);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    for account in ["posted", "import-1"] {
        for is_replay in [false, true] {
            let request = client.post(format!("{url}/transactions")).header("idempotency-key", "k");
            let answer =
                request.json(&transaction(account, "credit", "2.00", "EUR")).send().await.expect("an answer");
            let replayed = answer.headers().contains_key("idempotent-replayed");
            assert!([200, 201].contains(&answer.status().as_u16()), "{answer:?}");
            assert_eq!(replayed, is_replay, "{answer:?}");
        }
        let balance =
            client.get(format!("{url}/accounts/{account}/balance")).send().await.expect("an answer");
        assert_eq!(balance.status().as_u16(), 200, "{balance:?}");
    }
    serve.stop();
}

fn succeeds(system: &System, arguments: &[&str]) -> String {
    let output = system.run(arguments);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stdout}\n{stderr}");
    stdout
}
