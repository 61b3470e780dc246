//! The processes: each is started again when it has ended, as an orchestrator does, and how it ended is judged.

use std::{
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::schedule::SLOTS;
use crate::support::{binary::Binary, system::System};

/// A fail point that freezes leaves the thaw to us.
const FAIL_POINT_FREEZE: Duration = Duration::from_millis(2_500);
/// 5 s are promised; the rest is for a machine that has nine processes on two cores.
const STOP_MAX: Duration = Duration::from_secs(7);
/// Here a consumer is ended or loses its leases every few seconds, so that three times in a row on one healthy record
/// is no more than chance.
const ATTEMPTS_MAX: &str = "9";
/// An orchestrator leaves a process alone for a while that ended as soon as it began.
const PAUSE_AFTER_VAIN_START: Duration = Duration::from_millis(500);

/// All of them.
pub struct Fleet {
    slots: Vec<Slot>,
    /// What no role may do.
    pub differences: Vec<String>,
    /// Starts in all, and those that ended because something was away.
    pub starts: usize,
    pub starts_in_vain: usize,
}

struct Slot {
    name: &'static str,
    role: &'static str,
    /// The API's address stays.
    listen: Option<String>,
    wanted: bool,
    running: Option<Binary>,
    may_be_killed: bool,
    stopping_since: Option<Instant>,
    thaws_at: Option<Instant>,
    /// Not started again before.
    rests_until: Option<Instant>,
    /// For the next start.
    fail_point: Option<String>,
}

impl Fleet {
    /// None runs yet.
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
            rests_until: None,
            fail_point: None,
        });
        Self { slots: slots.collect(), differences: Vec::new(), starts: 0, starts_in_vain: 0 }
    }

    /// Where the API listens.
    pub fn urls(&self) -> Vec<String> {
        self.slots
            .iter()
            .filter_map(|slot| slot.listen.as_ref())
            .map(|address| format!("http://{address}"))
            .collect()
    }

    /// Looks at each: thaws, judges and starts again.
    pub fn tend(&mut self, system: &System) {
        for slot in &mut self.slots {
            slot.thaw_in_time();
            if let Some(ended) = slot.ended() {
                match ended {
                    Ended::Well => {}
                    Ended::InVain => {
                        self.starts_in_vain += 1;
                        slot.rests_until = Some(Instant::now() + PAUSE_AFTER_VAIN_START);
                    }
                    Ended::Badly(how) => self.differences.push(how),
                }
            }
            let rests = slot.rests_until.is_some_and(|until| until > Instant::now());
            if slot.wanted && slot.running.is_none() && !rests {
                slot.start(system);
                self.starts += 1;
            }
        }
    }

    pub fn kill(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        slot.may_be_killed = true;
        slot.signal(Signal::SIGKILL);
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

    /// So many of these slots run, the others are asked to stop.
    pub fn scale(&mut self, slots: std::ops::Range<usize>, count: usize) {
        for (place, slot) in self.slots[slots].iter_mut().enumerate() {
            slot.wanted = place < count;
            if !slot.wanted {
                slot.stop();
            }
        }
    }

    /// No faults any more: everything runs, and nothing fails on purpose.
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

    /// Asks all to stop and says which did not do so in time.
    pub async fn stop(&mut self) {
        for slot in &mut self.slots {
            slot.wanted = false;
            slot.stop();
        }
        let deadline = Instant::now() + STOP_MAX;
        while self.slots.iter().any(|slot| slot.running.is_some()) {
            for slot in &mut self.slots {
                if let Some(Ended::Badly(how)) = slot.ended() {
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
    Well,
    /// Something that it needs at start was away; an orchestrator tries again.
    InVain,
    Badly(String),
}

impl Slot {
    fn start(&mut self, system: &System) {
        let mut more = Vec::new();
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
        self.running = Some(system.start(self.role, &more));
        self.may_be_killed = fail_point.is_some();
        (self.stopping_since, self.thaws_at) = (None, None);
    }

    fn signal(&mut self, signal: Signal) {
        // An ended process stays ours until it is waited for, so the number is nobody else's.
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

    /// How it ended, if it has; what takes too long to stop is killed.
    fn ended(&mut self) -> Option<Ended> {
        let running = self.running.as_mut()?;
        let Some(status) = running.ended() else {
            let since =
                self.stopping_since.filter(|since| since.elapsed() > STOP_MAX && !running.is_frozen())?;
            let how = self.told(&format!("does not stop: {:?} after SIGTERM", since.elapsed()));
            self.running = None;
            return Some(Ended::Badly(how));
        };
        let judged = self.judge(status);
        self.running = None;
        Some(judged)
    }

    fn judge(&self, status: ExitStatus) -> Ended {
        let said = self.running.as_ref().map(Binary::stderr).unwrap_or_default();
        if said.contains("panicked") || said.contains("by a bug") {
            return Ended::Badly(self.told("panicked"));
        }
        let was_at_work = said.contains("started role=");
        match (status.signal(), status.code()) {
            (Some(9), _) if self.may_be_killed => Ended::Well,
            (_, Some(0)) if self.stopping_since.is_some() => Ended::Well,
            // Asked in the first milliseconds, before it listens to signals, and so before it has said or done anything.
            (Some(15), _) if self.stopping_since.is_some() && said.is_empty() => Ended::Well,
            (_, Some(1)) if !was_at_work => Ended::InVain,
            _ => Ended::Badly(self.told(&format!("ended by itself with {status}"))),
        }
    }

    fn told(&self, what: &str) -> String {
        let said = self.running.as_ref().map(Binary::stderr).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
        format!("{} {what}:\n    {last}", self.name)
    }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}
