//! A TCP proxy that fails on command: forwards, swallows everything (a black hole), or cuts all connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Between a client and a server on this machine. Ends when dropped.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    hole: Arc<AtomicBool>,
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `server`. Where the server tells clients its own address in bytes, as Kafka's metadata does, they
    /// are told the proxy's instead, so that they come back this way.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let hole = Arc::new(AtomicBool::new(false));
        let (cuts, cut) = watch::channel(0);
        let swallowing = Arc::clone(&hole);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = upstream.into_split();
                let (hole, cut) = (Arc::clone(&swallowing), cut.clone());
                tokio::spawn(forward(from_client, to_server, None, Arc::clone(&hole), cut.clone()));
                let translation = Some((told(server), told(address)));
                tokio::spawn(forward(from_server, to_client, translation, hole, cut));
            }
        });
        Self { address, hole, cuts, accepting }
    }

    /// From now on bytes vanish and connections stay open, or all is well again for new bytes.
    pub fn swallow(&self, on: bool) {
        self.hole.store(on, Ordering::Relaxed);
    }

    /// Ends all connections; new ones are taken.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// An address as the Kafka protocol writes it: the host, then the port in four bytes.
fn told(address: SocketAddr) -> Vec<u8> {
    let mut bytes = address.ip().to_string().into_bytes();
    bytes.extend(u32::from(address.port()).to_be_bytes());
    bytes
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    translation: Option<(Vec<u8>, Vec<u8>)>,
    hole: Arc<AtomicBool>,
    mut cut: watch::Receiver<u64>,
) {
    cut.mark_unchanged();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = cut.changed() => 0,
        };
        if read == 0 {
            return;
        }
        if hole.load(Ordering::Relaxed) {
            continue;
        }
        let bytes = &mut buffer[..read];
        if let Some((server, proxy)) = &translation {
            let places: Vec<usize> = (0..bytes.len().saturating_sub(server.len() - 1))
                .filter(|at| bytes[*at..].starts_with(server))
                .collect();
            for at in places {
                bytes[at..at + proxy.len()].copy_from_slice(proxy);
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
