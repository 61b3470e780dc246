//! Clients that post as fast as they are answered, and a comparison of their answers with the ledger.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use tokio::task::JoinSet;

use super::{
    api::{Api, transaction},
    eventually,
    postgres::TestDatabase,
};

/// The number of clients.
pub const CLIENTS: u32 = 16;

/// The acknowledged id of each key that was sent, or None.
pub type Known = Arc<Mutex<HashMap<String, Option<String>>>>;

/// Running clients.
pub struct Load {
    known: Known,
    pub stop: Arc<AtomicBool>,
    pub acknowledged: Arc<AtomicU32>,
    clients: JoinSet<()>,
}

/// Starts the clients. A client stops at the first request without an answer.
pub fn load(url: &str) -> Load {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let known = Known::default();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU32::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (known, stop, acknowledged) = (Arc::clone(&known), Arc::clone(&stop), Arc::clone(&acknowledged));
        let (url, http) = (format!("{url}/transactions"), reqwest::Client::new());
        clients.spawn(async move {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{number}-{n}");
                known.lock().unwrap().insert(key.clone(), None);
                let body = transaction(&format!("a{}", (number + n) % 5), "credit", "1.00", "EUR");
                let sent = http.post(&url).header("idempotency-key", &key).json(&body).send().await;
                let Ok(answer) = sent else { break };
                let status = answer.status().as_u16();
                let Ok(text) = answer.text().await else { break };
                assert!([201, 503].contains(&status), "{status}: {text}");
                if status == 201 {
                    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                    known.lock().unwrap().insert(key, Some(json["id"].as_str().unwrap().to_owned()));
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    Load { known, stop, acknowledged, clients }
}

impl Load {
    pub async fn until_acknowledged(&self, count: u32) {
        eventually("acknowledged transactions", async || self.acknowledged.load(Ordering::Relaxed) >= count)
            .await;
    }

    pub async fn ended(mut self) -> HashMap<String, Option<String>> {
        while let Some(client) = self.clients.join_next().await {
            client.expect("a client got expected answers only");
        }
        Arc::try_unwrap(self.known).expect("the clients have ended").into_inner().unwrap()
    }
}

async fn ids(database: &TestDatabase) -> HashMap<String, String> {
    let client = database.client().await;
    let rows = client.query("SELECT idempotency_key, id::text FROM transactions", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Checks that each acknowledged row exists. Then sends every key again and checks that each row exists once, and that
/// acknowledged rows are unchanged.
pub async fn nothing_is_lost_or_doubled(database: &TestDatabase, known: &HashMap<String, Option<String>>) {
    let kept = ids(database).await;
    let acknowledged: Vec<_> = known.iter().filter_map(|(key, id)| Some((key, id.as_ref()?))).collect();
    assert!(!acknowledged.is_empty());
    for (key, id) in &acknowledged {
        assert_eq!(kept.get(*key), Some(*id), "an acknowledged transaction is in the ledger");
    }
    let api = Api::on(TestDatabase::at(&database.url), &[]).await;
    for key in known.keys() {
        let (number, n) = key.split_once('-').unwrap();
        let account = (number.parse::<u32>().unwrap() + n.parse::<u32>().unwrap()) % 5;
        let answer = api.post(key, &transaction(&format!("a{account}"), "credit", "1.00", "EUR")).await;
        let expected = if kept.contains_key(key) { 200 } else { 201 };
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    let count = known.len().to_string();
    assert_eq!(database.value("SELECT count(*) FROM transactions").await, count);
    assert_eq!(database.value("SELECT count(*) FROM outbox").await, count);
    assert_eq!(database.value("SELECT count(DISTINCT event_id) FROM outbox").await, count);
    let inconsistent = "SELECT count(*) FROM accounts a
        LEFT JOIN (SELECT account_id, sum(amount) AS total, count(*) AS rows FROM transactions GROUP BY 1) t USING (account_id)
        WHERE a.balance IS DISTINCT FROM t.total OR a.account_seq IS DISTINCT FROM t.rows";
    assert_eq!(database.value(inconsistent).await, "0");
}
