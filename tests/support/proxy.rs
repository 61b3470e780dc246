//! A TCP proxy that fails on command: forwards, holds everything back, swallows everything (a black hole), slows down,
//! cuts all connections, or cuts them after so many more bytes.

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

/// Between a client and a server on this machine. Ends when dropped.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    faults: Arc<Faults>,
    held: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

struct Faults {
    server: Mutex<SocketAddr>,
    hole: AtomicBool,
    latency_ms: AtomicU64,
    /// Bytes to the server until all connections are cut; negative: no end.
    bytes_left: AtomicI64,
    /// Whether a cut is an RST instead of a FIN.
    resets: AtomicBool,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Forwards to `server`. Where the server tells clients its own address in bytes, as Kafka's metadata does, they
    /// are told the proxy's instead, so that they come back this way.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let faults = Arc::new(Faults {
            server: Mutex::new(server),
            hole: AtomicBool::new(false),
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

    /// New connections go there from now on.
    pub fn point_at(&self, server: SocketAddr) {
        *self.faults.server.lock().expect("not poisoned") = server;
    }

    /// From now on bytes vanish and connections stay open, or all is well again for new bytes.
    pub fn swallow(&self, on: bool) {
        self.faults.hole.store(on, Ordering::Relaxed);
    }

    /// From now on bytes wait, as where a network has lost its way, and arrive once that is over.
    pub fn hold(&self, on: bool) {
        self.held.send_replace(on);
    }

    /// Each piece of bytes takes so much longer, in each direction.
    pub fn slow(&self, latency: Duration) {
        let ms = u64::try_from(latency.as_millis()).expect("short");
        self.faults.latency_ms.store(ms, Ordering::Relaxed);
    }

    /// Ends all connections; new ones are taken.
    pub fn cut(&self) {
        self.faults.resets.store(false, Ordering::Relaxed);
        self.faults.cut();
    }

    /// The same, and the client is told by an RST.
    pub fn reset(&self) {
        self.faults.resets.store(true, Ordering::Relaxed);
        self.faults.cut();
    }

    /// Cuts once the server was sent so many more bytes, whether a request ends there or not.
    pub fn cut_after(&self, bytes: u32) {
        self.faults.bytes_left.store(i64::from(bytes), Ordering::Relaxed);
    }

    /// No fault any more; connections that there are stay.
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

    /// How many of these bytes still go to the server.
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

/// Its spellings.
type Told = [Vec<u8>; 2];

/// An address as the Kafka protocol writes it, by number and by name: the host, then the port in four bytes.
fn told(address: SocketAddr) -> Told {
    [address.ip().to_string(), "localhost".to_owned()]
        .map(|host| [host.as_bytes(), &u32::from(address.port()).to_be_bytes()].concat())
}

async fn connect(faults: Arc<Faults>, client: TcpStream, address: SocketAddr, held: watch::Receiver<bool>) {
    let server = *faults.server.lock().expect("not poisoned");
    let cut = faults.cuts.subscribe();
    let Ok(upstream) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    let there = Way { from: from_client, to: to_server, translation: None };
    let back = Way { from: from_server, to: to_client, translation: Some([told(server), told(address)]) };
    tokio::spawn(there.forward(Arc::clone(&faults), cut.clone(), held.clone()));
    tokio::spawn(back.forward(faults, cut, held));
}

/// One direction of a connection. The other direction ends with it, because the halves that it drops close both ends.
struct Way {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// What is replaced by what, on the way to the client.
    translation: Option<[Told; 2]>,
}

impl Way {
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

    /// Until one side has closed.
    async fn pump(&mut self, faults: &Faults, held: &mut watch::Receiver<bool>) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = self.from.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            if faults.hole.load(Ordering::Relaxed) {
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

/// Both addresses are of one length: the same host, and a port of four bytes.
fn translate(bytes: &mut [u8], server: &[u8], proxy: &[u8]) {
    let places: Vec<usize> = (0..bytes.len().saturating_sub(server.len() - 1))
        .filter(|at| bytes[*at..].starts_with(server))
        .collect();
    for at in places {
        bytes[at..at + proxy.len()].copy_from_slice(proxy);
    }
}
