//! The HTTP server of `serve`: its listener, its worker threads and its connections.
//!
//! # Why not `actix_web::HttpServer`
//!
//! This folder does the work of [`actix_web::HttpServer`], because actix-http answers pipelined requests wrongly. Its
//! `h1::Codec` keeps three values of the request that it *decoded* last: whether the method is HEAD, the HTTP version
//! and the connection type. The encoder uses them for the request that it *answers*. The dispatcher decodes up to 16
//! pipelined requests ahead, so the values can belong to a later request:
//!
//! - A GET followed by a HEAD is answered without its body, and the client treats the next answer as that body.
//! - A request that asks to keep the connection is answered with `Connection: close`, and the connection closes, if a
//!   later request asks to close it.
//!
//! Found in actix-http 3.20.0 (`src/h1/codec.rs`, `decode` and `encode`); `tests/sockets.rs` shows it.
//!
//! # What the folder does instead
//!
//! ```text
//! client ──bytes──▶ ClientConnection ──one request──▶ actix-http ──▶ answer() ──▶ App
//!                          ▲                                            │
//!                          └──────────── AnswerTracker ◀── answered ────┘
//! ```
//!
//! - [`ClientConnection`] delivers a request to actix-http only when the request before it is answered, so actix-http never
//!   decodes ahead. Later bytes wait in the connection, up to a limit.
//! - `Framing` finds the end of a request in the bytes, where actix-http finds it too.
//! - `answer()`, the service around the application, reports each answer to the connection through `AnswerTracker`.
//!
//! # How to delete the folder
//!
//! When actix-http keeps these values for each request, [`listen`] becomes `HttpServer::new(app)` with the same
//! settings, and the folder goes, with the dependencies actix-http, actix-server, actix-service and httparse. The tests
//! of pipelining in `tests/sockets.rs` stay. Nothing else in `serve` knows of this folder.

mod answers;
mod connection;
mod framing;

use std::{fmt, net::SocketAddr, time::Duration};

use actix_http::{HttpService, Request, Response};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory, fn_service,
    map_config,
};
use actix_web::{body::MessageBody, dev::AppConfig};
use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::{answers::AnswerTracker, connection::ClientConnection};
use crate::config::Serve;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How long the server discards the rest of a refused body before it closes the connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Binds the address and builds a server, which runs when it is polled. `app` builds the application of one worker.
pub(super) fn listen<F, I, S, B>(config: &Serve, app: F) -> anyhow::Result<(SocketAddr, Server)>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let listener = bind(config.listen)
        .with_context(|| format!("cannot listen on {} (serve.listen); choose another port", config.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let builder = Server::build()
        .workers(worker_threads(config.workers))
        .max_concurrent_connections(config.connections_max)
        .shutdown_timeout(rounded_up_seconds(config.shutdown_timeout))
        .disable_signals();
    let shutdown = builder.graceful_shutdown_signal();
    let (keep_alive, client_timeout) = (config.keep_alive, config.client_timeout);
    let worker_factory = move || {
        let shutdown = shutdown.clone();
        let app = app().into_factory().map_err(|error| error.into().error_response());
        let app = map_config(app, |()| AppConfig::default());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let shutdown = shutdown.clone();
                async move { shutdown.notified().await }
            })
            .keep_alive(keep_alive)
            .client_request_timeout(client_timeout)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .local_addr(address)
            .on_connect_ext(|connection: &ClientConnection, data| {
                data.insert(connection.answers());
            })
            .h1(apply_fn_factory(app, answer));
        fn_service(move |stream: TcpStream| async move {
            let peer = stream.peer_addr().ok();
            // Answers are small and follow each other closely, so Nagle's algorithm would only delay them.
            let _ = stream.set_nodelay(true);
            Ok((ClientConnection::new(stream, client_timeout), peer))
        })
        .and_then(http)
    };
    Ok((address, builder.listen("http", listener.into_std()?, worker_factory)?.run()))
}

/// Answers a request and reports the answer to its connection, which then delivers the next request.
fn answer<A: Service<Request>>(
    request: Request,
    app: &A,
) -> impl Future<Output = Result<A::Response, A::Error>> + use<A> {
    let requested = request.head().connection_type();
    let pending = request.conn_data::<AnswerTracker>().map(|answers| answers.begin(requested));
    let answering = app.call(request);
    async move {
        let _pending = pending;
        answering.await
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn worker_threads(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        number => number,
    }
}

/// Returns whole seconds, rounded up.
fn rounded_up_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_second_are_rounded_up() {
        let seconds =
            [0, 1, 500, 1000, 1500, 4000].map(|millis| rounded_up_seconds(Duration::from_millis(millis)));
        assert_eq!(seconds, [0, 1, 1, 1, 2, 4]);
    }
}
