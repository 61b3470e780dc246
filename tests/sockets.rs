//! HTTP/1.1 on the wire: pipelining, refused bodies, wrong lengths, clients that disconnect.
//!
//! - The tests of pipelining fail if a connection delivers all its bytes at once: a GET before a HEAD is then answered
//!   without its body.
//! - The HTTP library guarantees that a refused body is not read as the next request. A test guards against a change.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{DEADLINE, api::Api, eventually};

const BODY: &str = r#"{"account_id":"a","direction":"credit","amount":"1.00","currency":"EUR"}"#;
const LAST: &str = "GET /accounts/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn post(key: &str, headers: &str) -> String {
    let length = BODY.len();
    format!(
        "POST /transactions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {length}\r\n{headers}\r\n{BODY}"
    )
}

/// Sends bytes and returns all answers until the server closes the connection.
async fn talk(api: &Api, sent: impl Into<Vec<u8>>) -> String {
    let address = api.url.strip_prefix("http://").unwrap().to_owned();
    let sent = sent.into();
    let talking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&sent).unwrap();
        let mut answer = Vec::new();
        // A reset at the end does not discard bytes that have arrived.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    talking.await.unwrap()
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let api = Api::start().await;
    let answers = talk(&api, [post("1", ""), post("2", ""), post("1", ""), LAST.into()].concat()).await;
    assert_eq!(statuses(&answers), ["201", "201", "200", "200"], "{answers}");
    let positions: Vec<_> =
        ["\"account_seq\":1", "\"account_seq\":2"].map(|part| answers.find(part).unwrap()).into();
    assert!(positions.is_sorted(), "{answers}");
    assert!(answers.contains("\"balance\":\"2.00\""), "{answers}");
}

/// Splits the answers of a connection by RFC 9112: the end of a body depends on the method of its request.
fn answers_to(methods: &[&str], mut bytes: &str) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    for method in methods {
        let (head, rest) = bytes.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {bytes:?}"));
        assert!(head.starts_with("HTTP/1.1 "), "{head:?}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = if *method == "HEAD" { 0 } else { length.unwrap().parse().unwrap() };
        let (body, rest) = rest.split_at(length);
        answers.push((head.to_owned(), body.to_owned()));
        bytes = rest;
    }
    assert_eq!(bytes, "", "no bytes after the last answer");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pipelined_answer_fits_its_own_request() {
    let api = Api::start().await;
    let ask = |method: &str, headers: &str| {
        format!("{method} /accounts/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
    };
    let sent = [
        ask("GET", ""),
        ask("HEAD", ""),
        post("1", ""),
        ask("HEAD", ""),
        ask("GET", ""),
        ask("HEAD", ""),
        LAST.into(),
    ];
    let answers = talk(&api, sent.concat()).await;
    let answers = answers_to(&["GET", "HEAD", "POST", "HEAD", "GET", "HEAD", "GET"], &answers);
    let last = answers.len() - 1;
    for (number, (head, _)) in answers.iter().enumerate() {
        assert_eq!(head.contains("connection: close"), number == last, "{number}: {head}");
    }
    // Requests after one that closes the connection are not executed, no matter which requests came before it.
    let length = BODY.len();
    let upgrade = "Transfer-Encoding: chunked\r\nUpgrade: websocket\r\n";
    let upgrade = post("2", upgrade)
        .replace(&format!("Content-Length: {length}\r\n"), "")
        .replace(BODY, &format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n"));
    for before in ["", &upgrade] {
        let last = [post("2", ""), post("3", "Connection: close\r\n"), post("4", "")].concat();
        let answers = talk(&api, format!("{before}{last}")).await;
        let answers = answers_to(&["POST"].repeat(if before.is_empty() { 2 } else { 3 }), &answers);
        let closes: Vec<bool> = answers.iter().map(|(head, _)| head.contains("connection: close")).collect();
        let (last, others) = closes.split_last().unwrap();
        assert!(*last && !others.contains(&true), "{answers:?}");
    }
    // A refused body may end after its request is answered. The connection then closes.
    let address = api.url.strip_prefix("http://").unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 16 * 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 404"));
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer));
    end.await.expect("closed in time").unwrap();
    // A refused body that never ends: the connection closes after the time limit for bodies.
    let never = talk(&api, head.replace("Connection: close\r\n", ""));
    let never = tokio::time::timeout(DEADLINE / 2, never).await.expect("closed in time");
    assert_eq!(statuses(&never), ["404"]);
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_is_not_read_as_the_next_request() {
    let api = Api::start_with(&[("serve.client_timeout", "1s")]).await;
    // The body looks like a request, which must never be executed.
    let smuggled = post("smuggled", "");
    let head = |path: &str, content_type: &str| {
        let length = smuggled.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nIdempotency-Key: k\r\nContent-Length: {length}\r\n\r\n{smuggled}"
        )
    };
    // These are answered before the body is read, so the connection closes.
    for (first, status) in [
        (head("/transactions", "text/plain"), "415"),
        (head("/nothing", "application/json"), "404"),
        (head("/accounts/a", "application/json"), "405"),
        (head("/transactions?x=1", "application/json"), "400"),
    ] {
        let answers = talk(&api, format!("{first}{LAST}")).await;
        assert_eq!(statuses(&answers), [status], "{answers}");
        assert!(answers.contains("connection: close"), "{answers}");
    }
    let first = head("/transactions", "application/json");
    assert_eq!(statuses(&talk(&api, format!("{first}{LAST}")).await), ["400", "404"]);
    let large = format!("{}{}", smuggled, " ".repeat(70_000));
    let length = large.len();
    let answers = talk(
        &api,
        format!(
            "POST /transactions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: {length}\r\n\r\n{large}{LAST}"
        ),
    )
    .await;
    assert_eq!(statuses(&answers)[0], "413", "{answers}");
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_may_be_chunked_or_expected_and_their_length_must_be_right() {
    let api = Api::start_with(&[("serve.client_timeout", "1s")]).await;
    let chunked = |key: &str, length: &str| {
        let (first, second) = BODY.split_at(10);
        format!(
            "POST /transactions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\nTransfer-Encoding: chunked\r\n{length}Connection: close\r\n\r\na\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            second.len()
        )
    };
    assert_eq!(statuses(&talk(&api, chunked("1", "")).await), ["201"]);
    // Two different lengths of a body make request smuggling possible.
    assert_eq!(statuses(&talk(&api, chunked("2", "Content-Length: 5\r\n")).await), ["400"]);
    assert_eq!(statuses(&talk(&api, post("3", "Content-Length: 3\r\n")).await), ["400"]);
    let asked = talk(&api, post("4", "Expect: 100-continue\r\nConnection: close\r\n")).await;
    assert_eq!(statuses(&asked), ["100", "201"], "{asked}");
    let length = format!("Content-Length: {}", BODY.len());
    let short = talk(&api, post("5", "").replace(&length, "Content-Length: 10")).await;
    assert_eq!(statuses(&short)[0], "400", "{short}");
    let long = talk(&api, post("6", "").replace(&length, "Content-Length: 100")).await;
    assert_eq!(statuses(&long), ["408"], "{long}");
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_requests_get_a_problem_and_head_is_get_without_the_body() {
    let api = Api::start().await;
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n")
    };
    let answer = talk(&api, get(&format!("/{}", "a".repeat(9000)), "")).await;
    assert!(answer.starts_with("HTTP/1.1 414") && answer.contains("problem:uri-too-long"), "{answer}");
    let answer = talk(&api, get(&format!("/transactions?cursor={}", "a".repeat(9000)), "")).await;
    assert!(answer.starts_with("HTTP/1.1 414") && answer.len() < 1000, "{answer}");
    let answer = talk(&api, get("/accounts/a", &format!("X: {}\r\n", "a".repeat(17_000)))).await;
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("problem:headers-too-large"), "{answer}");
    // Above the limits of the HTTP library, the answer is the status without a body.
    let many: String = (0..120).map(|n| format!("X{n}: a\r\n")).collect();
    assert_eq!(statuses(&talk(&api, get("/accounts/a", &many)).await), ["431"]);
    for path in ["/accounts/a", "/openapi.json"] {
        let whole = talk(&api, get(path, "")).await;
        let head = talk(&api, get(path, "").replace("GET", "HEAD")).await;
        assert_eq!(statuses(&head), statuses(&whole), "{path}");
        let length = |answer: &str| {
            answer.lines().find(|line| line.starts_with("content-length")).map(ToOwned::to_owned)
        };
        assert_eq!(length(&head), length(&whole), "{path}");
        assert!(head.ends_with("\r\n\r\n") && !whole.ends_with("\r\n\r\n"), "{path}: {head}");
    }
}

/// Fails if a read is dropped together with its request while its database transaction is open. Locks hold the requests
/// back, so that every client disconnects, with an RST, before its request ends. PostgreSQL's timeout for idle
/// transactions is raised, because it would hide the fault after ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_disconnect_leave_no_database_transaction_open() {
    let api = Api::start_with(&[("database.idle_in_transaction_timeout", "10m")]).await;
    let address = api.url.strip_prefix("http://").unwrap().to_owned();
    let blocker = api.database.client().await;
    blocker.batch_execute("BEGIN; LOCK TABLE transactions, accounts").await.unwrap();
    let mut clients = Vec::new();
    for n in 0..40 {
        let request = match n % 4 {
            0 => post(&format!("{n}"), ""),
            1 => post(&format!("{n}"), "").replace("EUR\"}", ""),
            2 => LAST.to_owned(),
            _ => "GET /transactions?limit=200 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        };
        let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        clients.push(client);
    }
    let blocked = "SELECT greatest(count(DISTINCT application_name), 1) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'ledger serve%' AND wait_event_type = 'Lock'";
    eventually("reads and writes wait for the locks", async || api.database.value(blocked).await != "1")
        .await;
    for client in clients {
        // The socket closes with an RST instead of a FIN.
        client.set_zero_linger().unwrap();
    }
    // When the HTTP workers have answered other requests, they have noticed the disconnects.
    for _ in 0..20 {
        assert_eq!(api.get("/openapi.json").await.status, 200);
    }
    blocker.batch_execute("COMMIT").await.unwrap();
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name LIKE 'ledger serve%' AND (xact_start IS NOT NULL OR state <> 'idle')";
    eventually("every database transaction has ended", async || api.database.value(left).await == "0").await;
    let sum = "SELECT coalesce(sum(amount), 0) = (SELECT coalesce(sum(balance), 0) FROM accounts) FROM transactions";
    assert_eq!(api.database.value(sum).await, "t");
    assert_eq!(api.get("/transactions").await.status, 200);
}
