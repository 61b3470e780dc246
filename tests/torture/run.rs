//! One run: the system, the load, the faults as they come due, and the judgement.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use super::{
    fleet::Fleet,
    records,
    schedule::{CONSUMERS, Fault, Planned, SLOTS},
    strangers::Strangers,
};
use crate::support::{
    clients::Clients, own_kafka::OwnKafka, own_postgres::OwnPostgres, postgres::TestDatabase, system::System,
};

const TICK: Duration = Duration::from_millis(50);
const CLIENTS: usize = 12;
const ACCOUNTS: usize = 60;
const CLIENT_PAUSE: Duration = Duration::from_millis(25);
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Transactions that are taken each second of an outage of Kafka, whatever else goes wrong meanwhile.
const TAKEN_PER_SECOND_MIN: usize = 5;
const KAFKA_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// A fault that ends later.
enum Later {
    KafkaUp,
    OutageOver,
    KafkaThaw,
    KafkaFlows,
    KafkaQuick,
    PostgresFlows,
    PostgresQuick,
}

/// A long absence of Kafka.
struct Outage {
    began: Instant,
    /// Transactions that had been acknowledged by then.
    acknowledged: usize,
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
    outage: Option<Outage>,
    strangers: Strangers,
    differences: Vec<String>,
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
            outage: None,
            strangers: Strangers::default(),
            differences: Vec::new(),
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
                    let (acknowledged, starts) = (self.acknowledged(), self.fleet.starts);
                    self.say(&format!("{acknowledged} acknowledged, {starts} starts"));
                }
                tokio::time::sleep(TICK).await;
            }
            self.say(&described(&planned.fault));
            *self.counts.entry(kind(&planned.fault)).or_default() += 1;
            self.happen(planned.fault).await;
        }
    }

    fn acknowledged(&self) -> usize {
        self.clients.as_ref().map(Clients::count).unwrap_or_default()
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
            match later {
                Later::OutageOver => self.end_outage().await,
                later => self.end(later),
            }
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
            Later::KafkaUp | Later::OutageOver => {
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
            Fault::Double | Fault::DoubleTails | Fault::Poison if !self.kafka_is_up => {}
            Fault::Double => records::double_middle(&self.system.broker().await).await,
            Fault::DoubleTails => records::double_tails(&self.system.broker().await).await,
            Fault::Poison => records::poison(&self.system.broker().await).await,
            Fault::KafkaAway(away) => self.begin_outage(away).await,
            Fault::LockAccount(time) => Strangers::lock_account(self.postgres.direct(), time),
            Fault::LeaveOpen(time, commits) => {
                self.strangers.leave_open(self.postgres.direct(), time, commits);
            }
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

    /// What went wrong with it before is over first, so that it is away for all of that time.
    async fn begin_outage(&mut self, away: Duration) {
        let deadline = Instant::now() + KAFKA_UP_TIMEOUT;
        while !self.kafka_is_up {
            assert!(Instant::now() < deadline, "Kafka does not come back");
            self.tick().await;
            tokio::time::sleep(TICK).await;
        }
        self.system.kafka().broker.signal(Signal::SIGKILL);
        self.kafka_is_up = false;
        self.outage = Some(Outage { began: Instant::now(), acknowledged: self.acknowledged() });
        self.later(away, Later::OutageOver);
    }

    async fn end_outage(&mut self) {
        if let Some(Outage { began, acknowledged }) = self.outage.take() {
            let (took, taken) = (began.elapsed(), self.acknowledged() - acknowledged);
            let waiting = self.postgres.direct().value("SELECT count(*) FROM outbox").await;
            let told =
                format!("{took:.1?} without Kafka: {taken} transactions were taken, {waiting} rows wait");
            self.say(&told);
            if taken < TAKEN_PER_SECOND_MIN * usize::try_from(took.as_secs()).expect("short") {
                self.differences.push(told);
            }
        }
        self.end(Later::KafkaUp);
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

    /// Everything is well again; what should hold now and does not?
    pub async fn settle(mut self) -> Vec<String> {
        self.say("all is well again");
        for (_, later) in std::mem::take(&mut self.later) {
            match later {
                Later::OutageOver => self.end_outage().await,
                later => self.end(later),
            }
        }
        self.system.kafka().proxy.heal();
        self.postgres.proxy.heal();
        if let Some(starting) = self.kafka_starting.take() {
            starting.await.expect("Kafka comes back");
        }
        self.fleet.heal();
        let mut differences = std::mem::take(&mut self.differences);
        if let Some(clients) = self.clients.take() {
            // Tended, for they need somebody to answer.
            let mut finishing = Box::pin(clients.finish());
            let mut known = loop {
                tokio::select! {
                    known = &mut finishing => break known,
                    () = tokio::time::sleep(TICK) => self.fleet.tend(&self.system),
                }
            };
            self.say(&format!("{} acknowledged, answers {:?}", known.acknowledged.len(), known.answers));
            let strangers = std::mem::take(&mut self.strangers);
            let (told, wrong) = strangers.ended(&mut known, &self.system.database).await;
            self.say(&told);
            differences.extend(wrong);
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
        Fault::LeaveOpen(time, true) => format!("a transaction is left open for {time:?} and then committed"),
        Fault::LeaveOpen(time, false) => {
            format!("a transaction is left open for {time:?} and never committed")
        }
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
