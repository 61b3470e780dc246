//! The admin listener of every role: `/livez` (the process answers), `/readyz` (the role can do its work, this machine's
//! clock is right, and the process is not stopping) and `/metrics` (Prometheus text).

use std::{net::SocketAddr, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, http::header, web};
use anyhow::Context as _;

use super::Context;
use crate::config::Listen;

/// The interval at which the recorder drains its histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A running admin listener.
pub struct AdminListener {
    /// The address that it listens on. None if it is off.
    pub address: Option<SocketAddr>,
    handle: Option<ServerHandle>,
}

impl AdminListener {
    /// Closes the listener at once.
    pub async fn stop(&self) {
        if let Some(handle) = &self.handle {
            handle.stop(false).await;
        }
    }
}

/// Starts the listener on `admin.listen`.
pub fn start_admin(context: &Context) -> anyhow::Result<AdminListener> {
    let Listen::On(address) = context.config.admin.listen else {
        return Ok(AdminListener { address: None, handle: None });
    };
    let state = web::Data::new(context.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .route("/livez", web::get().to(|| async { HttpResponse::Ok().body("ok\n") }))
            .route("/readyz", web::get().to(ready))
            .route("/metrics", web::get().to(metrics))
    })
    .workers(1)
    .disable_signals()
    .client_request_timeout(CLIENT_TIMEOUT)
    .bind(address)
    .with_context(|| format!("cannot listen on {address} (admin.listen); choose another port, or `off`"))?;
    let address = server.addrs().first().copied();
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    tokio::spawn(upkeep(context.clone()));
    Ok(AdminListener { address, handle: Some(handle) })
}

async fn ready(context: web::Data<Context>) -> HttpResponse {
    if context.stop.is_requested() {
        HttpResponse::ServiceUnavailable().body("stopping\n")
    } else if let Some(problem) = context.clock.problem() {
        HttpResponse::ServiceUnavailable().body(format!("not ready: {problem}\n"))
    } else if context.health.is_ready() {
        HttpResponse::Ok().body("ready\n")
    } else {
        HttpResponse::ServiceUnavailable().body("not ready\n")
    }
}

async fn metrics(context: web::Data<Context>) -> HttpResponse {
    metrics_process::Collector::default().collect();
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(context.metrics.render())
}

async fn upkeep(context: Context) {
    metrics_process::Collector::default().describe();
    while !context.stop.is_requested() {
        context.metrics.run_upkeep();
        tokio::select! {
            () = tokio::time::sleep(UPKEEP_INTERVAL) => {}
            () = context.stop.requested() => {}
        }
    }
}
