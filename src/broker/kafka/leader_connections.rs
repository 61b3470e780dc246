//! Connections to the leaders of partitions: one for each partition and purpose, kept while it works.
//!
//! Guarantees:
//!
//! - A request is retried after transient errors until `broker.kafka.request_timeout` is over.
//! - After a failed request, the connection is closed and the leader of the partition is looked up again. Other partitions
//!   are not affected.
//! - A quota is respected: no request is sent on a connection while the broker throttles it. This wait does not count
//!   against `broker.kafka.request_timeout`.
//! - Fetches that a broker withheld are repeated one at a time. While that broker withholds again and again, the pause
//!   before each of them grows, up to 30 s; it shrinks with each answer. A fetch that waits does not notice that the quota
//!   was lifted. The caller may drop the request at any time, which ends the wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, sleep},
};

use super::{
    connect::Connector, connection::Connection, deadline::Deadline, metadata::Metadata, requests::Request,
};
use crate::broker::BrokerError;

const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);
/// The limits of the pause before a withheld fetch is repeated, once a repeated fetch was withheld too. A withheld fetch costs
/// as much of a quota on requests as an answered fetch. If each partition repeated its fetch as soon as the broker allows it,
/// their fetches together could use up the quota, and none would ever be answered. A quota on bytes does not count withheld
/// fetches, so the first repeated fetch is answered, and there is no pause.
const WITHHELD_PAUSE_MIN: Duration = Duration::from_secs(1);
const WITHHELD_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The purpose of a connection. A connection answers its requests in order, so a fetch that waits for records would delay
/// a write on the same connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Requests that the broker answers at once.
    Prompt,
    /// Fetches that may wait for records.
    Fetch,
}

/// Names a connection to the leader of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ConnectionKey {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) purpose: Purpose,
}

/// A connection that no request uses, or `None`. The lock is held during a request.
type IdleConnection = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// The lock is held by the fetch that is being repeated.
type WithheldPause = Arc<tokio::sync::Mutex<Pause>>;

/// The pause before the next withheld fetch of one broker is repeated.
struct Pause {
    time: Duration,
    changed_at: Instant,
}

impl Default for Pause {
    fn default() -> Self {
        Self { time: Duration::ZERO, changed_at: Instant::now() }
    }
}

impl Pause {
    /// Starts again without a pause if the last one was long ago.
    fn forget_if_old(&mut self) {
        if self.changed_at.elapsed() > WITHHELD_PAUSE_MAX * 2 {
            *self = Self::default();
        }
    }

    fn grow(&mut self) {
        let time = (self.time * 2).clamp(WITHHELD_PAUSE_MIN, WITHHELD_PAUSE_MAX);
        *self = Self { time, changed_at: Instant::now() };
    }

    fn shrink(&mut self) {
        let half = self.time / 2;
        let time = if half < WITHHELD_PAUSE_MIN { Duration::ZERO } else { half };
        *self = Self { time, changed_at: Instant::now() };
    }
}

/// The outcome of one attempt.
enum Attempt<T> {
    Answered(T),
    /// The broker at this address withheld the answer because of a quota.
    Withheld(String),
}

/// Sends requests to the leaders of partitions.
pub(super) struct LeaderConnections {
    connector: Arc<Connector>,
    metadata: Arc<Metadata>,
    request_timeout: Duration,
    idle: Mutex<HashMap<ConnectionKey, IdleConnection>>,
    /// By the address of the broker.
    withheld_pauses: Mutex<HashMap<String, WithheldPause>>,
}

impl LeaderConnections {
    pub(super) fn new(connector: Arc<Connector>, metadata: Arc<Metadata>, request_timeout: Duration) -> Self {
        let (idle, withheld_pauses) = (Mutex::default(), Mutex::default());
        Self { connector, metadata, request_timeout, idle, withheld_pauses }
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Sends a request to the leader of the partition and reads the answer with `read`. `extra` is time that the
    /// request asks the leader to wait; it is added to the time limit.
    pub(super) async fn request<R: Request, T>(
        &self,
        key: &ConnectionKey,
        extra: Duration,
        request: &R,
        read: impl Fn(R::Answer) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let mut deadline = Deadline::after(self.request_timeout + extra);
        let mut retry_wait = RETRY_WAIT_MIN;
        let mut repeated: Option<OwnedMutexGuard<Pause>> = None;
        loop {
            match self.attempt(key, &mut deadline, request, &read).await {
                Ok(Attempt::Answered(value)) => {
                    if let Some(pause) = &mut repeated {
                        pause.shrink();
                    }
                    return Ok(value);
                }
                // The next attempt also waits until the broker reads again.
                Ok(Attempt::Withheld(address)) => {
                    let began = Instant::now();
                    let pause = match repeated.take() {
                        Some(mut pause) => {
                            pause.grow();
                            pause
                        }
                        None => {
                            let mut pause = self.withheld_pause(address).lock_owned().await;
                            pause.forget_if_old();
                            pause
                        }
                    };
                    sleep(pause.time).await;
                    repeated = Some(pause);
                    deadline.extend(began.elapsed());
                }
                Err(error) if error.is_transient() && deadline.allows(retry_wait) => {
                    repeated = None;
                    sleep(retry_wait).await;
                    retry_wait = (retry_wait * 2).min(RETRY_WAIT_MAX);
                }
                Err(error) => return Err(self.metadata.confirm(&key.topic, key.partition, error).await),
            }
        }
    }

    /// Sends the request once.
    async fn attempt<R: Request, T>(
        &self,
        key: &ConnectionKey,
        deadline: &mut Deadline,
        request: &R,
        read: impl Fn(R::Answer) -> Result<T, BrokerError>,
    ) -> Result<Attempt<T>, BrokerError> {
        let idle = self.idle(key);
        let mut idle = deadline.limit(async { Ok(idle.lock().await) }).await?;
        let outcome = self.attempt_on(&mut idle, key, deadline, request, read).await;
        if idle.is_none() {
            // Another broker may lead now: the known leader says so, or does not answer.
            self.metadata.forget_leader(&key.topic, key.partition);
        }
        outcome
    }

    /// Sends the request on the idle connection, or on a new one. Leaves a connection in `idle` if it is still usable.
    async fn attempt_on<R: Request, T>(
        &self,
        idle: &mut Option<Connection>,
        key: &ConnectionKey,
        deadline: &mut Deadline,
        request: &R,
        read: impl Fn(R::Answer) -> Result<T, BrokerError>,
    ) -> Result<Attempt<T>, BrokerError> {
        if idle.is_none() {
            *idle = Some(deadline.limit(self.connect(key)).await?);
        }
        // The requests that open a connection can be throttled too.
        if let Some(throttle_time) = idle.as_ref().map(Connection::throttle_time_left) {
            deadline.extend(throttle_time);
            sleep(throttle_time).await;
        }
        // The connection leaves `idle` during the call: a cancelled call drops it together with its unread answer.
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => deadline.limit(self.connect(key)).await?,
        };
        let answer = deadline.limit(connection.call(request)).await;
        let outcome = answer.and_then(|answer| match R::is_withheld(&answer) {
            true => Ok(Attempt::Withheld(connection.address().to_owned())),
            false => read(answer).map(Attempt::Answered),
        });
        if outcome.as_ref().err().is_none_or(BrokerError::leaves_connection_usable) {
            *idle = Some(connection);
        }
        outcome
    }

    fn withheld_pause(&self, address: String) -> WithheldPause {
        let mut pauses = self.withheld_pauses.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pauses.entry(address).or_default())
    }

    fn idle(&self, key: &ConnectionKey) -> IdleConnection {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(idle.entry(key.clone()).or_default())
    }

    async fn connect(&self, key: &ConnectionKey) -> Result<Connection, BrokerError> {
        self.connector.connect_to(self.metadata.leader(&key.topic, key.partition).await?).await
    }
}
