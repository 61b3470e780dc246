//! The admin listener of every role: `/livez` (the process answers), `/readyz` (the role can do its work, this machine's
//! clock is right, and the process is not stopping) and `/metrics` (Prometheus text). Its connections are few, and the
//! clients of the API cannot use them up.

use std::{net::SocketAddr, time::Duration};

use actix_web::{
    App, Error, HttpResponse,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServerHandle, ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    web,
};

use super::{
    Context,
    exposition::exposition,
    http_server::{self, CONNECTIONS_SPARE, ConnectionLimits, HostCheck, HttpSettings},
};
use crate::config::Listen;

/// The interval at which the recorder drains its histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Far more than probes and scrapers open.
const CONNECTIONS_MAX: usize = 64;
/// The files that an admin listener may use.
pub const ADMIN_FILES_MAX: usize = CONNECTIONS_MAX + CONNECTIONS_SPARE;

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
    let Listen::On(listen) = context.config.admin.listen else {
        return Ok(AdminListener { address: None, handle: None });
    };
    let settings = HttpSettings {
        listener: "admin",
        listen,
        listen_key: "admin.listen",
        listen_remedy: "choose another port, or `off`",
        workers: 1,
        connections: ConnectionLimits { all: CONNECTIONS_MAX, per_peer: CONNECTIONS_MAX },
        keep_alive: KEEP_ALIVE,
        client_timeout: CLIENT_TIMEOUT,
        shutdown_timeout: Duration::ZERO,
    };
    let state = web::Data::new(context.clone());
    let hosts = HostCheck::new(listen, "admin.allowed_hosts", &context.config.admin.allowed_hosts);
    let (address, server) = http_server::listen(&settings, move || {
        App::new()
            .app_data(state.clone())
            .app_data(hosts.clone())
            .route("/livez", web::get().to(|| async { HttpResponse::Ok().body("ok\n") }))
            .route("/readyz", web::get().to(ready))
            .route("/metrics", web::get().to(metrics))
            .wrap(from_fn(check_host))
    })?;
    let handle = server.handle();
    tokio::spawn(server);
    tokio::spawn(upkeep(context.clone()));
    Ok(AdminListener { address: Some(address), handle: Some(handle) })
}

/// Passes a request on, or answers 421 if a foreign web page may have sent it.
async fn check_host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody, BoxBody>>, Error> {
    let refused = request.app_data::<HostCheck>().and_then(|hosts| hosts.refusal(request.headers()));
    match refused {
        Some(why) => {
            let answer = HttpResponse::build(StatusCode::MISDIRECTED_REQUEST).body(why + "\n");
            Ok(request.into_response(answer).map_into_right_body())
        }
        None => Ok(next.call(request).await?.map_into_left_body()),
    }
}

async fn ready(context: web::Data<Context>) -> HttpResponse {
    match not_ready(&context) {
        None => HttpResponse::Ok().body("ready\n"),
        Some(why) => HttpResponse::ServiceUnavailable().body(why + "\n"),
    }
}

/// Returns why the role cannot do its work now.
fn not_ready(context: &Context) -> Option<String> {
    if context.stop.is_requested() {
        Some("stopping".to_owned())
    } else if let Some(problem) = context.clock.problem() {
        Some(format!("not ready: {problem}"))
    } else if let Some(activity) = context.health.failing() {
        Some(format!("not ready: {activity} fails; the log says why"))
    } else {
        (!context.health.is_ready()).then(|| "not ready".to_owned())
    }
}

async fn metrics(context: web::Data<Context>) -> HttpResponse {
    let is_ready = not_ready(&context).is_none();
    metrics::gauge!("ledger_ready").set(if is_ready { 1.0 } else { 0.0 });
    context.clock.report_offset();
    metrics_process::Collector::default().collect();
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(exposition(&context.metrics.render()))
}

async fn upkeep(context: Context) {
    while !context.stop.is_requested() {
        context.metrics.run_upkeep();
        tokio::select! {
            () = tokio::time::sleep(UPKEEP_INTERVAL) => {}
            () = context.stop.requested() => {}
        }
    }
}
