//! An API that belongs to one test, and a client for it.

use ledger::{runtime::Context, serve};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::postgres::TestDatabase;

/// An API in this process, on a database of its own.
pub struct Api {
    /// Its database.
    pub database: TestDatabase,
    /// `http://127.0.0.1:port`.
    pub url: String,
    context: Context,
    client: reqwest::Client,
    running: JoinHandle<anyhow::Result<()>>,
}

/// An answer with its complete body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub replayed: bool,
    pub content_type: String,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Asserts that the answer is a problem with this status and type.
    pub fn is_problem(&self, status: u16, name: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["type"], format!("urn:ledger:problem:{name}"), "{self:?}");
        assert_eq!(json["status"], status, "{self:?}");
    }

    /// Returns the names of the fields with wrong values.
    pub fn fields(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().expect("a name").to_owned()).collect()
    }
}

impl Api {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(overrides: &[(&str, &str)]) -> Self {
        Self::on(TestDatabase::new().await, overrides).await
    }

    /// Starts another instance on an existing database.
    pub async fn on(database: TestDatabase, overrides: &[(&str, &str)]) -> Self {
        ledger::runtime::raise_open_files_limit();
        let context = database.context_with(overrides);
        let running = serve::start(&context).await.expect("the API starts");
        let url = format!("http://{}", running.address());
        let running = tokio::spawn(running.stopped());
        Self { database, url, context, client: client(), running }
    }

    /// Stops the API as SIGTERM does. Every accepted request is answered before this returns.
    pub async fn stop(self) -> TestDatabase {
        self.context.stop.request();
        self.running.await.expect("no panic").expect("a clean stop");
        self.database
    }

    pub async fn get(&self, path: &str) -> Answer {
        read(self.client.get(format!("{}{path}", self.url)).send().await.expect("an answer")).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request.send().await.expect("an answer")).await
    }

    pub async fn post(&self, key: &str, body: &Value) -> Answer {
        self.post_text(key, &body.to_string()).await
    }

    pub async fn post_text(&self, key: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        self.send("POST", "/transactions", &headers, body.as_bytes().to_vec()).await
    }
}

/// Returns the body of a transaction to post.
pub fn transaction(account: &str, direction: &str, amount: &str, currency: &str) -> Value {
    json!({"account_id": account, "direction": direction, "amount": amount, "currency": currency})
}

/// Returns a client with a time limit.
pub fn client() -> reqwest::Client {
    // The provider is installed once for the process; a second call fails and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(super::DEADLINE).build().expect("client")
}

async fn read(response: Response) -> Answer {
    let status: StatusCode = response.status();
    let headers = response.headers().clone();
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (replayed, content_type) = (text("idempotent-replayed") == "true", text("content-type"));
    let body = response.text().await.expect("a body");
    Answer { status: status.as_u16(), replayed, content_type, headers, body }
}
