//! Group commit: a few writers, each with a connection of its own, take all that waits and commit it at once.
//!
//! ```text
//! HTTP workers ──hash(account)──▶ bounded queue ──▶ writer ──one commit a group──▶ PostgreSQL
//!      ▲                                              │
//!      └───────────── oneshot, after the commit ──────┘
//! ```
//!
//! Requests of one account always meet the same writer, so they queue here instead of on a row lock. No timer: while
//! one group commits, the next gathers. A full queue is told at once. An answer is given only after the commit; when
//! the connection is lost in the middle nobody knows the outcome, so the answer is "try again", and the retry finds
//! out by its key.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    config::Config,
    domain::Decision,
    repository::{
        self, Connection, RepositoryError,
        postings::{AccountStates, Posted, Request, post_expected, post_locked, prepare_writer},
    },
    runtime::{Trouble, fail_point},
};

/// Why a posting has no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// The queue is full: nothing was tried.
    QueueFull,
    /// The service is stopping: nothing was tried.
    Stopping,
    /// The database is away or the connection was lost: it may or may not be in the ledger.
    Unavailable,
    /// The database refuses this very request: a bug.
    Failed,
}

struct Job {
    request: Request,
    reply: oneshot::Sender<Result<Decision, Undecided>>,
}

/// Hands requests to the writers. Cheap to clone.
#[derive(Clone)]
pub struct Writers {
    queues: Arc<[mpsc::Sender<Job>]>,
}

/// After a failed connection, requests are refused at once for this long instead of each waiting for another try.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

impl Writers {
    /// Starts the writers on the current runtime. They end when all clones of the handle are gone and their queues
    /// are empty; wait for that with the join set.
    pub fn start(config: &Arc<Config>) -> (Self, JoinSet<()>) {
        let mut running = JoinSet::new();
        let queues = (0..config.serve.writers).map(|number| {
            let (sender, receiver) = mpsc::channel(config.serve.queue_size_max);
            running.spawn(Writer::new(number, Arc::clone(config), receiver).run());
            sender
        });
        (Self { queues: queues.collect() }, running)
    }

    /// Posts one request and waits for its commit.
    pub async fn post(&self, request: Request) -> Result<Decision, Undecided> {
        let answer = self.enqueue(request)?;
        answer.await.unwrap_or(Err(Undecided::Unavailable))
    }

    /// Posts many at once, each for itself, and waits for all. Those of one account are posted in order.
    pub async fn post_many(&self, requests: Vec<Request>) -> Vec<Result<Decision, Undecided>> {
        let waiting: Vec<_> = requests.into_iter().map(|request| self.enqueue(request)).collect();
        let mut outcomes = Vec::with_capacity(waiting.len());
        for answer in waiting {
            outcomes.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(Undecided::Unavailable)),
                Err(refused) => Err(refused),
            });
        }
        outcomes
    }

    fn enqueue(&self, request: Request) -> Result<Answer, Undecided> {
        let account_id = request.posting.account_id.as_str();
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(account_id);
        let writers = u64::try_from(self.queues.len()).unwrap_or(1).max(1);
        let number = usize::try_from(hash % writers).unwrap_or(0);
        let Some(queue) = self.queues.get(number) else { return Err(Undecided::Stopping) };
        let (reply, answer) = oneshot::channel();
        queue.try_send(Job { request, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Undecided::QueueFull,
            mpsc::error::TrySendError::Closed(_) => Undecided::Stopping,
        })?;
        Ok(answer)
    }
}

/// Where a decision arrives.
type Answer = oneshot::Receiver<Result<Decision, Undecided>>;

struct Writer {
    name: String,
    config: Arc<Config>,
    queue: mpsc::Receiver<Job>,
    connection: Option<Connection>,
    connect_failed_at: Option<Instant>,
    known: AccountStates,
    trouble: Trouble,
}

impl Writer {
    fn new(number: usize, config: Arc<Config>, queue: mpsc::Receiver<Job>) -> Self {
        let name = format!("writer {number}");
        let trouble = Trouble::new(format!("committing by {name}"));
        Self {
            name,
            config,
            queue,
            connection: None,
            connect_failed_at: None,
            known: HashMap::new(),
            trouble,
        }
    }

    async fn run(mut self) {
        let group_size_max = self.config.serve.group_size_max;
        let mut jobs = Vec::with_capacity(group_size_max);
        // A connection before the first request, so that it need not wait for one.
        let _ = self.connection().await;
        while self.queue.recv_many(&mut jobs, group_size_max).await > 0 {
            metrics::gauge!("ledger_writer_queue_depth", "writer" => self.name.clone())
                .set(f64::from(u32::try_from(self.queue.len()).unwrap_or(u32::MAX)));
            self.run_once(&mut jobs).await;
        }
        tracing::debug!(writer = self.name, "all requests are answered");
    }

    /// Commits the jobs as one group and answers each. If PostgreSQL refuses the group for a reason of its content,
    /// it is halved until the item stands alone.
    async fn run_once(&mut self, jobs: &mut Vec<Job>) {
        // Whoever does not wait any more was told to try again.
        let group: Vec<Job> = jobs.drain(..).filter(|job| !job.reply.is_closed()).collect();
        let mut pending = vec![group];
        while let Some(mut group) = pending.pop() {
            if group.is_empty() {
                continue;
            }
            let requests: Vec<Request> = group.iter().map(|job| job.request.clone()).collect();
            match self.post(&requests).await {
                Ok(decisions) => {
                    fail_point::reach("serve/committed");
                    self.trouble.over();
                    answer(group, decisions);
                }
                Err(error) if error.is_transient() => {
                    self.trouble.met(&error);
                    refuse(group, Undecided::Unavailable);
                }
                Err(error) if group.len() == 1 => {
                    tracing::error!(writer = self.name, %error, "the database refuses a request");
                    refuse(group, Undecided::Failed);
                }
                Err(error) => {
                    tracing::warn!(writer = self.name, requests = group.len(), %error, "halving a refused group");
                    let second = group.split_off(group.len() / 2);
                    pending.push(second);
                    pending.push(group);
                }
            }
        }
    }

    async fn post(&mut self, group: &[Request]) -> Result<Vec<Decision>, RepositoryError> {
        let started = Instant::now();
        // The server's own time-outs are of no use when the server hangs: whoever asked was answered 503 by then,
        // and another connection, perhaps to another host, may fare better.
        let limit = self.config.serve.request_timeout;
        let outcome = tokio::time::timeout(limit, self.post_either_way(group)).await;
        let outcome = outcome.unwrap_or(Err(RepositoryError::NoAnswer(limit)));
        metrics::histogram!("ledger_writer_group_size")
            .record(f64::from(u32::try_from(group.len()).unwrap_or(u32::MAX)));
        metrics::histogram!("ledger_writer_commit_duration_seconds").record(started.elapsed().as_secs_f64());
        match outcome {
            Ok(posted) => {
                self.remember(posted.accounts);
                Ok(posted.decisions)
            }
            Err(error) => {
                for request in group {
                    self.known.remove(&request.posting.account_id);
                }
                if error.is_transient() && !error.is_conflict() {
                    self.connection = None;
                }
                Err(error)
            }
        }
    }

    async fn post_either_way(&mut self, group: &[Request]) -> Result<Posted, RepositoryError> {
        // First, since a new connection makes the memory void.
        self.connection().await?;
        let remembered = self.remembered(group);
        let connection = self.connection().await?;
        if let Some(before) = remembered
            && let Some(posted) = post_expected(connection, &before, group).await?
        {
            return Ok(posted);
        }
        post_locked(connection, group).await
    }

    /// The states of the group's accounts, if all of them are known.
    fn remembered(&self, group: &[Request]) -> Option<AccountStates> {
        let mut states = HashMap::with_capacity(group.len());
        for request in group {
            let account_id = &request.posting.account_id;
            states.insert(account_id.clone(), self.known.get(account_id)?.clone());
        }
        Some(states)
    }

    fn remember(&mut self, accounts: AccountStates) {
        if self.known.len() + accounts.len() > self.config.serve.accounts_remembered_max {
            self.known.clear();
        }
        self.known.extend(accounts);
    }

    async fn connection(&mut self) -> Result<&mut Connection, RepositoryError> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        self.connection.as_mut().ok_or_else(|| unavailable("no connection"))
    }

    async fn connect(&mut self) -> Result<Connection, RepositoryError> {
        if self.connect_failed_at.is_some_and(|at| at.elapsed() < RECONNECT_PAUSE) {
            return Err(unavailable("the last attempt failed a moment ago"));
        }
        let opened = async {
            let mut connection =
                repository::connect(&self.config.database, &format!("serve {}", self.name)).await?;
            prepare_writer(&mut connection).await?;
            Ok(connection)
        };
        let opened: Result<Connection, RepositoryError> = opened.await;
        self.connect_failed_at = opened.is_err().then(Instant::now);
        // Behind it may be a standby that was promoted without our last commits: then a sequence number of the
        // memory is used again for another balance, and comparing it would prove nothing.
        self.known.clear();
        opened
    }
}

fn unavailable(detail: &str) -> RepositoryError {
    RepositoryError::Connect { address: "database.url".into(), detail: detail.into() }
}

fn answer(group: Vec<Job>, decisions: Vec<Decision>) {
    let [mut created, mut replayed, mut refused] = [0_u64; 3];
    for (job, decision) in group.into_iter().zip(decisions) {
        match decision {
            Decision::Create(_) => created += 1,
            Decision::Replay(_) => replayed += 1,
            Decision::Mismatch { .. } | Decision::Refused(_) => refused += 1,
        }
        // Nobody waits any more: the row is there all the same, and the retry finds it.
        let _ = job.reply.send(Ok(decision));
    }
    for (outcome, count) in [("created", created), ("replayed", replayed), ("refused", refused)] {
        metrics::counter!("ledger_transactions_total", "outcome" => outcome).increment(count);
    }
}

fn refuse(group: Vec<Job>, why: Undecided) {
    for job in group {
        let _ = job.reply.send(Err(why));
    }
}
