//! A thousand clients whose bodies trickle do not slow a healthy one by more than twice.

use std::time::{Duration, Instant};

use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::support::{api::transaction, binary::Binary, postgres::TestDatabase};

const SLOW_CLIENTS: usize = 1000;
/// Where this process may not open that many files.
const SLOW_CLIENTS_FEW: usize = 400;
const REQUESTS: usize = 200;
/// Two cores are shared with other tests, and a request takes about a millisecond.
const NOISE: Duration = Duration::from_millis(5);

fn slow_clients() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    if soft.is_none_or(|soft| soft >= 3 * SLOW_CLIENTS) { SLOW_CLIENTS } else { SLOW_CLIENTS_FEW }
}

/// The median of the latencies of requests one after another.
async fn median(http: &reqwest::Client, url: &str, name: &str) -> Duration {
    let mut latencies = Vec::with_capacity(REQUESTS);
    for n in 0..REQUESTS {
        let body = transaction("a", "credit", "1.00", "EUR");
        let started = Instant::now();
        let request = http.post(url).header("idempotency-key", format!("{name}-{n}")).json(&body);
        assert_eq!(request.send().await.unwrap().status(), 201);
        latencies.push(started.elapsed());
    }
    latencies.sort_unstable();
    latencies[REQUESTS / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_bodies_do_not_slow_a_healthy_client_by_more_than_twice() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = TestDatabase::new().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
        ("LEDGER_ADMIN__LISTEN", "off"),
        ("LEDGER_SERVE__CLIENT_TIMEOUT", "60s"),
    ];
    let mut serve = Binary::start(&["serve"], &environment);
    let address = serve.field("listen");
    let (http, url) = (reqwest::Client::new(), format!("http://{address}/transactions"));
    median(&http, &url, "warm").await;
    let alone = median(&http, &url, "alone").await;
    let mut slow = JoinSet::new();
    let (begun, mut beginning) = tokio::sync::mpsc::channel(SLOW_CLIENTS);
    for _ in 0..slow_clients() {
        let (address, begun) = (address.clone(), begun.clone());
        slow.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let head = "POST /transactions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: 1000\r\n\r\n{";
            stream.write_all(head.as_bytes()).await.expect("sent");
            begun.send(()).await.expect("counted");
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                stream.write_all(b" ").await.expect("nobody cuts it off");
            }
        });
    }
    for _ in 0..slow_clients() {
        beginning.recv().await.expect("begun");
    }
    let among_slow = median(&http, &url, "among").await;
    assert!(among_slow <= alone * 2 + NOISE, "alone {alone:?}, among slow ones {among_slow:?}");
    assert!(slow.try_join_next().is_none(), "all of them are still at it");
    slow.shutdown().await;
    serve.stop();
}
