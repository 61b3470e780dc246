//! The HTTP API: validates requests, passes postings to the group-commit writers, and answers reads.
//!
//! ```text
//! client ──▶ http_server ──▶ middleware: cors, observe, rate limit, compression ──▶ handler
//!                                                                              │
//!                 transactions, batch, reversal ── ApiState::post ──▶ writers ─┤──▶ PostgreSQL
//!                 balances ─────────────────────── AccountReads ───────────────┤
//!                 lists, look-ups ──────────────── ApiState::read ─────────────┘
//! ```
//!
//! # Guarantees
//!
//! - A 201 is sent after the commit, never before it.
//! - Unknown routes, methods, fields and query parameters are refused.
//! - A web page of another site can neither write nor read, unless the configuration names its origin: every request that
//!   writes must be declared as JSON, which browsers send for other sites only after asking, and a loopback address
//!   answers only to its own names (`runtime/http_server/host_check.rs`).
//!
//! # Deliberately absent
//!
//! Authentication. It belongs to the proxy in front of `serve`.

mod account_reads;
mod accounts;
mod assessments;
mod batch;
mod body;
mod compression;
mod connection_limits;
mod cors;
mod cursor;
mod docs;
mod input;
mod observe;
mod openapi;
mod output;
mod pooled_read;
mod problem;
mod query;
mod rate_limit;
mod reversal;
mod state;
mod transactions;
mod writer;

use std::net::SocketAddr;

use actix_web::{
    App, Resource,
    dev::ServerHandle,
    middleware::{Condition, from_fn},
    web,
};
use anyhow::Context as _;
use tokio::task::{JoinHandle, JoinSet};

use self::{
    connection_limits::connection_limits,
    problem::{Problem, ProblemKind},
    state::ApiState,
    writer::Writers,
};
use crate::{
    config::Serve,
    repository,
    runtime::{
        AdminListener, Boot, Context, StartDetails,
        http_server::{self, ConnectionLimits, HttpSettings},
        open_files_max,
    },
};

pub use openapi::description;

/// A running API.
pub struct Running {
    address: SocketAddr,
    admin: AdminListener,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
    writers: JoinSet<()>,
    context: Context,
}

/// Serves requests until the process is asked to stop.
pub async fn run(context: Context) -> anyhow::Result<()> {
    start(&context).await?.stopped().await
}

/// Starts the writers and the HTTP server. The API answers requests when this returns.
pub async fn start(context: &Context) -> anyhow::Result<Running> {
    let config = &context.config;
    let settings = http_settings(&config.serve, connection_limits(config, open_files_max())?);
    let boot = Boot::new(context, "serve");
    drop(boot.connect_to_write().await?);
    let pool = repository::pool(&config.database, "serve reader")?;
    let (writers, writers_running) = Writers::start(context).context("cannot start the writers")?;
    let state = web::Data::new(ApiState::new(context, writers, pool));
    let limiter = web::Data::new(rate_limit::RateLimit::new(&config.serve));
    let limited = limiter.is_some();
    let serve = config.serve.clone();
    let (address, server) = http_server::listen(&settings, move || {
        let docs = serve.docs;
        App::new()
            .app_data(state.clone())
            .app_data(limiter.clone())
            .app_data(observe::RequestMetrics::default())
            .configure(move |routes| register(routes, docs))
            .wrap(from_fn(compression::compress))
            .wrap(Condition::new(limited, from_fn(rate_limit::limit)))
            .wrap(from_fn(observe::observe))
            .wrap(Condition::new(!serve.cors_origins.is_empty(), cors::cors(&serve.cors_origins)))
    })?;
    let handle = server.handle();
    let admin = boot.started(StartDetails {
        listen: Some(address),
        connections_max: Some(settings.connections.all),
        off: off(&config.serve),
        ..StartDetails::default()
    })?;
    observe::start_counters();
    context.health.set_ready(true);
    Ok(Running {
        address,
        admin,
        handle,
        server: tokio::spawn(server),
        writers: writers_running,
        context: context.clone(),
    })
}

fn http_settings(config: &Serve, connections: ConnectionLimits) -> HttpSettings {
    HttpSettings {
        listener: "api",
        listen: config.listen,
        listen_key: "serve.listen",
        listen_remedy: "choose another port",
        workers: config.workers,
        connections,
        keep_alive: config.keep_alive,
        client_timeout: config.client_timeout,
        shutdown_timeout: config.shutdown_timeout,
    }
}

/// Returns the features that are switched off.
fn off(config: &Serve) -> Vec<&'static str> {
    let features = [
        ("rate_limit", config.rate_limit == 0),
        ("server_timing", !config.server_timing),
        ("cors", config.cors_origins.is_empty()),
        ("docs", !config.docs),
    ];
    features.into_iter().filter(|(_, is_off)| *is_off).map(|(name, _)| name).collect()
}

impl Running {
    /// Returns the address that the API listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a stop is requested or a part fails, and then until every accepted request is answered or the
    /// shutdown times out.
    pub async fn stopped(mut self) -> anyhow::Result<()> {
        let outcome = self.drained().await;
        self.admin.stop().await;
        outcome
    }

    async fn drained(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        tokio::select! {
            () = self.context.stop.requested() => {}
            ended = &mut self.server => {
                ended.context("the HTTP server ended")??;
                anyhow::bail!("the HTTP server ended unexpectedly");
            }
            // Without its writer, the requests of some accounts would fail for ever. A new process starts all writers.
            Some(_) = self.writers.join_next() => outcome = Err(anyhow::anyhow!("a writer ended unexpectedly")),
        }
        self.context.health.set_ready(false);
        self.handle.stop(true).await;
        (&mut self.server).await.context("the HTTP server ended")??;
        // The HTTP workers held the last handles of the writers, which now empty their queues and end.
        let drained = async { while self.writers.join_next().await.is_some() {} };
        if tokio::time::timeout(self.context.config.serve.shutdown_timeout, drained).await.is_err() {
            tracing::warn!(
                "shutdown timed out while requests waited for their commit; their clients got no answer"
            );
        }
        outcome
    }
}

/// Registers the routes. Each lists its methods, so that any other method gets 405 with `Allow`. HEAD is GET without the
/// body.
fn register(config: &mut web::ServiceConfig, docs: bool) {
    register_index(config, docs);
    if docs {
        register_docs(config);
    }
    register_api(config);
}

/// Registers `GET /`, which leads to the page to try the API, or else to its description.
fn register_index(config: &mut web::ServiceConfig, docs: bool) {
    let target = if docs { docs::PAGE } else { docs::DESCRIPTION };
    let answer = move |request| docs::redirect(request, target);
    config.service(
        resource("/")
            .route(web::get().to(answer))
            .route(web::head().to(answer))
            .default_service(only("GET, HEAD")),
    );
}

/// Registers the page to try the API.
fn register_docs(config: &mut web::ServiceConfig) {
    let answer = |request| docs::redirect(request, docs::PAGE);
    config
        .service(
            resource("/docs")
                .route(web::get().to(answer))
                .route(web::head().to(answer))
                .default_service(only("GET, HEAD")),
        )
        .service(
            resource("/docs/{file:.*}")
                .route(web::get().to(docs::file))
                .route(web::head().to(docs::file))
                .default_service(only("GET, HEAD")),
        );
}

fn register_api(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/transactions")
                .route(web::post().to(transactions::create_transaction))
                .route(web::get().to(transactions::list_transactions))
                .route(web::head().to(transactions::list_transactions))
                .default_service(only("GET, HEAD, POST")),
        )
        .service(
            resource("/transactions/batch")
                .route(web::post().to(batch::create_batch))
                .default_service(only("POST")),
        )
        .service(
            resource("/transactions/{id}/reversal")
                .route(web::post().to(reversal::reverse_transaction))
                .default_service(only("POST")),
        )
        .service(
            resource("/transactions/{id}")
                .route(web::get().to(transactions::find_transaction))
                .route(web::head().to(transactions::find_transaction))
                .default_service(only("GET, HEAD")),
        )
        .service(
            resource("/accounts")
                .route(web::get().to(accounts::list_accounts))
                .route(web::head().to(accounts::list_accounts))
                .default_service(only("GET, HEAD")),
        )
        .service(
            resource("/accounts/{id}")
                .route(web::get().to(accounts::find_account))
                .route(web::head().to(accounts::find_account))
                .route(web::put().to(accounts::put_account))
                .default_service(only("GET, HEAD, PUT")),
        )
        .service(
            resource("/accounts/{id}/balance")
                .route(web::get().to(accounts::find_balance))
                .route(web::head().to(accounts::find_balance))
                .default_service(only("GET, HEAD")),
        )
        .service(
            resource("/risk-assessments")
                .route(web::get().to(assessments::list_assessments))
                .route(web::head().to(assessments::list_assessments))
                .default_service(only("GET, HEAD")),
        )
        .service(
            resource("/openapi.json")
                .route(web::get().to(docs::openapi))
                .route(web::head().to(docs::openapi))
                .default_service(only("GET, HEAD")),
        )
        .default_service(web::to(|| async {
            Err::<String, _>(Problem::new(
                ProblemKind::NotFound,
                "this path does not exist; /openapi.json lists the paths of the API",
            ))
        }));
}

/// Returns a resource whose requests are counted under its pattern.
fn resource(pattern: &'static str) -> Resource {
    web::resource(pattern).app_data(observe::RoutePattern(pattern))
}

/// Answers 405 with the allowed methods.
fn only(allow: &'static str) -> actix_web::Route {
    web::to(move || async move { Err::<String, _>(Problem::method_not_allowed(allow)) })
}
