//! Runs the simulation against a small ledger in memory that is correct or has one chosen fault: every fault is found.
//!
//! A busy machine may delay anything, so the tests wait for conditions, and upper limits on times are generous.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::domain::{Currency, format_minor, parse_minor};

/// The fault of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Each tenth transaction is missing from the balance.
    Balance,
    /// A repeated key creates another transaction.
    CreatesTwice,
    /// A replay differs from the first answer.
    ReplayDiffers,
    /// Each third request gets 503, 429 or 408, some of them after the request was carried out.
    Busy,
    /// The answer has another amount than the request.
    Amount,
    /// Each request gets 500 with a long body.
    LongError,
    /// Each replay takes [`SLOW_REPLAY`].
    SlowReplays,
    /// The server stops once for [`STALL`].
    Stalls,
    /// No request is answered.
    Hangs,
}

const STALL: Duration = Duration::from_secs(1);
const SLOW_REPLAY: Duration = Duration::from_secs(2);
/// Ends a test that would otherwise wait for ever.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    accounts: HashMap<String, (i64, i64)>,
    answers: HashMap<String, String>,
    requests: u64,
}

struct Ledger {
    fault: Fault,
    /// Requests that have arrived, answered or not.
    received: AtomicU64,
    state: Mutex<State>,
}

async fn post(ledger: web::Data<Ledger>, request: HttpRequest, body: web::Json<Value>) -> HttpResponse {
    ledger.received.fetch_add(1, Ordering::Relaxed);
    if ledger.fault == Fault::Hangs {
        std::future::pending::<()>().await;
    }
    let response = answer(&ledger, &request, body.into_inner());
    if ledger.fault == Fault::SlowReplays && response.status() == 200 {
        tokio::time::sleep(SLOW_REPLAY).await;
    }
    response
}

fn answer(ledger: &Ledger, request: &HttpRequest, mut answer: Value) -> HttpResponse {
    let mut state = ledger.state.lock().expect("not poisoned");
    state.requests += 1;
    let number = state.requests;
    if ledger.fault == Fault::Busy && number.is_multiple_of(6) {
        let early = number.is_multiple_of(12);
        return if early { HttpResponse::TooManyRequests() } else { HttpResponse::RequestTimeout() }.finish();
    }
    if ledger.fault == Fault::LongError {
        return HttpResponse::InternalServerError().body("ä".repeat(100_000));
    }
    if ledger.fault == Fault::Stalls && number == 50 {
        // This blocks the server's only thread, so no request is answered until it ends.
        stall();
    }
    let key = request.headers().get("idempotency-key").expect("a key").to_str().expect("ascii").to_owned();
    if let Some(first) = state.answers.get(&key).filter(|_| ledger.fault != Fault::CreatesTwice) {
        let answer = if ledger.fault == Fault::ReplayDiffers { format!("{first} ") } else { first.clone() };
        return HttpResponse::Ok().insert_header(("Idempotent-Replayed", "true")).body(answer);
    }
    let currency = Currency::parse(answer["currency"].as_str().expect("text")).expect("currency");
    let mut amount = parse_minor(answer["amount"].as_str().expect("text"), currency).expect("amount");
    if answer["direction"] == "debit" {
        amount = -amount;
    }
    if ledger.fault == Fault::Balance && number.is_multiple_of(10) {
        amount = 0;
    }
    let account = state.accounts.entry(answer["account_id"].as_str().expect("text").into()).or_default();
    *account = (account.0 + 1, account.1 + amount);
    let id = Uuid::now_v7();
    answer["id"] = json!(id);
    answer["account_seq"] = json!(account.0);
    answer["balance_after"] = json!(format_minor(account.1, currency));
    answer["created_at"] = json!("2026-01-01T00:00:00.000000Z");
    if ledger.fault == Fault::Amount {
        answer["amount"] = json!("1.00");
    }
    let answer = answer.to_string();
    state.answers.insert(key, answer.clone());
    if ledger.fault == Fault::Busy && number % 6 == 3 {
        return HttpResponse::ServiceUnavailable().finish();
    }
    HttpResponse::Created().insert_header(("Location", format!("/transactions/{id}"))).body(answer)
}

#[expect(clippy::disallowed_methods, reason = "the server must stall")]
fn stall() {
    std::thread::sleep(STALL);
}

fn serve(fault: Fault) -> (SocketAddr, web::Data<Ledger>) {
    let ledger = web::Data::new(Ledger { fault, received: AtomicU64::new(0), state: Mutex::default() });
    let served = ledger.clone();
    let server = HttpServer::new(move || {
        App::new().app_data(served.clone()).route("/transactions", web::post().to(post))
    })
    .workers(1)
    .disable_signals()
    .bind("127.0.0.1:0")
    .expect("a free port");
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    (address, ledger)
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// Parses the flags. Also installs the TLS provider, as `main` does: the HTTP client needs it even without TLS.
fn args<'a>(flags: impl IntoIterator<Item = &'a &'a str>) -> Args {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Cli::parse_from(flags).args
}

async fn simulate(fault: Fault, flags: &[&str]) -> Outcome {
    let url = format!("http://{}", serve(fault).0);
    let common = ["simulate", "--url", &url, "--accounts", "20", "--duplicate-share", "0.3", "--seed", "1"];
    drive(&args(common.iter().chain(flags)), true, &Stop::new()).await.expect("ran")
}

const SHORT: &[&str] = &["--rate", "400", "--duration", "500ms", "--connections", "8"];

#[tokio::test]
async fn a_correct_ledger_passes_at_the_requested_rate() {
    let Outcome { report, acknowledged } = simulate(Fault::None, SHORT).await;
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!(report.created, 200);
    assert_eq!(acknowledged.len(), 200);
    assert!(!report.interrupted);
    assert!((30..90).contains(&report.replayed), "{}", report.replayed);
    assert!(report.latency_ms.p50 > 0.0 && report.latency_ms.p50 <= report.latency_ms.max);
}

#[tokio::test]
async fn it_stops_after_the_requested_number_of_transactions() {
    let flags = ["--rate", "0", "--duration", "60s", "--transactions", "123", "--connections", "4"];
    let Outcome { report, .. } = simulate(Fault::None, &flags).await;
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!(report.created, 123);
}

/// Seen to fail with this planted bug: permits are given until the end of the duration, and each connection waits for
/// one.
#[tokio::test]
async fn it_ends_with_the_last_transaction_also_with_a_rate() {
    let flags = ["--rate", "20", "--duration", "60s", "--transactions", "10", "--connections", "40"];
    let Outcome { report, .. } = simulate(Fault::None, &flags).await;
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!(report.created, 10);
    // The last of ten is due after 450 ms; the duration is 60 s.
    assert!((0.4..30.0).contains(&report.elapsed_seconds), "{report:?}");
}

#[test]
fn impossible_flags_are_refused() {
    for flags in [
        ["--duration", "0s"],
        ["--duration", "30000years"],
        ["--transactions", "0"],
        ["--url", "notaurl"],
        ["--url", "file:///tmp"],
        ["--hot-share", "NaN"],
    ] {
        assert!(Cli::try_parse_from([&["simulate"], flags.as_slice()].concat()).is_err(), "{flags:?}");
    }
}

#[tokio::test]
async fn requests_to_a_busy_server_are_retried_with_the_same_key() {
    let Outcome { report, .. } = simulate(Fault::Busy, SHORT).await;
    assert!(report.is_clean(), "{:?}", report.problems);
    assert!(report.retried > 20, "{}", report.retried);
    assert_eq!(report.created, 200);
}

#[tokio::test]
async fn every_kind_of_wrong_answer_is_found() {
    for (fault, part) in [
        (Fault::Balance, "sum to"),
        (Fault::CreatesTwice, "without Idempotent-Replayed"),
        (Fault::ReplayDiffers, "a repeated request was answered 200"),
        (Fault::Amount, "amount is not what was sent"),
        (Fault::LongError, "neither 201 nor"),
    ] {
        let Outcome { report, acknowledged } = simulate(fault, SHORT).await;
        assert_eq!(acknowledged.len() as u64, report.created, "{fault:?}");
        let is_right = matches!(fault, Fault::Balance | Fault::CreatesTwice | Fault::ReplayDiffers);
        assert_eq!(report.created, if is_right { 200 } else { 0 }, "{fault:?}");
        assert!(report.problems.iter().all(|problem| problem.chars().count() <= 1001), "{fault:?}");
        assert!(!report.is_clean(), "{fault:?} was not found");
        assert!(report.problems.iter().any(|problem| problem.contains(part)), "{:?}", report.problems);
    }
}

/// Seen to fail with latencies that count from the sending: only the few requests in flight are slow then, and p50 is a
/// millisecond.
#[tokio::test(flavor = "multi_thread")]
async fn the_percentiles_show_a_stall_for_all_requests_that_were_due_in_it() {
    let flags = ["--rate", "400", "--duration", "1500ms", "--connections", "8"];
    let Outcome { report, .. } = simulate(Fault::Stalls, &flags).await;
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!(report.created, 600);
    // About 400 of them were due during the stall, and waited up to a second.
    let latency = &report.latency_ms;
    assert!(latency.p50 > 100.0 && latency.p90 > 500.0 && latency.max > 950.0, "{latency:?}");
}

#[tokio::test]
async fn a_repeated_request_does_not_count_in_the_latency_of_the_first() {
    // A replay takes two seconds, and nearly half of all requests wait for the replay after their first answer.
    let url = format!("http://{}", serve(Fault::SlowReplays).0);
    let flags =
        ["simulate", "--url", &url, "--rate", "100", "--duration", "500ms", "--duplicate-share", "0.9"];
    let Outcome { report, .. } = drive(&args(&flags), false, &Stop::new()).await.expect("ran");
    assert!(report.is_clean(), "{:?}", report.problems);
    assert!(report.replayed > 30 && report.latency_ms.p50 < 2_000.0, "{report:?}");
}

/// Runs for a minute over four connections, and requests the stop after the server has received `requests`.
async fn interrupted(fault: Fault, requests: u64) -> Outcome {
    let stop = Stop::new();
    let (address, ledger) = serve(fault);
    let url = format!("http://{address}");
    let flags = ["simulate", "--url", &url, "--rate", "200", "--duration", "60s", "--connections", "4"];
    let args = args(&flags);
    let (outcome, ()) = tokio::join!(drive(&args, true, &stop), async {
        let received = async {
            while ledger.received.load(Ordering::Relaxed) < requests {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, received).await.expect("requests arrive");
        stop.request();
    });
    outcome.expect("ran")
}

#[tokio::test]
async fn an_interrupted_run_reports_the_requests_until_then() {
    let Outcome { report, acknowledged } = interrupted(Fault::None, 40).await;
    assert!(report.is_clean(), "{:?}", report.problems);
    assert!(report.created > 20 && report.elapsed_seconds < 30.0, "{report:?}");
    assert!(report.interrupted);
    assert_eq!(acknowledged.len() as u64, report.created);
}

/// Seen to fail with these planted bugs: a stop that waits for all answers, and latencies of answered requests only.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_server_that_hangs_and_the_latencies_show_it() {
    let Outcome { report, .. } = interrupted(Fault::Hangs, 4).await;
    assert!(!report.is_clean() && report.interrupted && report.unanswered == 4, "{report:?}");
    assert!(report.elapsed_seconds < 30.0 && report.latency_ms.p50 > 2000.0, "{report:?}");
}

#[tokio::test]
async fn an_unreachable_server_is_reported_in_one_line() {
    let error = drive(&args(&["simulate", "--url", "http://127.0.0.1:1"]), false, &Stop::new())
        .await
        .expect_err("refused");
    let text = format!("{error:#}");
    assert!(text.starts_with("cannot reach http://127.0.0.1:1; is `ledger serve`"), "{text}");
}
