//! A TCP proxy that causes network faults on command: it delays bytes, holds them back, discards them, or cuts all
//! connections at once or after a number of bytes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
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

/// A proxy between a client and a server on this machine. It ends when it is dropped.
pub struct Proxy {
    /// The address for clients.
    pub address: SocketAddr,
    faults: Arc<Faults>,
    held: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

struct Faults {
    server: Mutex<SocketAddr>,
    discards: AtomicBool,
    latency_ms: AtomicU64,
    /// The number of bytes to the server after which all connections are cut. Negative for no limit.
    bytes_left: AtomicI64,
    /// Whether a cut connection ends with an RST instead of a FIN.
    resets: AtomicBool,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Forwards to `server`. If the server sends its own address to clients, as Kafka's metadata does, the proxy replaces
    /// it by its own address, so that clients connect through the proxy again.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let faults = Arc::new(Faults {
            server: Mutex::new(server),
            discards: AtomicBool::new(false),
            latency_ms: AtomicU64::new(0),
            bytes_left: AtomicI64::new(-1),
            resets: AtomicBool::new(false),
            cuts: watch::channel(0).0,
        });
        let (held, is_held) = watch::channel(false);
        let shared = Arc::clone(&faults);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(Arc::clone(&shared), client, address, is_held.clone()));
            }
        });
        Self { address, faults, held, accepting }
    }

    /// Forwards later connections to another server.
    pub fn point_at(&self, server: SocketAddr) {
        *self.faults.server.lock().expect("not poisoned") = server;
    }

    /// Discards all bytes and keeps the connections open, or forwards bytes again.
    pub fn swallow(&self, on: bool) {
        self.faults.discards.store(on, Ordering::Relaxed);
    }

    /// Holds all bytes back, as a network without a route does, or delivers them again.
    pub fn hold(&self, on: bool) {
        self.held.send_replace(on);
    }

    /// Delays each piece of bytes, in both directions.
    pub fn slow(&self, latency: Duration) {
        let ms = u64::try_from(latency.as_millis()).expect("short");
        self.faults.latency_ms.store(ms, Ordering::Relaxed);
    }

    /// Cuts all connections. New connections are accepted.
    pub fn cut(&self) {
        self.faults.resets.store(false, Ordering::Relaxed);
        self.faults.cut();
    }

    /// Cuts all connections like [`Self::cut`], with an RST for the client.
    pub fn reset(&self) {
        self.faults.resets.store(true, Ordering::Relaxed);
        self.faults.cut();
    }

    /// Cuts all connections after `bytes` more bytes to the server, even in the middle of a request.
    pub fn cut_after(&self, bytes: u32) {
        self.faults.bytes_left.store(i64::from(bytes), Ordering::Relaxed);
    }

    /// Ends all faults. Open connections stay.
    pub fn heal(&self) {
        self.swallow(false);
        self.hold(false);
        self.slow(Duration::ZERO);
        self.faults.bytes_left.store(-1, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Faults {
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Returns how many of these bytes are still forwarded to the server.
    fn allowed(&self, bytes: usize) -> usize {
        let bytes = i64::try_from(bytes).expect("a buffer");
        let left = self.bytes_left.load(Ordering::Relaxed);
        if left < 0 || left > bytes {
            if left > 0 {
                self.bytes_left.fetch_sub(bytes, Ordering::Relaxed);
            }
            return usize::try_from(bytes).expect("a buffer");
        }
        self.bytes_left.store(-1, Ordering::Relaxed);
        usize::try_from(left).expect("a buffer")
    }
}

/// The spellings of an address.
type Spellings = [Vec<u8>; 2];

/// Returns an address as the Kafka protocol writes it, once with the IP address and once with the name: the host, then
/// the port in four bytes.
fn spellings(address: SocketAddr) -> Spellings {
    [address.ip().to_string(), "localhost".to_owned()]
        .map(|host| [host.as_bytes(), &u32::from(address.port()).to_be_bytes()].concat())
}

async fn connect(faults: Arc<Faults>, client: TcpStream, address: SocketAddr, held: watch::Receiver<bool>) {
    let server = *faults.server.lock().expect("not poisoned");
    let cut = faults.cuts.subscribe();
    let Ok(upstream) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    let there = Pipe { from: from_client, to: to_server, translation: None };
    let back =
        Pipe { from: from_server, to: to_client, translation: Some([spellings(server), spellings(address)]) };
    tokio::spawn(there.forward(Arc::clone(&faults), cut.clone(), held.clone()));
    tokio::spawn(back.forward(faults, cut, held));
}

/// One direction of a connection. The other direction ends with it, because the halves that it drops close both ends.
struct Pipe {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// The address of the server and of the proxy, if addresses are replaced on the way to the client.
    translation: Option<[Spellings; 2]>,
}

impl Pipe {
    async fn forward(
        mut self,
        faults: Arc<Faults>,
        mut cut: watch::Receiver<u64>,
        mut held: watch::Receiver<bool>,
    ) {
        tokio::select! {
            () = self.pump(&faults, &mut held) => {}
            _ = cut.changed() => {}
        }
        if faults.resets.load(Ordering::Relaxed) && self.translation.is_some() {
            let client: &TcpStream = self.to.as_ref();
            let _ = client.set_zero_linger();
        }
    }

    /// Forwards until one side closes.
    async fn pump(&mut self, faults: &Faults, held: &mut watch::Receiver<bool>) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = self.from.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            if faults.discards.load(Ordering::Relaxed) {
                continue;
            }
            let latency = Duration::from_millis(faults.latency_ms.load(Ordering::Relaxed));
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            if held.wait_for(|held| !held).await.is_err() {
                return;
            }
            let allowed = if self.translation.is_none() { faults.allowed(read) } else { read };
            let bytes = &mut buffer[..allowed];
            if let Some([server, proxy]) = &self.translation {
                server.iter().zip(proxy).for_each(|(server, proxy)| translate(bytes, server, proxy));
            }
            if self.to.write_all(bytes).await.is_err() {
                return;
            }
            if allowed < read {
                faults.cut();
                return;
            }
        }
    }
}

/// Replaces the server's address by the proxy's. Both have the same length: the same host and a port of four bytes.
fn translate(bytes: &mut [u8], server: &[u8], proxy: &[u8]) {
    let positions: Vec<usize> = (0..bytes.len().saturating_sub(server.len() - 1))
        .filter(|at| bytes[*at..].starts_with(server))
        .collect();
    for at in positions {
        bytes[at..at + proxy.len()].copy_from_slice(proxy);
    }
}
