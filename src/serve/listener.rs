//! The HTTP server: its listener, its workers, and what they run for each connection.
//!
//! It is put together as [`actix_web::HttpServer`] does it, but with connections of our own: see [`Connection`].

use std::{fmt, net::SocketAddr};

use actix_http::{HttpService, Request, Response};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::{body::MessageBody, dev::AppConfig};
use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{connection::Connection, whole_seconds};
use crate::config::Serve;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How long what was not read of a refused body is thrown away before the connection is closed over it.
const DISCONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Binds the address and makes a server of it, which runs once it is polled. `app` makes the application of one worker.
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
        .shutdown_timeout(whole_seconds(config.shutdown_timeout))
        .disable_signals();
    let shutdown = builder.graceful_shutdown_signal();
    let (keep_alive, client_timeout) = (config.keep_alive, config.client_timeout);
    let of_worker = move || {
        let shutdown = shutdown.clone();
        let app = app().into_factory().map_err(|error| error.into().error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let shutdown = shutdown.clone();
                async move { shutdown.notified().await }
            })
            .keep_alive(keep_alive)
            .client_request_timeout(client_timeout)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .local_addr(address)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.turn());
            })
            .h1(map_config(app, |()| AppConfig::default()));
        fn_service(move |stream: TcpStream| async move {
            let peer = stream.peer_addr().ok();
            // Pipelined answers are small and follow each other at once.
            let _ = stream.set_nodelay(true);
            Ok((Connection::new(stream, client_timeout), peer))
        })
        .and_then(http)
    };
    Ok((address, builder.listen("http", listener.into_std()?, of_worker)?.run()))
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
