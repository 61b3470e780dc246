//! The open connections of a listener, and the limits of their number.
//!
//! - At most [`ConnectionLimits::all`] connections are open, and at most [`ConnectionLimits::per_peer`] of one peer: an
//!   IPv4 address, or an IPv6 /64 network, because one host owns a whole network.
//! - A new connection above a limit takes the place of the idlest one: the connection (of that peer) that has been idle
//!   for longest. If no connection is idle, the new one is closed.
//! - A connection is idle while none of its requests is being answered. A request begins when its head is complete, so a
//!   client that sends half a head is idle too.
//!
//! A request costs two atomic stores and no lock. The connections are sorted by an age that may be out of date; it is
//! brought up to date when the connection turns out to be the first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;
use metrics::{Counter, Gauge};

/// The most connections that are looked at to find the idlest one, so that a new connection costs a bounded time.
const LOOKS_MAX: usize = 256;
/// The log says at most this often that a limit is reached.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// The value of `idle_since_us` while a request is being answered.
const BUSY: u64 = u64::MAX;

/// The largest numbers of open connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The limit for all peers together.
    pub all: usize,
    /// The limit for one peer.
    pub per_peer: usize,
}

/// Microseconds after `started` when a connection became idle, and the number of the connection.
type Age = (u64, u64);

/// The open connections of a listener. All its HTTP workers share them.
pub(super) struct OpenConnections {
    listener: &'static str,
    limits: ConnectionLimits,
    started: Instant,
    state: Mutex<State>,
    metrics: ConnectionMetrics,
}

#[derive(Default)]
struct State {
    /// The idlest connection comes first, unless its age is out of date.
    by_age: BTreeMap<Age, Entry>,
    /// The ages of each peer's connections.
    peers: HashMap<IpAddr, BTreeSet<Age>>,
    opened: u64,
    warned_at: Option<Instant>,
}

#[derive(Clone)]
struct Entry {
    peer: IpAddr,
    activity: Arc<Activity>,
}

/// The state of a connection that its HTTP worker writes and other workers read.
#[derive(Debug)]
pub(super) struct Activity {
    started: Instant,
    /// Microseconds after `started`, or [`BUSY`].
    idle_since_us: AtomicU64,
    /// The age under which the connection is sorted. Changed only under the lock of the connections.
    sorted_us: AtomicU64,
    /// The connection must close, because another one takes its place.
    is_shed: AtomicBool,
    waker: AtomicWaker,
}

/// A connection that counts as open until this is dropped.
pub(super) struct OpenConnection {
    connections: Arc<OpenConnections>,
    activity: Arc<Activity>,
    number: u64,
}

struct ConnectionMetrics {
    open: Gauge,
    shed: [Counter; 2],
    refused: [Counter; 2],
}

/// The limit that a new connection would exceed.
#[derive(Clone, Copy)]
enum Limit {
    All,
    Peer,
}

impl OpenConnections {
    /// Creates the connections of a listener that has none yet.
    pub(super) fn new(listener: &'static str, limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            listener,
            limits,
            started: Instant::now(),
            state: Mutex::default(),
            metrics: ConnectionMetrics::new(listener),
        })
    }

    /// Counts a new connection. At a limit, the idlest connection is closed for it. Returns None if no connection is
    /// idle.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<OpenConnection> {
        let peer = peer_network(address);
        let mut state = self.lock();
        let now_us = micros_since(self.started);
        if let Some(limit) = state.exceeded(self.limits, peer) {
            let of_peer = matches!(limit, Limit::Peer).then_some(peer);
            let idlest = state.take_idlest(of_peer, now_us);
            self.report(&mut state, limit, peer, idlest.is_some());
            idlest?.shed();
        }
        state.opened += 1;
        let number = state.opened;
        let activity = Arc::new(Activity::new(self.started, now_us));
        state.insert((now_us, number), Entry { peer, activity: Arc::clone(&activity) });
        self.metrics.set_open(state.by_age.len());
        drop(state);
        Some(OpenConnection { connections: Arc::clone(self), activity, number })
    }

    /// Counts a connection that a limit closes, and logs the limit now and then.
    fn report(&self, state: &mut State, limit: Limit, peer: IpAddr, is_shed: bool) {
        let counters = if is_shed { &self.metrics.shed } else { &self.metrics.refused };
        let [all, of_peer] = counters;
        let (counter, limit) = match limit {
            Limit::All => (all, self.limits.all),
            Limit::Peer => (of_peer, self.limits.per_peer),
        };
        counter.increment(1);
        if state.warned_at.is_some_and(|at| at.elapsed() < WARNING_INTERVAL) {
            return;
        }
        state.warned_at = Some(Instant::now());
        let (listener, open) = (self.listener, state.by_age.len());
        tracing::warn!(
            listener, open, limit, %peer,
            "the limit of open connections is reached; each new one closes the idlest one, or is closed if none is idle"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn exceeded(&self, limits: ConnectionLimits, peer: IpAddr) -> Option<Limit> {
        if self.peers.get(&peer).is_some_and(|ages| ages.len() >= limits.per_peer) {
            return Some(Limit::Peer);
        }
        (self.by_age.len() >= limits.all).then_some(Limit::All)
    }

    /// Removes the connection, of all or of one peer, that has been idle for longest.
    fn take_idlest(&mut self, peer: Option<IpAddr>, now_us: u64) -> Option<Arc<Activity>> {
        for _ in 0..LOOKS_MAX {
            let first = match peer {
                None => self.by_age.first_key_value().map(|(age, _)| *age),
                Some(peer) => self.peers.get(&peer).and_then(|ages| ages.first()).copied(),
            };
            let (sorted_us, number) = first?;
            if sorted_us > now_us {
                // Every connection was looked at, and none is idle.
                return None;
            }
            let entry = self.remove((sorted_us, number))?;
            match entry.activity.idle_since_us.load(Ordering::Acquire) {
                BUSY => self.insert((now_us + 1, number), entry),
                idle_since_us if idle_since_us <= sorted_us => return Some(entry.activity),
                idle_since_us => self.insert((idle_since_us, number), entry),
            }
        }
        None
    }

    fn insert(&mut self, age: Age, entry: Entry) {
        entry.activity.sorted_us.store(age.0, Ordering::Relaxed);
        self.peers.entry(entry.peer).or_default().insert(age);
        self.by_age.insert(age, entry);
    }

    fn remove(&mut self, age: Age) -> Option<Entry> {
        let entry = self.by_age.remove(&age)?;
        if let Some(ages) = self.peers.get_mut(&entry.peer) {
            ages.remove(&age);
            if ages.is_empty() {
                self.peers.remove(&entry.peer);
            }
        }
        Some(entry)
    }
}

impl Activity {
    fn new(started: Instant, now_us: u64) -> Self {
        Self {
            started,
            idle_since_us: AtomicU64::new(now_us),
            sorted_us: AtomicU64::new(now_us),
            is_shed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Notes that a request is being answered.
    pub(super) fn set_busy(&self) {
        self.idle_since_us.store(BUSY, Ordering::Release);
    }

    /// Notes that the request is answered.
    pub(super) fn set_idle(&self) {
        self.idle_since_us.store(micros_since(self.started), Ordering::Release);
    }

    /// Returns whether the connection must close.
    pub(super) fn is_shed(&self) -> bool {
        self.is_shed.load(Ordering::Acquire)
    }

    /// Is ready when the connection must close, and wakes the task then.
    pub(super) fn poll_shed(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.is_shed() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn shed(&self) {
        self.is_shed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl OpenConnection {
    /// Returns the state of the connection.
    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        // A connection that was shed is no longer there.
        state.remove((self.activity.sorted_us.load(Ordering::Relaxed), self.number));
        self.connections.metrics.set_open(state.by_age.len());
    }
}

impl ConnectionMetrics {
    fn new(listener: &'static str) -> Self {
        let closed = |connection: &'static str| {
            ["all", "peer"].map(|limit| {
                metrics::counter!(
                    "ledger_http_connections_shed_total",
                    "listener" => listener, "limit" => limit, "connection" => connection
                )
            })
        };
        Self {
            open: metrics::gauge!("ledger_http_connections", "listener" => listener),
            shed: closed("idlest"),
            refused: closed("new"),
        }
    }

    fn set_open(&self, connections: usize) {
        self.open.set(connections as f64);
    }
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(BUSY - 1)
}

/// Returns the /64 network of an IPv6 address, and an IPv4 address unchanged.
pub fn peer_network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn connections(all: usize, per_peer: usize) -> Arc<OpenConnections> {
        OpenConnections::new("test", ConnectionLimits { all, per_peer })
    }

    /// Opens connections of one peer, each at another microsecond.
    fn open(connections: &Arc<OpenConnections>, peer: &str, number: usize) -> Vec<OpenConnection> {
        (0..number)
            .map(|_| {
                let last = micros_since(connections.started);
                while micros_since(connections.started) == last {}
                connections.admit(address(peer)).expect("admitted")
            })
            .collect()
    }

    fn shed(connections: &[OpenConnection]) -> Vec<usize> {
        (0..connections.len()).filter(|number| connections[*number].activity.is_shed()).collect()
    }

    #[test]
    fn the_connection_that_has_been_idle_for_longest_makes_room() {
        let all = connections(3, 3);
        let first = open(&all, "10.0.0.1", 3);
        // The first has answered a request since, and the second is answering one.
        first[1].activity.set_busy();
        first[0].activity.set_busy();
        first[0].activity.set_idle();
        let mut more = open(&all, "10.0.0.2", 1);
        assert_eq!((shed(&first), shed(&more)), (vec![2], vec![]));
        more.extend(open(&all, "10.0.0.3", 1));
        assert_eq!((shed(&first), shed(&more)), (vec![0, 2], vec![]));
        assert_eq!(all.lock().by_age.len(), 3);
        drop((first, more));
        assert!(all.lock().by_age.is_empty() && all.lock().peers.is_empty());
    }

    #[test]
    fn a_peer_above_its_limit_closes_only_its_own_connections() {
        let all = connections(10, 2);
        let other = open(&all, "10.0.0.1", 2);
        let greedy = open(&all, "2001:db8::1", 1);
        let same_network = open(&all, "2001:db8::2", 4);
        assert_eq!((shed(&other), shed(&greedy), shed(&same_network)), (vec![], vec![0], vec![0, 1]));
    }

    #[test]
    fn a_new_connection_is_refused_while_all_others_are_answering() {
        let all = connections(2, 2);
        let busy = open(&all, "10.0.0.1", 2);
        busy.iter().for_each(|connection| connection.activity.set_busy());
        assert!(all.admit(address("10.0.0.1")).is_none() && all.admit(address("10.0.0.2")).is_none());
        assert_eq!(shed(&busy), Vec::<usize>::new());
        busy[1].activity.set_idle();
        assert!(all.admit(address("10.0.0.2")).is_some());
        assert_eq!(shed(&busy), [1]);
    }

    #[test]
    fn all_ipv6_addresses_of_a_host_count_as_one_peer() {
        assert_eq!(peer_network(address("2001:db8::1")), peer_network(address("2001:db8::ffff:1")));
        assert_ne!(peer_network(address("2001:db8::1")), peer_network(address("2001:db8:0:1::1")));
        assert_eq!(peer_network(address("::ffff:1.2.3.4")), address("1.2.3.4"));
    }
}
