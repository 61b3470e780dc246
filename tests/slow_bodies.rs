//! A thousand clients that send their bodies slowly do not double the latency of a healthy client.

use std::time::{Duration, Instant};

use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc, task::JoinSet};

use crate::support::{DEADLINE, api::transaction, binary::Binary, postgres::TestDatabase};

const SLOW_CLIENTS: usize = 1000;
/// The number of slow clients if this process may not open enough files.
const SLOW_CLIENTS_FEW: usize = 400;
const REQUESTS: usize = 200;
/// A request takes one to two milliseconds, and a little longer if it waits for a thread of a shared machine.
const NOISE: Duration = Duration::from_millis(1);
/// Other tests share the two cores, so a slow measurement is repeated. A real slowdown is there every time.
const ATTEMPTS: usize = 4;

fn slow_clients() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    if soft.is_none_or(|soft| soft >= 3 * SLOW_CLIENTS) { SLOW_CLIENTS } else { SLOW_CLIENTS_FEW }
}

/// A healthy client that sends one request after the other, on one connection or on a new one for each request.
struct Healthy {
    http: reqwest::Client,
    url: String,
    posted: usize,
}

impl Healthy {
    fn new(address: &str, idle_connections_max: usize) -> Self {
        let http = reqwest::Client::builder().pool_max_idle_per_host(idle_connections_max).timeout(DEADLINE);
        let url = format!("http://{address}/transactions");
        Self { http: http.build().expect("client"), url, posted: 0 }
    }

    /// Returns the median latency.
    async fn median(&mut self, account: &str) -> Duration {
        let mut latencies = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            self.posted += 1;
            let body = transaction(account, "credit", "1.00", "EUR");
            let request = self.http.post(&self.url).header("idempotency-key", self.posted.to_string());
            let started = Instant::now();
            assert_eq!(request.json(&body).send().await.expect("an answer").status(), 201);
            latencies.push(started.elapsed());
        }
        latencies.sort_unstable();
        latencies[REQUESTS / 2]
    }
}

/// Sends one byte of a body every 500 ms.
async fn trickle(address: String, begun: mpsc::Sender<()>) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = "POST /transactions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    begun.send(()).await.expect("counted");
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(b" ").await.expect("the connection stays open");
    }
}

/// Fails if a worker's thread sleeps for each piece of a body, if a worker accepts only half as many connections as there
/// are slow clients (which affects new connections), or if a request occupies a slot from its first byte on.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_bodies_do_not_double_the_latency_of_a_healthy_client() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = TestDatabase::new().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
        ("LEDGER_ADMIN__LISTEN", "off"),
        ("LEDGER_SERVE__CLIENT_TIMEOUT", "120s"),
        ("LEDGER_SERVE__PEER_CONNECTIONS_MAX", "10000"),
    ];
    let mut serve = Binary::start(&["serve"], &environment);
    let address = serve.field("listen");
    let mut clients = [("kept", Healthy::new(&address, 1)), ("fresh", Healthy::new(&address, 0))];
    let mut alone = Vec::new();
    for (name, client) in &mut clients {
        client.median(name).await;
        alone.push(client.median(name).await);
    }
    let mut slow = JoinSet::new();
    let (begun, mut beginning) = mpsc::channel(SLOW_CLIENTS);
    for _ in 0..slow_clients() {
        slow.spawn(trickle(address.clone(), begun.clone()));
    }
    for _ in 0..slow_clients() {
        beginning.recv().await.expect("begun");
    }
    for ((name, client), alone) in clients.iter_mut().zip(alone) {
        let mut among_slow = client.median(name).await;
        for _ in 1..ATTEMPTS {
            if among_slow > alone * 2 + NOISE {
                among_slow = client.median(name).await;
            }
        }
        assert!(
            among_slow <= alone * 2 + NOISE,
            "{name}: alone {alone:?}, among slow clients {among_slow:?}"
        );
    }
    assert!(slow.try_join_next().is_none(), "all slow clients are still sending");
    slow.shutdown().await;
    serve.stop();
}
