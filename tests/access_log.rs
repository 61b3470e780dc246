//! The access log and the HTTP metrics: enough to find a request, nothing of its content.
//!
//! Fails if the access log contains the path with its query, or if `/docs` or a request that is refused before it reaches
//! its resource is counted as unmatched.

use crate::support::{binary, binary::Binary, eventually, postgres::TestDatabase};

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_no_bodies_keys_or_amounts_and_labels_have_few_values() {
    let database = TestDatabase::new().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
        ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0"),
        ("LEDGER_SERVE__SERVER_TIMING", "true"),
        ("LEDGER_LOG__FILTER", "info,ledger=trace,ledger::access=debug"),
    ];
    let mut serve = Binary::start(&["serve"], &environment);
    let (address, admin) = (serve.field("listen"), serve.field("admin"));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let body = r#"{"account_id":"acct-secret","direction":"credit","amount":"31337.42","currency":"EUR","description":"text-secret"}"#;
    for method in ["POST", "BREW"] {
        let request = http
            .request(method.parse().unwrap(), format!("http://{address}/transactions"))
            .header("content-type", "application/json")
            .header("idempotency-key", "key-secret")
            .header("x-request-id", "find-me");
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.headers()["x-request-id"], "find-me");
        let timing = answer.headers()["server-timing"].to_str().unwrap();
        assert!(timing.starts_with("total;dur="), "{timing}");
    }
    let query = format!("http://{address}/transactions?account_id=acct-secret&min_amount=31337.42");
    assert_eq!(http.get(query).send().await.unwrap().status(), 200);
    let line = |part: &str| {
        let text = serve.stderr();
        text.lines().find(|line| line.contains("answered") && line.contains(part)).map(ToOwned::to_owned)
    };
    eventually("three lines", async || {
        ["status=201", "status=405", "status=200"].iter().all(|part| line(part).is_some())
    })
    .await;
    let posted = line("status=201").unwrap();
    for part in ["client=\"127.0.0.1\"", "POST", "/transactions", "find-me", "elapsed_us="] {
        assert!(posted.contains(part), "{part}: {posted}");
    }
    let text = serve.stderr();
    for secret in ["key-secret", "31337", "text-secret", "acct-secret"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let too_long = format!("http://{address}/transactions?account_id={}", "x".repeat(9000));
    assert_eq!(http.get(too_long).send().await.unwrap().status(), 414);
    assert!(http.get(format!("http://{address}/docs")).send().await.unwrap().status().is_success());
    assert_eq!(http.get(format!("http://{address}/no/such/route")).send().await.unwrap().status(), 404);
    let (_, metrics) = binary::get(&admin, "/metrics").unwrap();
    for (route, status) in
        [("/transactions", 201), ("/transactions", 414), ("/docs", 307), ("unmatched", 404)]
    {
        let counted = format!("route=\"{route}\",status=\"{status}\"");
        assert!(metrics.contains(&counted), "{counted}: {metrics}");
    }
    assert!(metrics.contains("method=\"other\"") && !metrics.contains("BREW"), "{metrics}");
    serve.stop();
}
