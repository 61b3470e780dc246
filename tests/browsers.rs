//! The API in front of web browsers: what a page of another site can do (nothing), what a page of a permitted origin can
//! do, and the pages for people.
//!
//! A browser sends a form, an image or a plain `fetch` of any page to any address, with the content types of forms only.
//! For everything else it asks first (CORS).

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::support::{
    DEADLINE,
    api::{Api, transaction},
    binary::Binary,
    postgres::TestDatabase,
};

/// Fails if a reversal needs no content type.
#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_writes_is_refused_with_the_content_types_of_forms() {
    let api = Api::start().await;
    let first = api.post("k", &transaction("a", "credit", "5.00", "EUR")).await.json();
    let reversal = format!("/transactions/{}/reversal", first["id"].as_str().unwrap());
    let writes = [
        ("POST", "/transactions"),
        ("POST", "/transactions/batch"),
        ("POST", reversal.as_str()),
        ("PUT", "/accounts/b"),
    ];
    let of_forms = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"];
    let tricks = ["text/plain; application/json", "text/plain;charset=application/json"];
    for (method, path) in writes {
        api.send(method, path, &[], Vec::new()).await.is_problem(415, "unsupported-media-type");
        for kind in of_forms.into_iter().chain(tricks) {
            let headers = [("content-type", kind), ("idempotency-key", "x")];
            for body in [&b""[..], b"{}"] {
                let answer = api.send(method, path, &headers, body.to_vec()).await;
                answer.is_problem(415, "unsupported-media-type");
            }
        }
        let asked = api.send("OPTIONS", path, &[("origin", "https://evil.example")], Vec::new()).await;
        assert_eq!(asked.status, 405, "{asked:?}");
        assert!(!asked.headers.contains_key("access-control-allow-origin"), "{asked:?}");
    }
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "1");
}

/// Sends a GET with this host, and returns the answer.
fn get(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A page can make its own name resolve to the address of the listener, but its requests then carry that name.
#[tokio::test(flavor = "multi_thread")]
async fn a_loopback_listener_answers_to_its_own_names_only() {
    let database = TestDatabase::new().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
        ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0"),
        ("LEDGER_SERVE__ALLOWED_HOSTS", "ledger.example.org, other.example"),
        ("LEDGER_ADMIN__ALLOWED_HOSTS", "admin.example"),
    ];
    let mut serve = Binary::start(&["serve"], &environment);
    let (api, admin) = (serve.field("listen"), serve.field("admin"));
    for (address, path, allowed) in
        [(&api, "/openapi.json", "other.example"), (&admin, "/metrics", "admin.example")]
    {
        for host in [address.as_str(), "localhost", "localhost:99", "10.0.0.1", allowed] {
            assert!(get(address, path, host).starts_with("HTTP/1.1 200"), "{host}");
        }
        for host in ["evil.example", "evil.example:80", "localhost.evil.example"] {
            let answer = get(address, path, host);
            assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
            assert!(answer.contains(host) && answer.contains(".allowed_hosts"), "{answer}");
        }
    }
    assert!(get(&api, "/accounts/a", "evil.example").contains("problem:misdirected-request"));
    serve.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_permitted_origins_may_call_the_api_and_others_may_not() {
    let origins = [("serve.cors_origins", "https://app.example.org, http://localhost:3000")];
    let api = Api::start_with(&origins).await;
    let asks = |origin: &'static str| {
        [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,idempotency-key"),
        ]
    };
    for origin in ["https://app.example.org", "http://localhost:3000"] {
        let asked = api.send("OPTIONS", "/transactions", &asks(origin), Vec::new()).await;
        assert_eq!(asked.status, 200, "{asked:?}");
        assert_eq!(asked.headers["access-control-allow-origin"], origin);
        assert!(asked.headers["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
        // An error is readable too.
        let read = api.send("GET", "/accounts/a", &[("origin", origin)], Vec::new()).await;
        assert_eq!(
            (read.status, &read.headers["access-control-allow-origin"]),
            (404, &origin.parse().unwrap())
        );
        assert!(read.headers["access-control-expose-headers"].to_str().unwrap().contains("retry-after"));
        assert!(!read.headers.contains_key("access-control-allow-credentials"));
    }
    for origin in ["https://app.example.org.evil.example", "http://app.example.org", "null"] {
        let asked = api.send("OPTIONS", "/transactions", &asks(origin), Vec::new()).await;
        assert!(asked.status >= 400, "{asked:?}");
        let read = api.send("GET", "/accounts/a", &[("origin", origin)], Vec::new()).await;
        for answer in [asked, read] {
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_leads_to_the_page_unless_the_page_is_off() {
    let on = Api::start().await;
    let answer = on.get("/").await;
    assert_eq!((answer.status, answer.content_type.starts_with("text/html")), (200, true), "{answer:?}");
    on.send("POST", "/", &[], Vec::new()).await.is_problem(405, "method-not-allowed");
    on.get("/?x=1").await.is_problem(400, "malformed-request");
    let off = Api::start_with(&[("serve.docs", "false")]).await;
    for path in ["/docs", "/docs/", "/docs/swagger-ui-bundle.js"] {
        off.get(path).await.is_problem(404, "not-found");
    }
    assert_eq!(off.get("/").await.json()["openapi"], "3.1.0");
}
