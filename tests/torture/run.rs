//! One run: the system, the load, the faults as they come due, and the judgement.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use ledger::{
    broker::OutgoingRecord,
    event::{TRANSACTIONS_TOPIC, partition_of},
};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use super::{
    fleet::Fleet,
    schedule::{CONSUMERS, Fault, Planned, SLOTS},
};
use crate::support::{
    clients::Clients, own_kafka::OwnKafka, own_postgres::OwnPostgres, postgres::TestDatabase, system::System,
};

const TICK: Duration = Duration::from_millis(50);
const CLIENTS: usize = 12;
const ACCOUNTS: usize = 60;
const CLIENT_PAUSE: Duration = Duration::from_millis(25);
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A fault that ends later.
enum Later {
    KafkaUp,
    KafkaThaw,
    KafkaFlows,
    KafkaQuick,
    PostgresFlows,
    PostgresQuick,
}

/// Everything at work.
pub struct Run {
    system: Arc<System>,
    postgres: OwnPostgres,
    fleet: Fleet,
    clients: Option<Clients>,
    later: Vec<(Instant, Later)>,
    kafka_starting: Option<JoinHandle<()>>,
    kafka_is_up: bool,
    counts: BTreeMap<String, usize>,
    started: Instant,
}

impl Run {
    /// None where Kafka cannot be had.
    pub async fn start() -> Option<Self> {
        let kafka = OwnKafka::start().await?;
        let postgres = OwnPostgres::start().await;
        let system = Arc::new(System::with(TestDatabase::at(&postgres.url()), kafka).await);
        let mut fleet = Fleet::new();
        fleet.scale(CONSUMERS, 2);
        fleet.tend(&system);
        let clients = Clients::start(&fleet.urls(), CLIENTS, ACCOUNTS, CLIENT_PAUSE);
        clients.more(20).await;
        Some(Self {
            system,
            postgres,
            fleet,
            clients: Some(clients),
            later: Vec::new(),
            kafka_starting: None,
            kafka_is_up: true,
            counts: BTreeMap::new(),
            started: Instant::now(),
        })
    }

    /// Lets all of it happen.
    pub async fn go_through(&mut self, plan: Vec<Planned>) {
        self.started = Instant::now();
        let mut reported = Instant::now();
        for planned in plan {
            while self.started.elapsed() < planned.at {
                self.tick().await;
                if reported.elapsed() > REPORT_INTERVAL {
                    reported = Instant::now();
                    let acknowledged = self.clients.as_ref().map(Clients::count).unwrap_or_default();
                    self.say(&format!("{acknowledged} acknowledged, {} starts", self.fleet.starts));
                }
                tokio::time::sleep(TICK).await;
            }
            self.say(&described(&planned.fault));
            *self.counts.entry(kind(&planned.fault)).or_default() += 1;
            self.happen(planned.fault).await;
        }
    }

    fn say(&self, what: &str) {
        println!("{:7.2} s  {what}", self.started.elapsed().as_secs_f64());
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Instant, Later)> = due;
        for (_, later) in due {
            self.end(later);
        }
        if self.kafka_starting.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(starting) = self.kafka_starting.take()
        {
            starting.await.expect("Kafka comes back");
            self.kafka_is_up = true;
        }
        self.fleet.tend(&self.system);
    }

    fn end(&mut self, later: Later) {
        let kafka = self.system.kafka();
        match later {
            Later::KafkaUp => {
                let system = Arc::clone(&self.system);
                self.kafka_starting = Some(tokio::spawn(async move { system.kafka().broker.up().await }));
            }
            Later::KafkaThaw => {
                kafka.broker.signal(Signal::SIGCONT);
                self.kafka_is_up = true;
            }
            Later::KafkaFlows => kafka.proxy.hold(false),
            Later::KafkaQuick => kafka.proxy.slow(Duration::ZERO),
            Later::PostgresFlows => self.postgres.proxy.hold(false),
            Later::PostgresQuick => self.postgres.proxy.slow(Duration::ZERO),
        }
    }

    fn later(&mut self, after: Duration, later: Later) {
        self.later.push((Instant::now() + after, later));
    }

    async fn happen(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(slot) => self.fleet.kill(slot),
            Fault::Terminate(slot) => self.fleet.terminate(slot),
            Fault::Freeze(slot, time) => self.fleet.freeze(slot, time),
            Fault::FailAt(slot, point) => self.fleet.fail_at(slot, point),
            Fault::Scale(count) => self.fleet.scale(CONSUMERS, count),
            Fault::KafkaKill(..) | Fault::KafkaFreeze(..) | Fault::KafkaHold(..) | Fault::KafkaSlow(..) => {
                self.happen_to_kafka(&fault);
            }
            Fault::KafkaCutAfter(bytes) => self.system.kafka().proxy.cut_after(bytes),
            Fault::KafkaReset => self.system.kafka().proxy.reset(),
            Fault::Double => self.double().await,
            Fault::Poison => self.poison().await,
            Fault::LockAccount(time) => self.lock_account(time),
            _ => self.happen_to_postgres(fault).await,
        }
    }

    fn happen_to_kafka(&mut self, fault: &Fault) {
        let kafka = self.system.kafka();
        match fault {
            // One at a time: it is away already.
            Fault::KafkaKill(_) | Fault::KafkaFreeze(_) if !self.kafka_is_up => {}
            Fault::KafkaKill(away) => {
                kafka.broker.signal(Signal::SIGKILL);
                self.kafka_is_up = false;
                self.later(*away, Later::KafkaUp);
            }
            Fault::KafkaFreeze(time) => {
                kafka.broker.signal(Signal::SIGSTOP);
                self.kafka_is_up = false;
                self.later(*time, Later::KafkaThaw);
            }
            Fault::KafkaHold(time) => {
                kafka.proxy.hold(true);
                self.later(*time, Later::KafkaFlows);
            }
            Fault::KafkaSlow(latency, time) => {
                kafka.proxy.slow(*latency);
                self.later(*time, Later::KafkaQuick);
            }
            _ => {}
        }
    }

    async fn happen_to_postgres(&mut self, fault: Fault) {
        let proxy = &self.postgres.proxy;
        match fault {
            Fault::PostgresCrash => {
                self.postgres.crash().await;
                self.postgres.up().await;
            }
            Fault::PostgresRestart => {
                self.postgres.down().await;
                self.postgres.up().await;
            }
            Fault::PostgresHold(time) => {
                proxy.hold(true);
                self.later(time, Later::PostgresFlows);
            }
            Fault::PostgresSlow(latency, time) => {
                proxy.slow(latency);
                self.later(time, Later::PostgresQuick);
            }
            Fault::PostgresCutAfter(bytes) => proxy.cut_after(bytes),
            Fault::PostgresReset => proxy.reset(),
            _ => {}
        }
    }

    fn lock_account(&self, time: Duration) {
        let database = self.postgres.direct();
        tokio::spawn(async move {
            let mut client = database.client().await;
            if let Ok(transaction) = client.transaction().await {
                let _ = transaction
                    .execute("SELECT 1 FROM accounts WHERE account_id = 'hot' FOR UPDATE", &[])
                    .await;
                tokio::time::sleep(time).await;
            }
        });
    }

    /// Some records of a partition are published once more, as a relay that was cut off does.
    async fn double(&self) {
        if !self.kafka_is_up {
            return;
        }
        let broker = self.system.broker().await;
        let partition = partition_of(b"hot", 6);
        let Ok(range) = broker.offset_range(TRANSACTIONS_TOPIC, partition).await else { return };
        let from = range.latest / 2;
        let Ok(found) = broker.fetch(TRANSACTIONS_TOPIC, partition, from, 20_000, Duration::ZERO).await
        else {
            return;
        };
        let again = found.records.into_iter().map(|record| OutgoingRecord {
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp: record.timestamp,
        });
        // In doubt or not: the reader counts what is there.
        let _ = broker.produce(TRANSACTIONS_TOPIC, partition, again.collect()).await;
    }

    async fn poison(&self) {
        if !self.kafka_is_up {
            return;
        }
        let record = OutgoingRecord {
            key: Some(b"hot".to_vec()),
            value: Some(b"\xff poison".to_vec()),
            headers: vec![("ce_type".into(), b"TransactionCreated.v1".to_vec())],
            timestamp: Utc::now(),
        };
        let broker = self.system.broker().await;
        let _ = broker.produce(TRANSACTIONS_TOPIC, partition_of(b"hot", 6), vec![record]).await;
    }

    /// Everything is well again; what should hold now and does not?
    pub async fn settle(mut self) -> Vec<String> {
        self.say("all is well again");
        for (_, later) in std::mem::take(&mut self.later) {
            self.end(later);
        }
        self.system.kafka().proxy.heal();
        self.postgres.proxy.heal();
        if let Some(starting) = self.kafka_starting.take() {
            starting.await.expect("Kafka comes back");
        }
        self.fleet.heal();
        let mut differences = Vec::new();
        if let Some(clients) = self.clients.take() {
            // Tended, for they need somebody to answer.
            let mut finishing = Box::pin(clients.finish());
            let known = loop {
                tokio::select! {
                    known = &mut finishing => break known,
                    () = tokio::time::sleep(TICK) => self.fleet.tend(&self.system),
                }
            };
            self.say(&format!("{} acknowledged, answers {:?}", known.acknowledged.len(), known.answers));
            differences.extend(known.differences(&self.system.database).await);
        }
        differences.extend(self.system.differences().await);
        differences.extend(self.dead_letters().await);
        self.fleet.tend(&self.system);
        self.fleet.stop().await;
        let held = self.system.count("leases WHERE owner IS NOT NULL").await;
        if held > 0 {
            differences.push(format!("{held} leases are held after the end"));
        }
        differences.append(&mut self.fleet.differences);
        let (starts, in_vain) = (self.fleet.starts, self.fleet.starts_in_vain);
        self.say(&format!("{starts} starts of {} processes, {in_vain} in vain", SLOTS.len()));
        for (fault, count) in &self.counts {
            println!("{count:5}  {fault}");
        }
        differences
    }

    /// As many as records that are no events, and for that reason.
    async fn dead_letters(&self) -> Vec<String> {
        let audit = self.system.audit().await;
        self.say(&format!(
            "{} records, {} events, {} came again, {} poisoned",
            audit.records,
            audit.distinct(),
            audit.duplicates,
            audit.foreign
        ));
        let undecodable = self.system.count("dead_letters WHERE reason = 'undecodable'").await;
        let others = "SELECT coalesce(string_agg(reason || ' ' || error, '; '), '') FROM dead_letters WHERE reason <> 'undecodable'";
        let others = self.system.database.value(others).await;
        let mut differences = Vec::new();
        if undecodable != audit.foreign {
            differences
                .push(format!("{} records are no events, {undecodable} were put aside", audit.foreign));
        }
        if !others.is_empty() {
            differences.push(format!("put aside without poison: {others}"));
        }
        differences
    }
}

fn described(fault: &Fault) -> String {
    match fault {
        Fault::Kill(slot) => format!("kill -9 {}", SLOTS[*slot].0),
        Fault::Terminate(slot) => format!("SIGTERM {}", SLOTS[*slot].0),
        Fault::Freeze(slot, time) => format!("freeze {} for {time:?}", SLOTS[*slot].0),
        Fault::FailAt(slot, point) => format!("{} fails at {point}", SLOTS[*slot].0),
        other => format!("{other:?}"),
    }
}

/// For the table in the end.
fn kind(fault: &Fault) -> String {
    match fault {
        Fault::Kill(slot) => format!("kill -9 {}", SLOTS[*slot].1),
        Fault::Terminate(slot) => format!("SIGTERM {}", SLOTS[*slot].1),
        Fault::Freeze(slot, _) => format!("SIGSTOP and SIGCONT {}", SLOTS[*slot].1),
        Fault::FailAt(_, point) => {
            let (point, how) = point.split_once('@').unwrap_or((point, ""));
            format!("{} at {point}", if how.ends_with("stop") { "frozen" } else { "killed" })
        }
        other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
    }
}
