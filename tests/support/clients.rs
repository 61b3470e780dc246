//! Clients as integrators should write them: they retry a request with its idempotency key, at any instance, until it is
//! acknowledged. Afterwards their answers are compared with the ledger.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{DEADLINE, api::transaction, postgres::TestDatabase};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Running clients.
pub struct Clients {
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

struct Shared {
    targets: Mutex<Vec<String>>,
    stop: AtomicBool,
    acknowledged: Mutex<HashMap<String, String>>,
    count: AtomicUsize,
    answers: Mutex<BTreeMap<u16, usize>>,
    wrong: Mutex<Vec<String>>,
}

/// The knowledge of the clients: the acknowledged id of each key, the number of answers of each status (0 for no
/// answer), and the answers that are wrong.
pub struct Known {
    pub acknowledged: HashMap<String, String>,
    pub answers: BTreeMap<u16, usize>,
    pub wrong: Vec<String>,
}

impl Clients {
    /// Starts clients that send one request at a time, with a pause after each. Every fourth request is for one hot
    /// account.
    pub fn start(targets: &[String], clients: usize, accounts: usize, pause: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Arc::new(Shared {
            targets: Mutex::new(targets.to_vec()),
            stop: AtomicBool::new(false),
            acknowledged: Mutex::default(),
            count: AtomicUsize::new(0),
            answers: Mutex::default(),
            wrong: Mutex::default(),
        });
        let mut running = JoinSet::new();
        for number in 0..clients {
            let shared = Arc::clone(&shared);
            let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build().expect("client");
            running.spawn(async move {
                for n in 0.. {
                    if shared.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let account = match n % 4 {
                        0 => "hot".to_owned(),
                        _ => format!("acct-{}", (number * 31 + n) % accounts),
                    };
                    shared.post_until_acknowledged(&http, number, &format!("{number}-{n}"), &account).await;
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { shared, running }
    }

    /// Sends all later requests to these instances.
    pub fn point_at(&self, targets: &[String]) {
        *self.shared.targets.lock().unwrap() = targets.to_vec();
    }

    /// Returns the number of acknowledged transactions.
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Returns the number of answers with a status.
    pub fn answers(&self, status: u16) -> usize {
        self.shared.answers.lock().unwrap().get(&status).copied().unwrap_or_default()
    }

    /// Waits until `count` more transactions are acknowledged.
    pub async fn more(&self, count: usize) {
        let wanted = self.count() + count;
        super::eventually("more transactions are acknowledged", async || self.count() >= wanted).await;
    }

    /// Stops the clients. Each completes its last request, within a time limit.
    pub async fn finish(mut self) -> Known {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(DEADLINE * 2, async {
            while let Some(client) = self.running.join_next().await {
                client.expect("no panic");
            }
        });
        if ended.await.is_err() {
            self.shared
                .wrong
                .lock()
                .unwrap()
                .push("a request was not acknowledged within the time limit".into());
        }
        let taken = |map: &Mutex<_>| std::mem::take(&mut *map.lock().unwrap());
        Known {
            acknowledged: taken(&self.shared.acknowledged),
            answers: std::mem::take(&mut *self.shared.answers.lock().unwrap()),
            wrong: std::mem::take(&mut *self.shared.wrong.lock().unwrap()),
        }
    }
}

impl Shared {
    async fn post_until_acknowledged(&self, http: &reqwest::Client, number: usize, key: &str, account: &str) {
        let body = transaction(account, "credit", "1.00", "EUR");
        for attempt in 0.. {
            let target = {
                let targets = self.targets.lock().unwrap();
                targets[(number + attempt) % targets.len()].clone()
            };
            let sent = http.post(format!("{target}/transactions")).header("idempotency-key", key).json(&body);
            let (status, text) = match sent.send().await {
                Ok(answer) => (answer.status().as_u16(), answer.text().await.ok()),
                Err(_) => (0, None),
            };
            *self.answers.lock().unwrap().entry(status).or_default() += 1;
            match (status, text) {
                (201, Some(text)) => return self.acknowledge(key, &text),
                // A replay is right only if an earlier answer was lost.
                (200, Some(text)) if attempt > 0 => return self.acknowledge(key, &text),
                (0 | 200 | 201 | 409 | 503, _) => tokio::time::sleep(RETRY_PAUSE).await,
                (status, text) => {
                    self.wrong.lock().unwrap().push(format!("{key}: {status} {}", text.unwrap_or_default()));
                    return;
                }
            }
        }
    }

    fn acknowledge(&self, key: &str, text: &str) {
        let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let id = json["id"].as_str().unwrap_or_default().to_owned();
        self.acknowledged.lock().unwrap().insert(key.to_owned(), id);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Known {
    /// Returns the differences from the ledger. Each acknowledged key must have its row with the acknowledged id, and no
    /// other row may exist.
    pub async fn differences(&self, database: &TestDatabase) -> Vec<String> {
        let mut differences = self.wrong.clone();
        let client = database.client().await;
        let rows =
            client.query("SELECT idempotency_key, id::text FROM transactions", &[]).await.expect("rows");
        let mut kept: HashMap<String, Vec<String>> = HashMap::new();
        for row in &rows {
            kept.entry(row.get(0)).or_default().push(row.get(1));
        }
        for (key, id) in &self.acknowledged {
            match kept.remove(key) {
                Some(ids) if ids == [id.clone()] => {}
                other => {
                    differences.push(format!("{key} was acknowledged as {id}; the ledger has {other:?}"))
                }
            }
        }
        differences.extend(kept.keys().map(|key| format!("{key} is in the ledger and was not acknowledged")));
        differences
    }
}

/// Waits for a condition and returns how long that took. Panics at the deadline.
pub async fn timed<Looked: Future<Output = bool>>(what: &str, look: impl FnMut() -> Looked) -> Duration {
    let started = Instant::now();
    super::eventually(what, look).await;
    started.elapsed()
}
