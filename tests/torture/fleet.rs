//! The processes. As an orchestrator does, the fleet starts a process again when it has ended, and it checks why it ended.

use std::{
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{operator::CLIENT_ID, schedule::SLOTS};
use crate::support::{binary::Binary, system::System};

/// A fail point can freeze its process; the fleet thaws it after this time.
const FAIL_POINT_FREEZE: Duration = Duration::from_millis(2_500);
/// A role stops within 5 s; the rest is for a machine with nine processes on two cores.
const STOP_MAX: Duration = Duration::from_secs(7);
/// In these tests a consumer is killed or loses its leases every few seconds, so three attempts in a row at a good
/// record may fail by chance.
const ATTEMPTS_MAX: &str = "9";
/// The message of a relay whose topic was deleted.
const NO_TOPIC: &str = "topic transactions.v1 does not exist";
/// An orchestrator waits before it restarts a process that ended immediately.
const PAUSE_AFTER_FAILED_START: Duration = Duration::from_millis(500);

/// All processes.
pub struct Fleet {
    slots: Vec<Slot>,
    /// Forbidden behaviour that was seen.
    pub differences: Vec<String>,
    pub starts: usize,
    /// Starts that failed because Kafka or PostgreSQL was away.
    pub failed_starts: usize,
    /// Whether a relay may end because its topic does not exist.
    pub topic_may_be_missing: bool,
}

struct Slot {
    name: &'static str,
    role: &'static str,
    /// The address of the API, which stays the same.
    listen: Option<String>,
    wanted: bool,
    running: Option<Binary>,
    may_be_killed: bool,
    stopping_since: Option<Instant>,
    thaws_at: Option<Instant>,
    /// The process is not started again before this moment.
    paused_until: Option<Instant>,
    /// The fail point of the next start.
    fail_point: Option<String>,
    /// The offset of the clock at the next start.
    clock_offset: Option<&'static str>,
}

impl Fleet {
    /// Creates the fleet without starting a process.
    pub fn new() -> Self {
        let slots = SLOTS.into_iter().map(|(name, role)| Slot {
            name,
            role,
            listen: (role == "serve").then(free_address),
            wanted: true,
            running: None,
            may_be_killed: false,
            stopping_since: None,
            thaws_at: None,
            paused_until: None,
            fail_point: None,
            clock_offset: None,
        });
        Self {
            slots: slots.collect(),
            differences: Vec::new(),
            starts: 0,
            failed_starts: 0,
            topic_may_be_missing: false,
        }
    }

    /// The addresses of the API.
    pub fn urls(&self) -> Vec<String> {
        self.slots
            .iter()
            .filter_map(|slot| slot.listen.as_ref())
            .map(|address| format!("http://{address}"))
            .collect()
    }

    /// Checks every process: thaws it in time, checks why it ended, and starts it again.
    pub fn tend(&mut self, system: &System) {
        for slot in &mut self.slots {
            slot.thaw_in_time();
            if let Some(ended) = slot.ended() {
                match ended {
                    Ended::Expected => {}
                    Ended::WithoutTopic(_) if self.topic_may_be_missing => {}
                    Ended::NotStarted => {
                        self.failed_starts += 1;
                        slot.paused_until = Some(Instant::now() + PAUSE_AFTER_FAILED_START);
                    }
                    Ended::Unexpected(how) | Ended::WithoutTopic(how) => self.differences.push(how),
                }
            }
            let is_paused = slot.paused_until.is_some_and(|until| until > Instant::now());
            if slot.wanted && slot.running.is_none() && !is_paused {
                slot.start(system);
                self.starts += 1;
            }
        }
    }

    /// Kills a process. Returns whether it runs.
    pub fn kill(&mut self, number: usize) -> bool {
        let slot = &mut self.slots[number];
        let runs = slot.running.as_ref().is_some_and(|running| !running.has_ended());
        slot.may_be_killed = true;
        slot.signal(Signal::SIGKILL);
        runs
    }

    pub fn terminate(&mut self, number: usize) {
        self.slots[number].stop();
    }

    pub fn freeze(&mut self, number: usize, time: Duration) {
        let slot = &mut self.slots[number];
        slot.signal(Signal::SIGSTOP);
        slot.thaws_at = Some(Instant::now() + time);
    }

    pub fn fail_at(&mut self, number: usize, point: String) {
        self.slots[number].fail_point = Some(point);
        self.kill(number);
    }

    pub fn wrong_clock(&mut self, number: usize, offset: &'static str) {
        self.slots[number].clock_offset = Some(offset);
        self.kill(number);
    }

    /// Runs this many of the slots and asks the others to stop.
    pub fn scale(&mut self, slots: std::ops::Range<usize>, count: usize) {
        for (index, slot) in self.slots[slots].iter_mut().enumerate() {
            slot.wanted = index < count;
            if !slot.wanted {
                slot.stop();
            }
        }
    }

    /// Ends all faults: everything runs, and nothing fails on purpose.
    pub fn heal(&mut self) {
        for number in 0..self.slots.len() {
            self.slots[number].thaws_at = None;
            self.slots[number].signal(Signal::SIGCONT);
            self.slots[number].wanted = true;
            self.slots[number].fail_point = None;
            if self.slots[number].may_be_killed {
                self.kill(number);
            }
        }
    }

    /// Asks all processes to stop and reports those that do not stop in time.
    pub async fn stop(&mut self) {
        for slot in &mut self.slots {
            slot.wanted = false;
            slot.stop();
        }
        let deadline = Instant::now() + STOP_MAX;
        while self.slots.iter().any(|slot| slot.running.is_some()) {
            for slot in &mut self.slots {
                if let Some(Ended::Unexpected(how) | Ended::WithoutTopic(how)) = slot.ended() {
                    self.differences.push(how);
                }
            }
            if Instant::now() > deadline + STOP_MAX {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

enum Ended {
    /// The fleet ended it.
    Expected,
    /// A relay stopped because its topic does not exist.
    WithoutTopic(String),
    /// Kafka or PostgreSQL was away at start; an orchestrator retries.
    NotStarted,
    /// It ended in a way that is not allowed.
    Unexpected(String),
}

impl Slot {
    fn start(&mut self, system: &System) {
        let mut more = vec![("LEDGER_BROKER__KAFKA__CLIENT_ID", CLIENT_ID)];
        if let Some(listen) = &self.listen {
            more.extend([("LEDGER_SERVE__LISTEN", listen.as_str()), ("LEDGER_ADMIN__LISTEN", "off")]);
        }
        if self.role == "consume-risk" {
            more.push(("LEDGER_CONSUME_RISK__ATTEMPTS_MAX", ATTEMPTS_MAX));
        }
        let fail_point = self.fail_point.take();
        if let Some(point) = &fail_point {
            more.push(("LEDGER_FAIL_POINT", point));
        }
        more.extend(self.clock_offset.take().map(|offset| ("LEDGER_CLOCK_OFFSET", offset)));
        self.running = Some(system.start(self.role, &more));
        self.may_be_killed = fail_point.is_some();
        (self.stopping_since, self.thaws_at) = (None, None);
    }

    fn signal(&mut self, signal: Signal) {
        // The kernel does not reuse the process id before the process is waited for.
        if let Some(running) = &self.running {
            running.signal(signal);
        }
    }

    fn stop(&mut self) {
        if self.running.is_some() && self.stopping_since.is_none() {
            self.thaws_at = None;
            self.signal(Signal::SIGCONT);
            self.signal(Signal::SIGTERM);
            self.stopping_since = Some(Instant::now());
        }
    }

    fn thaw_in_time(&mut self) {
        let Some(running) = &self.running else { return };
        match self.thaws_at {
            None if running.is_frozen() => self.thaws_at = Some(Instant::now() + FAIL_POINT_FREEZE),
            Some(at) if at <= Instant::now() => {
                self.thaws_at = None;
                self.signal(Signal::SIGCONT);
            }
            _ => {}
        }
    }

    /// Returns how the process ended, if it has. Kills a process that does not stop in time.
    fn ended(&mut self) -> Option<Ended> {
        let running = self.running.as_mut()?;
        let Some(status) = running.ended() else {
            let since =
                self.stopping_since.filter(|since| since.elapsed() > STOP_MAX && !running.is_frozen())?;
            let how = self.report(&format!("does not stop: {:?} after SIGTERM", since.elapsed()));
            self.running = None;
            return Some(Ended::Unexpected(how));
        };
        let ended = self.classify(status);
        self.running = None;
        Some(ended)
    }

    fn classify(&self, status: ExitStatus) -> Ended {
        let log = self.running.as_ref().map(Binary::stderr).unwrap_or_default();
        if log.contains("panicked") || log.contains("by a bug") {
            return Ended::Unexpected(self.report("panicked"));
        }
        let was_at_work = log.contains("started role=");
        match (status.signal(), status.code()) {
            (Some(9), _) if self.may_be_killed => Ended::Expected,
            (_, Some(0)) if self.stopping_since.is_some() => Ended::Expected,
            // The signal came before the process handles signals, so it has not done anything yet.
            (Some(15), _) if self.stopping_since.is_some() && log.is_empty() => Ended::Expected,
            (_, Some(1)) if !was_at_work => Ended::NotStarted,
            (_, Some(1)) if self.role == "relay" && log.contains(NO_TOPIC) => {
                Ended::WithoutTopic(self.report("stopped: there is no topic"))
            }
            _ => Ended::Unexpected(self.report(&format!("ended by itself with {status}"))),
        }
    }

    fn report(&self, what: &str) -> String {
        let log = self.running.as_ref().map(Binary::stderr).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
        format!("{} {what}:\n    {last}", self.name)
    }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}
