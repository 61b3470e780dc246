//! One run: the system, the load, the scheduled faults, and the final check.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::task::{JoinHandle, JoinSet};

use super::{
    fleet::Fleet,
    operator::{self, COMMAND_MAX, Log},
    other_sessions::{self, OtherSessions},
    records,
    schedule::{CONSUMERS, Fault, Mode, Planned, SLOTS, Scope},
    settings,
};
use crate::support::{
    clients::Clients, own_kafka::OwnKafka, own_postgres::OwnPostgres, postgres::TestDatabase, system::System,
};

const TICK: Duration = Duration::from_millis(50);
const CLIENTS: usize = 12;
const ACCOUNTS: usize = 60;
const CLIENT_PAUSE: Duration = Duration::from_millis(25);
/// A run of kills is long, so its clients are slower.
const CLIENT_PAUSE_OF_KILLS: Duration = Duration::from_millis(100);
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// At least this many transactions are accepted in each second of a Kafka outage, whatever else fails at the same time.
const ACCEPTED_PER_SECOND_MIN: usize = 5;
/// The wait for the end of all work after the last fault.
const SETTLE_MAX: &str = "120s";
const KAFKA_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// The end of a fault.
enum FaultEnd {
    KafkaUp,
    OutageOver,
    KafkaThaw,
    KafkaFlows,
    KafkaQuick,
    PostgresFlows,
    PostgresQuick,
    SettingsReset,
}

/// A long outage of Kafka.
struct Outage {
    began: Instant,
    /// Transactions acknowledged before it.
    acknowledged: usize,
}

/// The running system.
pub struct Run {
    system: Arc<System>,
    postgres: OwnPostgres,
    fleet: Fleet,
    clients: Option<Clients>,
    pending_ends: Vec<(Instant, FaultEnd)>,
    kafka_starting: Option<JoinHandle<()>>,
    kafka_is_up: bool,
    outage: Option<Outage>,
    other_sessions: OtherSessions,
    /// Faults that take their time beside the others.
    operations: JoinSet<Result<(), String>>,
    /// Deletions of the topic that are not repaired yet.
    topics_anew: JoinSet<Result<(), String>>,
    topic_was_made_anew: bool,
    differences: Vec<String>,
    counts: BTreeMap<String, usize>,
    started: Instant,
}

impl Run {
    /// Starts everything. Returns None if Kafka is not available.
    pub async fn start(mode: Mode) -> Option<Self> {
        let kafka = OwnKafka::start().await?;
        let postgres = OwnPostgres::start_with_german_locale().await;
        let system = Arc::new(System::with(TestDatabase::at(&postgres.url()), kafka).await);
        other_sessions::prepare(&system.database).await;
        let mut fleet = Fleet::new();
        fleet.scale(CONSUMERS, 2);
        fleet.tend(&system);
        let pause = if matches!(mode, Mode::Kills(_)) { CLIENT_PAUSE_OF_KILLS } else { CLIENT_PAUSE };
        let clients = Clients::start(&fleet.urls(), CLIENTS, ACCOUNTS, pause);
        clients.more(20).await;
        Some(Self {
            system,
            postgres,
            fleet,
            clients: Some(clients),
            pending_ends: Vec::new(),
            kafka_starting: None,
            kafka_is_up: true,
            outage: None,
            other_sessions: OtherSessions::default(),
            operations: JoinSet::new(),
            topics_anew: JoinSet::new(),
            topic_was_made_anew: false,
            differences: Vec::new(),
            counts: BTreeMap::new(),
            started: Instant::now(),
        })
    }

    /// Lets the planned faults happen at their times.
    pub async fn execute(&mut self, plan: Vec<Planned>) {
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
            self.say(&describe(&planned.fault));
            let kind = kind(&planned.fault);
            if self.inject(planned.fault).await {
                *self.counts.entry(kind).or_default() += 1;
            }
        }
    }

    fn acknowledged(&self) -> usize {
        self.clients.as_ref().map(Clients::count).unwrap_or_default()
    }

    fn log(&self) -> Log {
        Log(self.started)
    }

    fn say(&self, what: &str) {
        self.log().say(what);
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let (due, pending) =
            std::mem::take(&mut self.pending_ends).into_iter().partition(|(at, _)| *at <= now);
        self.pending_ends = pending;
        let due: Vec<(Instant, FaultEnd)> = due;
        for (_, end) in due {
            self.end(end).await;
        }
        if self.kafka_starting.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(starting) = self.kafka_starting.take()
        {
            starting.await.expect("Kafka comes back");
            self.kafka_is_up = true;
        }
        self.fleet.tend(&self.system);
        for operations in [&mut self.operations, &mut self.topics_anew] {
            while let Some(done) = operations.try_join_next() {
                self.differences.extend(done.expect("no panic").err());
            }
        }
        self.fleet.topic_may_be_missing = !self.topics_anew.is_empty();
    }

    async fn end(&mut self, end: FaultEnd) {
        if matches!(end, FaultEnd::OutageOver) {
            self.report_outage().await;
        }
        let kafka = self.system.kafka();
        match end {
            FaultEnd::KafkaUp | FaultEnd::OutageOver => {
                let system = Arc::clone(&self.system);
                self.kafka_starting = Some(tokio::spawn(async move { system.kafka().broker.up().await }));
            }
            FaultEnd::SettingsReset => settings::reset(&self.postgres.direct()).await,
            FaultEnd::KafkaThaw => {
                kafka.broker.signal(Signal::SIGCONT);
                self.kafka_is_up = true;
            }
            FaultEnd::KafkaFlows => kafka.proxy.hold(false),
            FaultEnd::KafkaQuick => kafka.proxy.slow(Duration::ZERO),
            FaultEnd::PostgresFlows => self.postgres.proxy.hold(false),
            FaultEnd::PostgresQuick => self.postgres.proxy.slow(Duration::ZERO),
        }
    }

    fn end_after(&mut self, time: Duration, end: FaultEnd) {
        self.pending_ends.push((Instant::now() + time, end));
    }

    /// Injects a fault. Returns false if there was nothing to harm.
    async fn inject(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Kill(slot) => return self.fleet.kill(slot),
            Fault::Terminate(slot) => self.fleet.terminate(slot),
            Fault::Freeze(slot, time) => self.fleet.freeze(slot, time),
            Fault::FailAt(slot, point) => self.fleet.fail_at(slot, point),
            Fault::WrongClock(slot, offset) => self.fleet.wrong_clock(slot, offset),
            Fault::Scale(count) => self.fleet.scale(CONSUMERS, count),
            // Kafka is away already.
            Fault::KafkaKill(_) | Fault::KafkaFreeze(_) if !self.kafka_is_up => return false,
            Fault::KafkaKill(..) | Fault::KafkaFreeze(..) | Fault::KafkaHold(..) | Fault::KafkaSlow(..) => {
                self.inject_into_kafka(&fault);
            }
            Fault::KafkaCutAfter(bytes) => self.system.kafka().proxy.cut_after(bytes),
            Fault::KafkaReset => self.system.kafka().proxy.reset(),
            Fault::Double | Fault::DoubleTails | Fault::Poison if !self.kafka_is_up => return false,
            Fault::Double => records::double_middle(&self.system.broker().await).await,
            Fault::DoubleTails => records::double_tails(&self.system.broker().await).await,
            Fault::Poison => records::poison(&self.system.broker().await).await,
            Fault::KafkaAway(away) => self.begin_outage(away).await,
            Fault::LockAccount(time) => {
                OtherSessions::lock_account(settings::observer(&self.postgres.direct()), time);
            }
            Fault::LeaveOpen(time, commits) => {
                self.other_sessions.leave_open(self.postgres.direct(), time, commits);
            }
            Fault::Throttle(..) | Fault::TopicAnew | Fault::WrongBroker(_) => self.operate(&fault),
            Fault::Setting(setting, scope, time) => return self.change_setting(setting, scope, time).await,
            _ => self.inject_into_postgres(fault).await,
        }
        true
    }

    fn operate(&mut self, fault: &Fault) {
        let (log, system) = (self.log(), Arc::clone(&self.system));
        match *fault {
            Fault::Throttle(quota, time) => {
                self.operations.spawn(operator::throttle(log, system, quota, time));
            }
            Fault::TopicAnew => {
                (self.fleet.topic_may_be_missing, self.topic_was_made_anew) = (true, true);
                self.topics_anew.spawn(operator::make_topic_anew(log, system));
            }
            Fault::WrongBroker(command) => {
                self.operations.spawn(operator::start_with_wrong_broker(log, system, command));
            }
            _ => {}
        }
    }

    async fn change_setting(&mut self, setting: &str, scope: Scope, time: Duration) -> bool {
        let changed = settings::change(&self.postgres.direct(), setting, scope).await;
        let (Ok(said) | Err(said)) = &changed;
        self.say(said);
        self.end_after(time, FaultEnd::SettingsReset);
        changed.is_ok()
    }

    fn inject_into_kafka(&mut self, fault: &Fault) {
        let kafka = self.system.kafka();
        match fault {
            Fault::KafkaKill(away) => {
                kafka.broker.signal(Signal::SIGKILL);
                self.kafka_is_up = false;
                self.end_after(*away, FaultEnd::KafkaUp);
            }
            Fault::KafkaFreeze(time) => {
                kafka.broker.signal(Signal::SIGSTOP);
                self.kafka_is_up = false;
                self.end_after(*time, FaultEnd::KafkaThaw);
            }
            Fault::KafkaHold(time) => {
                kafka.proxy.hold(true);
                self.end_after(*time, FaultEnd::KafkaFlows);
            }
            Fault::KafkaSlow(latency, time) => {
                kafka.proxy.slow(*latency);
                self.end_after(*time, FaultEnd::KafkaQuick);
            }
            _ => {}
        }
    }

    /// Waits until earlier faults of Kafka are over, so that the outage has its full length.
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
        self.end_after(away, FaultEnd::OutageOver);
    }

    async fn report_outage(&mut self) {
        if let Some(Outage { began, acknowledged }) = self.outage.take() {
            let (length, accepted) = (began.elapsed(), self.acknowledged() - acknowledged);
            let observer = settings::observer(&self.postgres.direct());
            let waiting = observer.value("SELECT count(*) FROM outbox").await;
            let summary = format!(
                "{length:.1?} without Kafka: {accepted} transactions were accepted, {waiting} rows wait"
            );
            self.say(&summary);
            if accepted < ACCEPTED_PER_SECOND_MIN * usize::try_from(length.as_secs()).expect("short") {
                self.differences.push(summary);
            }
        }
    }

    async fn inject_into_postgres(&mut self, fault: Fault) {
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
                self.end_after(time, FaultEnd::PostgresFlows);
            }
            Fault::PostgresSlow(latency, time) => {
                proxy.slow(latency);
                self.end_after(time, FaultEnd::PostgresQuick);
            }
            Fault::PostgresCutAfter(bytes) => proxy.cut_after(bytes),
            Fault::PostgresReset => proxy.reset(),
            _ => {}
        }
    }

    /// Ends all faults, waits until nothing is in flight, and returns everything that is wrong.
    pub async fn settle(mut self) -> Vec<String> {
        self.say("all faults end");
        for (_, end) in std::mem::take(&mut self.pending_ends) {
            self.end(end).await;
        }
        self.system.kafka().proxy.heal();
        self.postgres.proxy.heal();
        if let Some(starting) = self.kafka_starting.take() {
            starting.await.expect("Kafka comes back");
        }
        self.kafka_is_up = true;
        self.fleet.heal();
        while !self.operations.is_empty() || !self.topics_anew.is_empty() {
            self.tick().await;
            tokio::time::sleep(TICK).await;
        }
        let mut differences = std::mem::take(&mut self.differences);
        if let Some(clients) = self.clients.take() {
            // The clients need a running `serve` to finish.
            let mut finishing = Box::pin(clients.finish());
            let mut known = loop {
                tokio::select! {
                    known = &mut finishing => break known,
                    () = tokio::time::sleep(TICK) => self.fleet.tend(&self.system),
                }
            };
            self.say(&format!("{} acknowledged, answers {:?}", known.acknowledged.len(), known.answers));
            let other_sessions = std::mem::take(&mut self.other_sessions);
            let (summary, wrong) = other_sessions.ended(&mut known, &self.system.database).await;
            self.say(&summary);
            differences.extend(wrong);
            differences.extend(known.differences(&self.system.database).await);
        }
        differences.extend(self.events().await);
        differences.extend(self.dead_letters().await);
        self.fleet.tend(&self.system);
        self.fleet.stop().await;
        let held = self.system.count("leases WHERE owner IS NOT NULL").await;
        if held > 0 {
            differences.push(format!("{held} leases are held after all roles have stopped"));
        }
        differences.append(&mut self.fleet.differences);
        let (starts, failed) = (self.fleet.starts, self.fleet.failed_starts);
        self.say(&format!("{starts} starts of {} processes, {failed} failed", SLOTS.len()));
        for (fault, count) in &self.counts {
            println!("{count:5}  {fault}");
        }
        differences
    }

    /// Compares the events with the rows. If the topic was created again, the events before its first records
    /// are missing there. They come later, with the mark of `republish`.
    async fn events(&mut self) -> Vec<String> {
        if !self.topic_was_made_anew {
            return self.system.differences_within(SETTLE_MAX, COMMAND_MAX).await;
        }
        let mut differences = Vec::new();
        match operator::republish_missing(&self.system).await {
            Ok(said) => self.say(&format!("published again in the end: {said}")),
            Err(error) => differences.push(error),
        }
        let all = self.system.differences_within(SETTLE_MAX, COMMAND_MAX).await;
        differences.extend(all.into_iter().filter(|difference| !difference.contains(" jumps from ")));
        differences
    }

    /// Compares the dead letters with the poison records.
    async fn dead_letters(&self) -> Vec<String> {
        let audit = self.system.audit().await;
        self.say(&format!(
            "{} records, {} events, {} duplicates, {} poison records",
            audit.records,
            audit.distinct(),
            audit.duplicates,
            audit.foreign
        ));
        let undecodable = "dead_letters WHERE reason = 'undecodable' AND NOT of_earlier_log";
        let undecodable = self.system.count(undecodable).await;
        let others = "SELECT coalesce(string_agg(reason || ' ' || error, '; '), '') FROM dead_letters WHERE reason <> 'undecodable'";
        let others = self.system.database.value(others).await;
        let mut differences = Vec::new();
        if undecodable != audit.foreign {
            differences
                .push(format!("{} records are not events, {undecodable} were dead-lettered", audit.foreign));
        }
        if !others.is_empty() {
            differences.push(format!("dead-lettered without poison: {others}"));
        }
        differences
    }
}

fn describe(fault: &Fault) -> String {
    match fault {
        Fault::Kill(slot) => format!("kill -9 {}", SLOTS[*slot].0),
        Fault::Terminate(slot) => format!("SIGTERM {}", SLOTS[*slot].0),
        Fault::Freeze(slot, time) => format!("freeze {} for {time:?}", SLOTS[*slot].0),
        Fault::FailAt(slot, point) => format!("{} fails at {point}", SLOTS[*slot].0),
        Fault::Throttle((name, value), time) => format!("the roles get {name}={value} for {time:?}"),
        Fault::TopicAnew => "transactions.v1 is deleted and created again".to_owned(),
        Fault::WrongBroker(command) => format!("{command} is started without the settings of Kafka"),
        Fault::Setting(setting, scope, time) => {
            format!("{setting} as a default of the {scope:?} for {time:?}")
        }
        Fault::WrongClock(slot, offset) => {
            format!("{} gets a clock that is wrong by {offset}", SLOTS[*slot].0)
        }
        Fault::LeaveOpen(time, true) => format!("a transaction is left open for {time:?} and then committed"),
        Fault::LeaveOpen(time, false) => {
            format!("a transaction is left open for {time:?} and never committed")
        }
        other => format!("{other:?}"),
    }
}

/// The name of the fault in the final table.
fn kind(fault: &Fault) -> String {
    match fault {
        Fault::Kill(slot) => format!("kill -9 {}", SLOTS[*slot].1),
        Fault::Terminate(slot) => format!("SIGTERM {}", SLOTS[*slot].1),
        Fault::Freeze(slot, _) => format!("SIGSTOP and SIGCONT {}", SLOTS[*slot].1),
        Fault::Throttle((name, _), _) => format!("Throttle {name}"),
        Fault::WrongBroker(command) => format!("WrongBroker {command}"),
        Fault::Setting(setting, ..) => format!("Setting {setting}"),
        Fault::WrongClock(slot, _) => format!("wrong clock of {}", SLOTS[*slot].1),
        Fault::FailAt(_, point) => {
            let (point, how) = point.split_once('@').unwrap_or((point, ""));
            format!("{} at {point}", if how.ends_with("stop") { "frozen" } else { "killed" })
        }
        other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
    }
}
