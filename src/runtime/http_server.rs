//! The HTTP server of the API and of the admin listeners: the listener, its worker threads and its connections.
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
//! - [`OpenConnections`] bounds the connections in all and of each peer. The idlest one makes room for a new one.
//! - Bytes that are not valid HTTP are counted. The log has a line at debug level; the error lines of actix-http about
//!   them are off (`runtime/telemetry.rs`), because any client could fill the log with them.
//!
//! # How to delete the folder
//!
//! When actix-http keeps these values for each request, [`listen`] becomes `HttpServer::new(app)` with the same
//! settings, and `connection`, `answers` and `framing` go, with the dependencies actix-http, actix-service and httparse.
//! The tests of pipelining in `tests/sockets.rs` stay. The limits of connections need a place of their own then: a
//! connection must still be told to close.

mod answers;
mod connection;
mod framing;
mod host_check;
mod open_connections;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use actix_http::{
    HttpService, Request, Response,
    error::{DispatchError, ParseError},
};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory, fn_service,
    map_config,
};
use actix_web::{body::MessageBody, dev::AppConfig};
use anyhow::Context as _;
use metrics::Counter;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::{answers::AnswerTracker, connection::ClientConnection, open_connections::OpenConnections};

pub use self::{
    host_check::HostCheck,
    open_connections::{ConnectionLimits, peer_network},
};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How long the server discards the rest of a refused body before it closes the connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections above their limit for which the process must have files to spare: those that were accepted and not
/// yet counted, and those that make room and are not yet closed.
pub const CONNECTIONS_SPARE: usize = 64;

/// The settings of a listener.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The name of the listener in metrics and messages.
    pub listener: &'static str,
    /// The address.
    pub listen: SocketAddr,
    /// The configuration key of the address.
    pub listen_key: &'static str,
    /// The remedy if the address is in use.
    pub listen_remedy: &'static str,
    /// The number of worker threads; 0 for one per core.
    pub workers: usize,
    /// The largest numbers of open connections.
    pub connections: ConnectionLimits,
    /// How long an idle connection is kept for the next request.
    pub keep_alive: Duration,
    /// The limit for receiving the head of the first request, and for the rest of a refused body.
    pub client_timeout: Duration,
    /// The limit for finishing accepted requests at shutdown.
    pub shutdown_timeout: Duration,
}

/// Binds the address and builds a server, which runs when it is polled. `app` builds the application of one worker.
pub fn listen<F, I, S, B>(settings: &HttpSettings, app: F) -> anyhow::Result<(SocketAddr, Server)>
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
    let HttpSettings { listener, listen, listen_key, listen_remedy, keep_alive, client_timeout, .. } =
        *settings;
    let socket =
        bind(listen).with_context(|| format!("cannot listen on {listen} ({listen_key}); {listen_remedy}"))?;
    let address = socket.local_addr().context("the listener has no address")?;
    let workers = worker_threads(settings.workers);
    let open = OpenConnections::new(listener, settings.connections);
    let malformed = metrics::counter!("ledger_http_malformed_requests_total", "listener" => listener);
    let builder = Server::build()
        .workers(workers)
        // Accepting pauses here, so that a burst of new connections cannot use up the files of the process.
        .max_concurrent_connections((settings.connections.all + CONNECTIONS_SPARE).div_ceil(workers))
        .shutdown_timeout(rounded_up_seconds(settings.shutdown_timeout))
        .disable_signals();
    let shutdown = builder.graceful_shutdown_signal();
    let worker_factory = move || {
        let (shutdown, open, malformed) = (shutdown.clone(), Arc::clone(&open), malformed.clone());
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
            .h1(apply_fn_factory(app, answer))
            .map_err(move |error| report(listener, &malformed, error));
        fn_service(move |stream: TcpStream| {
            let open = Arc::clone(&open);
            async move { admit(stream, &open, client_timeout) }
        })
        .and_then(http)
    };
    Ok((address, builder.listen("http", socket.into_std()?, worker_factory)?.run()))
}

/// Counts a new connection, or closes it.
fn admit(
    stream: TcpStream,
    open: &Arc<OpenConnections>,
    client_timeout: Duration,
) -> Result<(ClientConnection, Option<SocketAddr>), DispatchError> {
    let peer = stream.peer_addr()?;
    let refused = io::ErrorKind::ConnectionRefused;
    let open = open.admit(peer.ip()).ok_or_else(|| DispatchError::Io(refused.into()))?;
    // Answers are small and follow each other closely, so Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    Ok((ClientConnection::new(stream, open, client_timeout), Some(peer)))
}

/// Reports why the HTTP library ended a connection.
fn report(listener: &'static str, malformed: &Counter, error: DispatchError) -> DispatchError {
    match &error {
        // The client is gone, or was too slow.
        DispatchError::Io(_)
        | DispatchError::Parse(ParseError::Io(_))
        | DispatchError::SlowRequestTimeout
        | DispatchError::DisconnectTimeout => {}
        DispatchError::Parse(why) => {
            malformed.increment(1);
            tracing::debug!(listener, %why, "a request was not valid HTTP");
        }
        _ => tracing::error!(listener, %error, "the HTTP library ended a connection, which is a bug"),
    }
    error
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

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
