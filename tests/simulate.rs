//! `ledger simulate` as a command: its traffic trips the shipped rules on a running platform, its percentiles show a
//! stalled server, and its exit code is 1 after a wrong answer.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use ledger::risk::{Ruleset, SHIPPED_RULES};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    DEADLINE,
    binary::{self, Binary},
    eventually,
    postgres::TestDatabase,
    system::System,
};

/// Returns the rules that fired on the accounts for which the SQL condition `of` is true, shadow rules included.
async fn fired(database: &TestDatabase, of: &str) -> BTreeSet<String> {
    let sql = format!(
        "SELECT coalesce(string_agg(DISTINCT reason ->> 'rule', ' '), '') FROM risk_assessments,
           LATERAL (SELECT * FROM json_array_elements(reasons) UNION ALL
                    SELECT * FROM json_array_elements(shadow_reasons)) AS fired (reason) WHERE {of}"
    );
    database.value(&sql).await.split_whitespace().map(str::to_owned).collect()
}

/// Checks that each transaction of the run has a label with its id, and that those of suspicious accounts name a scheme.
async fn check_labels(database: &TestDatabase, labels: &Path) {
    let mut lines = csv::Reader::from_path(labels).unwrap();
    let columns = ["transaction_id", "account_id", "idempotency_key", "label", "scheme"];
    assert_eq!(lines.headers().unwrap(), columns.as_slice());
    let (mut ids, mut fraud) = (BTreeSet::new(), 0);
    for line in lines.records() {
        let line = line.unwrap();
        assert_eq!(line[1].contains("-suspect-"), !line[4].is_empty(), "{line:?}");
        assert!(line[2].starts_with("sim-"), "{line:?}");
        fraud += i32::from(&line[3] == "fraud");
        ids.insert(line[0].to_owned());
    }
    assert!((200..300).contains(&fraud), "{fraud} of 300; the others are usual purchases");
    let stored = database.value("SELECT string_agg(id::text, ' ') FROM transactions").await;
    assert_eq!(ids, stored.split(' ').map(str::to_owned).collect());
}

/// Two rules depend on times that the API accepts from no client: 90 days without a transaction, and the night. An
/// imported history trips them. Seen to fail with this planted bug: a takeover from the usual country.
#[tokio::test(flavor = "multi_thread")]
async fn every_shipped_rule_is_tripped_on_a_running_platform() {
    let system = System::on_postgres().await;
    let (serve, url) = system.serve(&[]);
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    let flags = ["--rate", "0", "--transactions", "1500", "--suspicious-share", "0.2", "--accounts", "50"];
    let labels = tempfile::NamedTempFile::new().unwrap();
    let labelled = ["--labels", labels.path().to_str().unwrap()];
    let run = binary::run(&[["simulate", "--url", &url].as_slice(), &flags, &labelled].concat(), &[]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    check_labels(&system.database, labels.path()).await;
    let history = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    let night = chrono::Utc::now().date_naive() - chrono::Days::new(100);
    let rows = format!(
        "account_id,idempotency_key,direction,amount,currency,created_at\n\
         sleeper,1,debit,600.00,EUR,{night}T02:00:00Z\nsleeper,2,debit,600.00,EUR,\n"
    );
    std::fs::write(history.path(), rows).unwrap();
    let path = history.path().to_str().unwrap();
    let run = binary::run(&["import", path], &[("LEDGER_DATABASE__URL", &system.database.url)]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    eventually("everything is assessed", async || {
        let open = "SELECT (SELECT count(*) FROM transactions) - (SELECT count(*) FROM risk_assessments)";
        system.database.value(open).await == "0"
    })
    .await;
    let ruleset = Ruleset::parse(SHIPPED_RULES).unwrap();
    let mut shipped: BTreeSet<String> = ruleset.summaries().map(|rule| rule.id.to_owned()).collect();
    assert_eq!(fired(&system.database, "true").await, shipped);
    // At night the traffic itself trips `night_debit` too.
    let mut simulated = fired(&system.database, "account_id LIKE 'sim-%'").await;
    for needs_time in ["dormant_account_wakes", "night_debit"] {
        shipped.remove(needs_time);
        simulated.remove(needs_time);
    }
    assert_eq!(simulated, shipped);
    for role in [serve, relay, consumer] {
        role.stop();
    }
}

/// Seen to fail with latencies that count from the sending: only the eight requests in flight are slow then, which are
/// fewer than a tenth of all.
#[tokio::test(flavor = "multi_thread")]
async fn the_percentiles_show_a_server_that_was_stopped_for_a_second() {
    let system = System::on_postgres().await;
    let (serve, url) = system.serve(&[]);
    let flags = ["--rate", "150", "--duration", "4s", "--connections", "8", "--output", "json"];
    let run = Binary::start(&[["simulate", "--url", &url].as_slice(), &flags].concat(), &[]);
    eventually("the run has begun", async || {
        system.database.value("SELECT count(*) > 50 FROM transactions").await == "t"
    })
    .await;
    serve.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(1)).await;
    serve.signal(Signal::SIGCONT);
    let report = || serde_json::from_str::<Value>(&run.stdout());
    eventually("the whole report is read", async || report().is_ok()).await;
    let report = report().unwrap();
    let (status, stderr) = run.ended_within(DEADLINE);
    assert!(status.success(), "{stderr}");
    assert_eq!(
        (&report["wrong"], &report["unanswered"], &report["created"]),
        (&json!(0), &json!(0), &json!(600))
    );
    let latency = |share: &str| report["latency_ms"][share].as_f64().unwrap();
    // A quarter of all requests were due in that second, and waited for the rest of it.
    assert!(latency("p90") > 400.0 && latency("max") > 950.0, "{report}");
    serve.stop();
}

/// The fault of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Each tenth balance is wrong by a cent.
    Balance,
    /// A used key creates another transaction: 201.
    UsedKey,
    /// Each tenth transaction is acknowledged and lost.
    Loses,
}

struct FaultyServer {
    fault: Fault,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    /// The sequence number and the balance in minor units of each account.
    states: HashMap<String, (i64, i64)>,
    answers: HashMap<String, String>,
    posted: u64,
}

async fn post(server: web::Data<FaultyServer>, request: HttpRequest, body: web::Json<Value>) -> HttpResponse {
    let mut answer = body.into_inner();
    let mut accounts = server.accounts.lock().unwrap();
    let key = request.headers().get("idempotency-key").unwrap().to_str().unwrap().to_owned();
    if let Some(first) = accounts.answers.get(&key).filter(|_| server.fault != Fault::UsedKey) {
        return HttpResponse::Ok().insert_header(("Idempotent-Replayed", "true")).body(first.clone());
    }
    accounts.posted += 1;
    let tenth = accounts.posted.is_multiple_of(10);
    let minor: i64 = answer["amount"].as_str().unwrap().replace('.', "").parse().unwrap();
    let minor = if answer["direction"] == "debit" { -minor } else { minor };
    let account = answer["account_id"].as_str().unwrap().to_owned();
    let (seq, balance) = accounts.states.get(&account).copied().unwrap_or_default();
    let (seq, balance) = (seq + 1, balance + minor);
    if !(server.fault == Fault::Loses && tenth) {
        accounts.states.insert(account, (seq, balance));
    }
    let shown = balance + i64::from(server.fault == Fault::Balance && tenth);
    let decimals = answer["amount"].as_str().unwrap().split_once('.').map_or(0, |(_, digits)| digits.len());
    let id = Uuid::now_v7();
    answer["id"] = json!(id);
    answer["account_seq"] = json!(seq);
    answer["balance_after"] = json!(decimal(shown, decimals));
    answer["created_at"] = json!("2026-01-01T00:00:00.000000Z");
    accounts.answers.insert(key, answer.to_string());
    let location = format!("/transactions/{id}");
    HttpResponse::Created().insert_header(("Location", location)).body(answer.to_string())
}

fn decimal(minor: i64, decimals: usize) -> String {
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let sign = if minor < 0 { "-" } else { "" };
    if decimals == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn start(fault: Fault) -> SocketAddr {
    let faulty = web::Data::new(FaultyServer { fault, accounts: Mutex::default() });
    let server = HttpServer::new(move || {
        App::new().app_data(faulty.clone()).route("/transactions", web::post().to(post))
    })
    .workers(1)
    .disable_signals()
    .bind("127.0.0.1:0")
    .unwrap();
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    address
}

/// Seen to fail with an exit code that ignores wrong answers, and without the checks of balances, of the statuses of used
/// keys and of sequence numbers.
#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_1_after_a_wrong_answer() {
    for (fault, problem) in [
        (Fault::None, None),
        (Fault::Balance, Some("sum to")),
        (Fault::UsedKey, Some("without Idempotent-Replayed")),
        (Fault::Loses, Some("given twice")),
    ] {
        let url = format!("http://{}", start(fault));
        let flags = ["--rate", "400", "--duration", "1s", "--accounts", "10", "--duplicate-share", "0.3"];
        let arguments = [["simulate", "--url", &url].as_slice(), &flags].concat();
        let owned: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let run = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = owned.iter().map(String::as_str).collect();
            binary::run(&arguments, &[])
        });
        let run = run.await.unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
        match problem {
            None => assert!(run.status.success(), "{stderr}"),
            Some(problem) => {
                assert_eq!(run.status.code(), Some(1), "{fault:?}: {stderr}");
                assert!(stderr.contains(problem), "{fault:?}: {stderr}");
            }
        }
    }
}
