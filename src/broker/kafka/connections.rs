//! Connections to the cluster: one to its leader for each partition and purpose, made anew where one fell silent, and
//! never waited on without end.
//!
//! A request is sent again until `broker.kafka.request_timeout` is over, while what it meets is trouble that passes. A
//! connection that met trouble is not used again, and neither is what was known of who leads that partition; other
//! partitions keep theirs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    KafkaBroker, describe, lock,
    wire::{Request, Wire},
};
use crate::broker::BrokerError;

const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// A connection answers one request after the other, so a read that waits for records would hold up a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Prompt,
    Waiting,
}

/// What a connection to a leader is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) purpose: Purpose,
}

impl Line {
    pub(super) fn new(topic: &str, partition: i32, purpose: Purpose) -> Self {
        Self { topic: topic.to_owned(), partition, purpose }
    }
}

/// The line's connection while nobody uses it.
pub(super) type Idle = Arc<tokio::sync::Mutex<Option<Wire>>>;

impl KafkaBroker {
    /// Fails in the words of the configuration if nobody is there.
    pub(super) async fn check_connection(&self) -> Result<(), BrokerError> {
        let servers = &self.settings.bootstrap_servers;
        match self.wire().await {
            Ok(_) => Ok(()),
            Err(BrokerError::Unavailable { detail }) => Err(BrokerError::Unavailable {
                detail: format!("no Kafka at {servers} (broker.kafka.bootstrap_servers): {detail}"),
            }),
            Err(refused) => Err(refused),
        }
    }

    /// To any server, first to the one that answered last: one of the list that is silent is waited for once.
    pub(super) async fn wire(&self) -> Result<Wire, BrokerError> {
        let answered_last = lock(&self.answered_last).take();
        let others = self.servers.iter().filter(|server| Some(*server) != answered_last.as_ref()).cloned();
        let servers: Vec<String> = answered_last.iter().cloned().chain(others).collect();
        let wire = self.wire_to(&servers).await?;
        *lock(&self.answered_last) = Some(wire.address().to_owned());
        Ok(wire)
    }

    pub(super) async fn wire_to(&self, addresses: &[String]) -> Result<Wire, BrokerError> {
        let settings = &self.settings;
        Wire::open(addresses, &self.security, &settings.client_id, settings.connect_timeout).await
    }

    /// Runs a call with an end. `extra` is time that the call spends waiting on purpose.
    pub(super) async fn bounded<T>(
        &self,
        extra: Duration,
        call: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let limit = self.settings.request_timeout + extra;
        timeout(limit, call).await.unwrap_or_else(|_| Err(silent(limit)))
    }

    /// Sends a request to the partition's leader, and reads the answer. It has an end; `extra` is time that the leader
    /// is asked to wait.
    pub(super) async fn ask_leader<R: Request, T>(
        &self,
        line: &Line,
        extra: Duration,
        request: &R,
        read: impl Fn(R::Answer) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let limit = self.settings.request_timeout + extra;
        let ends = Instant::now() + limit;
        let mut interval = INTERVAL_MIN;
        loop {
            let Ok(outcome) = timeout_at(ends, self.ask_leader_once(line, request, &read)).await else {
                self.forget_leader(line);
                return Err(silent(limit));
            };
            match outcome {
                Err(error) if error.is_transient() && Instant::now() + interval < ends => {
                    sleep(interval).await;
                    interval = (interval * 2).min(INTERVAL_MAX);
                }
                Err(error) => return Err(self.confirmed(&line.topic, line.partition, error).await),
                Ok(value) => return Ok(value),
            }
        }
    }

    async fn ask_leader_once<R: Request, T>(
        &self,
        line: &Line,
        request: &R,
        read: impl Fn(R::Answer) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let idle = Arc::clone(lock(&self.idle).entry(line.clone()).or_default());
        let mut idle = idle.lock().await;
        let wire = match idle.take() {
            Some(wire) => Ok(wire),
            None => self.wire_to_leader(line).await,
        };
        // Whoever gives up in the middle takes the connection along, and with it the answer that nobody reads.
        let outcome = match wire {
            Err(error) => Err(error),
            Ok(mut wire) => {
                let outcome = call_unthrottled(&mut wire, request).await.and_then(read);
                if outcome.as_ref().err().is_none_or(BrokerError::is_about_what_was_sent) {
                    *idle = Some(wire);
                }
                outcome
            }
        };
        if outcome.is_err() && idle.is_none() {
            // Another may lead now: the one that is known answers so, or nobody answers there.
            self.forget_leader(line);
        }
        outcome
    }

    async fn wire_to_leader(&self, line: &Line) -> Result<Wire, BrokerError> {
        self.wire_to(&[self.leader(line).await?]).await
    }

    /// `host:port` of the partition's leader. One asks for all of them.
    async fn leader(&self, line: &Line) -> Result<String, BrokerError> {
        let known = || lock(&self.leaders).get(&line.topic)?.get(&line.partition).cloned();
        if let Some(leader) = known() {
            return leader_of(line, leader);
        }
        let _turn = self.asking_for_leaders.lock().await;
        if let Some(leader) = known() {
            return leader_of(line, leader);
        }
        let found = describe::leaders(&mut self.wire().await?, &line.topic).await?;
        let leader = found.get(&line.partition).cloned();
        lock(&self.leaders).insert(line.topic.clone(), found);
        leader_of(line, leader.ok_or_else(|| BrokerError::NoSuchTopic(line.topic.clone()))?)
    }

    fn forget_leader(&self, line: &Line) {
        if let Some(leaders) = lock(&self.leaders).get_mut(&line.topic) {
            leaders.remove(&line.partition);
        }
    }
}

/// A broker that bounds our share answers at once, with nothing but how long it will not listen. Asking on another
/// connection meanwhile would go past that.
async fn call_unthrottled<R: Request>(wire: &mut Wire, request: &R) -> Result<R::Answer, BrokerError> {
    loop {
        let answer = wire.call(request).await?;
        match R::throttled(&answer) {
            Some(pause) => sleep(pause).await,
            None => return Ok(answer),
        }
    }
}

/// By partition; None has no leader now.
pub(super) type Leaders = BTreeMap<i32, Option<String>>;

fn leader_of(line: &Line, leader: Option<String>) -> Result<String, BrokerError> {
    let Line { topic, partition, .. } = line;
    leader.ok_or_else(|| BrokerError::Unavailable { detail: format!("{topic}/{partition} has no leader") })
}

fn silent(limit: Duration) -> BrokerError {
    BrokerError::Unavailable { detail: format!("no answer from Kafka within {limit:?}") }
}
