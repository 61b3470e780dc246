//! Group commit: a few writers, each with its own connection, commit all waiting requests together.
//!
//! ```text
//! HTTP workers ──by lane ─▶ bounded queue ──▶ writer ──one commit per group──▶ PostgreSQL
//!      ▲                                     │
//!      └───────── oneshot, after the commit ─┘
//! ```
//!
//! - Requests of one account always go to the same writer, so they queue in memory instead of on a row lock.
//! - Each writer has its own thread and runtime, so that its connection and its timers do not wake other threads.
//! - While one group commits, the next one gathers. A request that arrives alone commits immediately.
//! - When a queue is full, `post` fails at once with [`Undecided::QueueFull`].
//! - While no request waits, a writer reads the database's clock, so that a clock that was set is noticed within seconds.
//! - A request is answered only after the commit. If the connection is lost during the commit, the result is unknown and
//!   the answer is [`Undecided::Unavailable`]; a retry finds the result by its idempotency key.

mod meter;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use self::meter::Meter;
use crate::{
    config::Config,
    domain::{AccountId, Decision},
    event::lane_of,
    posting::{GroupPoster, MemoryLimits, Request},
    repository::RepositoryError,
    runtime::{Context, DatabaseClock, OutageLog, Stop, as_value, fail_point},
};

/// Why a request has no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// The queue is full; nothing was attempted.
    QueueFull,
    /// The service is stopping; nothing was attempted.
    Stopping,
    /// The database is unavailable. The transaction may or may not be in the ledger.
    Unavailable,
    /// The database is unavailable, and this attempt wrote nothing. An earlier attempt with the same key may have.
    NotPosted,
    /// The database refuses this request: a bug.
    Failed,
}

struct Job {
    request: Request,
    reply: Reply,
}

/// Hands requests to the writers. Cheap to clone.
#[derive(Clone)]
pub struct Writers {
    queues: Arc<[mpsc::Sender<Job>]>,
}

/// A group smaller than this waits while another writer commits a small group, and can grow during the wait. From about
/// ten requests on, the fixed cost of a commit no longer matters.
const GROUP_SIZE_SMALL: usize = 16;
/// The longest time that a small group waits for the commit of another small group.
const PERMIT_WAIT_MAX: Duration = Duration::from_millis(1);

/// After a failed attempt to connect, requests fail at once for this long instead of each waiting for another attempt.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// How long a writer waits for a request before it reads the database's clock.
const CLOCK_INTERVAL: Duration = Duration::from_secs(3);
const QUEUE_DEPTH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a writer without requests waits for the clock. Requests that arrive during this time wait too.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(2);

impl Writers {
    /// Starts the writers. They end when all clones of the handle are dropped and the queues are empty; the join set waits
    /// for that.
    pub fn start(context: &Context) -> std::io::Result<(Self, JoinSet<()>)> {
        let config = &context.config;
        let mut running = JoinSet::new();
        let writers = config.serve.writers;
        let mut queues = Vec::with_capacity(writers);
        let small_groups = Arc::new(Semaphore::new(1));
        for number in 0..writers {
            let (sender, receiver) = mpsc::channel(config.serve.queue_size_max);
            let writer = Writer::new(number, context, receiver, Arc::clone(&small_groups));
            let ended = start_thread(format!("writer {number}"), writer.run())?;
            running.spawn(async move { drop(ended.await) });
            tokio::spawn(report_queue_depth(number, sender.downgrade()));
            queues.push(sender);
        }
        Ok((Self { queues: queues.into() }, running))
    }

    /// Posts one request and waits for its commit.
    pub async fn post(&self, request: Request) -> Result<Decision, Undecided> {
        let answer = self.enqueue(request)?;
        answer.await.unwrap_or(Err(Undecided::Unavailable))
    }

    /// Posts many requests, each independent of the others, and waits for all of them. The requests of an account are
    /// posted in order. If a request finds the queue full, no later request of its account is attempted.
    pub async fn post_many(&self, requests: Vec<Request>) -> Vec<Result<Decision, Undecided>> {
        let waiting = self.enqueue_all(requests);
        let mut outcomes = Vec::with_capacity(waiting.len());
        for answer in waiting {
            outcomes.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(Undecided::Unavailable)),
                Err(refused) => Err(refused),
            });
        }
        outcomes
    }

    /// Enqueues the requests in order. The queue may get room at any moment, so refused accounts are remembered: otherwise a
    /// later request of an account could overtake an earlier one.
    fn enqueue_all(&self, requests: impl IntoIterator<Item = Request>) -> Vec<Result<Answer, Undecided>> {
        let mut refused: HashMap<AccountId, Undecided> = HashMap::new();
        let in_order = requests.into_iter().map(|request| {
            if let Some(why) = refused.get(&request.posting.account_id) {
                return Err(*why);
            }
            let account_id = request.posting.account_id.clone();
            self.enqueue(request).inspect_err(|why| {
                refused.insert(account_id, *why);
            })
        });
        in_order.collect()
    }

    fn enqueue(&self, request: Request) -> Result<Answer, Undecided> {
        // By lane, so that the events of a group belong to few lanes and share pages of the outbox.
        let lane = usize::from(lane_of(request.posting.account_id.as_str().as_bytes()).unsigned_abs());
        let number = lane % self.queues.len().max(1);
        let Some(queue) = self.queues.get(number) else { return Err(Undecided::Stopping) };
        let (reply, answer) = oneshot::channel();
        queue.try_send(Job { request, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Undecided::QueueFull,
            mpsc::error::TrySendError::Closed(_) => Undecided::Stopping,
        })?;
        Ok(answer)
    }
}

/// Runs a task on its own thread and runtime. The returned receiver resolves when the thread ends, even if it panics.
/// The thread builds the runtime: if the thread cannot start, a runtime built here would be dropped inside another
/// runtime, which panics.
fn start_thread(
    name: String,
    task: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<oneshot::Receiver<()>> {
    let (ending, ended) = oneshot::channel();
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(task),
            Err(error) => tracing::error!(thread = name, %error, "cannot build the runtime of a writer"),
        }
        drop(ending);
    })?;
    Ok(ended)
}

/// The two ends of the channel for one decision.
type Answer = oneshot::Receiver<Result<Decision, Undecided>>;
type Reply = oneshot::Sender<Result<Decision, Undecided>>;

/// Requests that are committed together, with their reply channels.
#[derive(Default)]
struct Group {
    requests: Vec<Request>,
    replies: Vec<Reply>,
}

impl Group {
    /// Returns the jobs whose callers still wait. The other callers were already answered 503.
    fn of_waiting(jobs: impl Iterator<Item = Job>) -> Self {
        let waiting = jobs.filter(|job| !job.reply.is_closed());
        let (requests, replies) = waiting.map(|job| (job.request, job.reply)).unzip();
        Self { requests, replies }
    }

    fn split_off_half(&mut self) -> Self {
        let half = self.requests.len() / 2;
        Self { requests: self.requests.split_off(half), replies: self.replies.split_off(half) }
    }

    fn answer(self, decisions: Vec<Decision>) {
        for (reply, decision) in self.replies.into_iter().zip(decisions) {
            // The caller may be gone. The transaction is committed, and a retry finds it.
            let _ = reply.send(Ok(decision));
        }
    }

    fn refuse(self, why: Undecided) {
        for reply in self.replies {
            let _ = reply.send(Err(why));
        }
    }
}

struct Writer {
    name: String,
    config: Arc<Config>,
    clock: DatabaseClock,
    stop: Stop,
    queue: mpsc::Receiver<Job>,
    /// The permit to commit a small group. All writers share it.
    small_groups: Arc<Semaphore>,
    poster: Option<GroupPoster>,
    /// The last failed attempt to connect: when, where and why.
    connect_failed: Option<(Instant, Option<String>, String)>,
    meter: Meter,
    outage: OutageLog,
}

/// Reports how many requests wait for a writer, also while the writer waits for the database. Ends with the queue.
async fn report_queue_depth(writer: usize, queue: mpsc::WeakSender<Job>) {
    let depth = metrics::gauge!("ledger_writer_queue_depth", "writer" => writer.to_string());
    while let Some(queue) = queue.upgrade() {
        depth.set(as_value(queue.max_capacity().saturating_sub(queue.capacity())));
        drop(queue);
        tokio::time::sleep(QUEUE_DEPTH_INTERVAL).await;
    }
}

impl Writer {
    fn new(
        number: usize,
        context: &Context,
        queue: mpsc::Receiver<Job>,
        small_groups: Arc<Semaphore>,
    ) -> Self {
        let name = format!("writer {number}");
        Self {
            config: Arc::clone(&context.config),
            clock: context.clock.clone(),
            stop: context.stop.clone(),
            queue,
            small_groups,
            poster: None,
            connect_failed: None,
            meter: Meter::new(),
            outage: context.outages.log_of(format!("committing by {name}")),
            name,
        }
    }

    async fn run(mut self) {
        let group_size_max = self.config.serve.group_size_max;
        let mut jobs = Vec::with_capacity(group_size_max);
        // Connects before the first request, so that the request does not wait for it.
        let _ = self.poster().await;
        loop {
            match tokio::time::timeout(CLOCK_INTERVAL, self.queue.recv_many(&mut jobs, group_size_max)).await
            {
                Ok(0) => break,
                Ok(_) => {}
                // After a stop, only the requests in the queue are left.
                Err(_) if self.stop.is_requested() => continue,
                Err(_) => {
                    self.read_clock().await;
                    continue;
                }
            }
            let permit = self.small_group_permit(jobs.len()).await;
            while jobs.len() < group_size_max
                && let Ok(job) = self.queue.try_recv()
            {
                jobs.push(job);
            }
            self.run_once(Group::of_waiting(jobs.drain(..)), permit).await;
        }
        tracing::debug!(writer = self.name, "the queue is closed and empty");
    }

    /// Reads the database's clock. A connection that does not answer is closed, so that the next request gets a new one.
    async fn read_clock(&mut self) {
        let stop = self.stop.clone();
        let limit = if self.poster.is_some() { CLOCK_TIMEOUT } else { self.config.serve.request_timeout };
        let reading = async { self.poster().await?.read_clock().await };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(limit, reading) => {
                outcome.unwrap_or(Err(RepositoryError::NoAnswer(limit)))
            }
            () = stop.requested() => Err(RepositoryError::NoAnswer(limit)),
        };
        if let Err(error) = outcome {
            tracing::debug!(writer = self.name, %error, "cannot read the database's clock");
            self.poster = None;
        }
    }

    /// Waits at most [`PERMIT_WAIT_MAX`] for another writer's small group if this group is small: many small commits in
    /// parallel cost more processor time than they save latency.
    async fn small_group_permit(&self, requests: usize) -> Option<OwnedSemaphorePermit> {
        if requests >= GROUP_SIZE_SMALL {
            return None;
        }
        let permit =
            tokio::time::timeout(PERMIT_WAIT_MAX, Arc::clone(&self.small_groups).acquire_owned()).await;
        permit.ok()?.ok()
    }

    /// Commits a group and answers each request. If PostgreSQL refuses the group because of a request in it, the group is
    /// halved until that request stands alone.
    async fn run_once(&mut self, group: Group, mut permit: Option<OwnedSemaphorePermit>) {
        let mut pending = vec![group];
        while let Some(mut group) = pending.pop() {
            if group.requests.is_empty() {
                continue;
            }
            let outcome = self.post(&group.requests).await;
            // Another writer may commit while this one answers.
            drop(permit.take());
            match outcome {
                Ok(decisions) => {
                    fail_point::reach("serve/committed");
                    self.outage.succeeded();
                    self.meter.decided(&decisions);
                    group.answer(decisions);
                }
                Err(error) if error.is_transient() => {
                    self.outage.failed(&error);
                    group.refuse(match error.wrote_nothing() {
                        true => Undecided::NotPosted,
                        false => Undecided::Unavailable,
                    });
                }
                Err(error) if group.requests.len() == 1 => {
                    tracing::error!(writer = self.name, %error, "the database refused a request");
                    group.refuse(Undecided::Failed);
                }
                Err(error) => {
                    let requests = group.requests.len();
                    tracing::warn!(writer = self.name, requests, %error, "the database refused a group; halving it");
                    pending.push(group.split_off_half());
                    pending.push(group);
                }
            }
        }
    }

    async fn post(&mut self, group: &[Request]) -> Result<Vec<Decision>, RepositoryError> {
        let started = Instant::now();
        // The server's own timeouts do not help when the server hangs. After this time the callers have been answered 503,
        // and a new connection, perhaps to another host, may work.
        let limit = self.config.serve.request_timeout;
        let outcome = tokio::time::timeout(limit, self.poster().await?.post(group)).await;
        let outcome = outcome.unwrap_or(Err(RepositoryError::NoAnswer(limit)));
        self.meter.group_size.record(as_value(group.len()));
        self.meter.commit_duration.record(started.elapsed().as_secs_f64());
        match outcome {
            Ok((decisions, path)) => {
                self.meter.group_posted(path);
                Ok(decisions)
            }
            Err(error) => {
                if error.is_transient() && !error.is_conflict() {
                    self.poster = None;
                }
                Err(error)
            }
        }
    }

    async fn poster(&mut self) -> Result<&mut GroupPoster, RepositoryError> {
        if self.poster.is_none() {
            self.poster = Some(self.connect().await?);
        }
        self.poster.as_mut().ok_or_else(|| RepositoryError::NotConnected("no connection".into()))
    }

    async fn connect(&mut self) -> Result<GroupPoster, RepositoryError> {
        if let Some((at, address, detail)) = &self.connect_failed
            && at.elapsed() < RECONNECT_PAUSE
        {
            return Err(match address {
                Some(address) => {
                    RepositoryError::Connect { address: address.clone(), detail: detail.clone() }
                }
                None => RepositoryError::NotConnected(detail.clone()),
            });
        }
        let role = format!("serve {}", self.name);
        let limits = MemoryLimits {
            accounts_max: self.config.serve.accounts_remembered_max,
            transactions_max: self.config.serve.transactions_remembered_max,
        };
        let opened = GroupPoster::connect(&self.config.database, &role, limits, self.clock.clone()).await;
        self.connect_failed = opened.as_ref().err().map(|error| match error {
            RepositoryError::Connect { address, detail } => {
                (Instant::now(), Some(address.clone()), detail.clone())
            }
            other => (Instant::now(), None, other.to_string()),
        });
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::WRITERS_MAX,
        domain::{Amount, Currency, Direction, IdempotencyKey, Posting},
        event::LANES,
    };

    /// Seen to fail when only the regular end of a task was reported.
    #[tokio::test]
    async fn the_end_of_a_thread_is_reported_also_after_a_panic() {
        let done = start_thread("done".into(), async {}).expect("a thread");
        let panicked = start_thread("panics".into(), async { panic!("on purpose") }).expect("a thread");
        let both = futures::future::join(done, panicked);
        let _ = tokio::time::timeout(Duration::from_secs(30), both).await.expect("both have ended");
    }

    fn request(account: &str, key: &str) -> Request {
        let posting = Posting {
            account_id: AccountId::parse(account).expect("account"),
            idempotency_key: IdempotencyKey::parse(key).expect("key"),
            direction: Direction::Credit,
            amount: Amount::from_minor(1).expect("amount"),
            currency: Currency::parse("EUR").expect("currency"),
            counterparty: None,
            description: None,
            metadata: None,
            reverses: None,
            created_at: None,
        };
        Request { posting: Arc::new(posting), traceparent: None }
    }

    /// So the events of a group belong to few lanes, and the requests of an account go to one writer.
    #[test]
    fn each_lane_belongs_to_one_writer() {
        assert_eq!(WRITERS_MAX, usize::from(LANES.unsigned_abs()), "every writer has a lane");
        let (senders, mut queues): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel(1)).unzip();
        let writers = Writers { queues: senders.into() };
        for number in 0..200 {
            let account = format!("acct-{number}");
            let _answer = writers.enqueue(request(&account, "1")).expect("there is room");
            let queue = usize::from(lane_of(account.as_bytes()).unsigned_abs()) % 3;
            assert!(queues[queue].try_recv().is_ok(), "{account}");
        }
    }

    #[test]
    fn no_request_overtakes_a_refused_one_of_its_account() {
        let (sender, mut queue) = mpsc::channel(1);
        let writers = Writers { queues: vec![sender].into() };
        let items = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1")].into_iter().map(|(account, key)| {
            // The queue gets room after the second request was refused.
            if key == "3" {
                queue.try_recv().expect("the first");
            }
            request(account, key)
        });
        let refused: Vec<_> = writers.enqueue_all(items).into_iter().map(Result::err).collect();
        assert_eq!(refused, [None, Some(Undecided::QueueFull), Some(Undecided::QueueFull), None]);
    }
}
