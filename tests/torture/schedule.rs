//! The schedule of the faults: a pure function of the seed.

use std::time::Duration;

/// The processes: name and role.
pub const SLOTS: [(&str, &str); 8] = [
    ("serve-0", "serve"),
    ("serve-1", "serve"),
    ("relay-0", "relay"),
    ("relay-1", "relay"),
    ("consumer-0", "consume-risk"),
    ("consumer-1", "consume-risk"),
    ("consumer-2", "consume-risk"),
    ("consumer-3", "consume-risk"),
];

/// The slots of the consumers, whose number changes.
pub const CONSUMERS: std::ops::Range<usize> = 4..8;

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// `kill -9`.
    Kill(usize),
    /// SIGTERM, then a new process.
    Terminate(usize),
    /// SIGSTOP, then SIGCONT after this time.
    Freeze(usize, Duration),
    /// Killed, then a new process that fails at this point.
    FailAt(usize, String),
    /// Killed, then a new process whose clock is wrong by this offset, or jumps by it.
    WrongClock(usize, &'static str),
    /// This many consumers from now on.
    Scale(usize),
    KafkaKill(Duration),
    KafkaFreeze(Duration),
    KafkaHold(Duration),
    KafkaSlow(Duration, Duration),
    KafkaCutAfter(u32),
    KafkaReset,
    PostgresCrash,
    PostgresRestart,
    PostgresHold(Duration),
    PostgresSlow(Duration, Duration),
    PostgresCutAfter(u32),
    PostgresReset,
    /// Another session locks the row of the hot account.
    LockAccount(Duration),
    /// Records of `transactions.v1` are published again.
    Double,
    /// A record that is not an event.
    Poison,
    /// Another session posts in a database transaction that stays open for this time, then commits (true) or disappears.
    LeaveOpen(Duration, bool),
    /// The last records of every partition of all topics are published again.
    DoubleTails,
    /// Kafka is killed and stays away long enough for the backlog to grow.
    KafkaAway(Duration),
}

/// One long outage of Kafka lies in each of these intervals; a shorter run has none.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(240);
const OUTAGE: Duration = Duration::from_secs(60);

/// Wrong clocks, as `LEDGER_CLOCK_OFFSET` takes them.
const WRONG_CLOCKS: [&str; 4] = ["30days", "-2h", "30days@5s", "-90s@2s"];

/// A fault and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

/// Returns all faults of a run of this length.
pub fn plan(seed: u64, length: Duration) -> Vec<Planned> {
    let mut planned = common(seed, length);
    planned.extend(rare(seed, length));
    planned.extend(outages(seed, length));
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// About one fault a second.
fn common(seed: u64, length: Duration) -> Vec<Planned> {
    let mut dice = Dice(seed);
    let mut at = Duration::from_secs(2);
    let mut planned = Vec::new();
    while at < length {
        planned.push(Planned { at, fault: fault(&mut dice) });
        at += dice.milliseconds(150, 1_600);
    }
    planned
}

/// Rare faults use random numbers of their own, so that the common ones stay the same for a seed.
fn rare(seed: u64, length: Duration) -> Vec<Planned> {
    let mut dice = Dice(!seed);
    let mut at = Duration::from_secs(4);
    let mut planned = Vec::new();
    while at < length {
        let fault = match dice.below(10) {
            0..5 => Fault::LeaveOpen(dice.milliseconds(500, 7_000), dice.below(3) > 0),
            5..8 => Fault::WrongClock(dice.below(SLOTS.len()), WRONG_CLOCKS[dice.below(WRONG_CLOCKS.len())]),
            _ => Fault::DoubleTails,
        };
        planned.push(Planned { at, fault });
        at += dice.milliseconds(3_000, 15_000);
    }
    planned
}

/// Returns one outage for each interval. It begins and ends far enough from the ends of the interval that the time
/// before it and the recovery after it are tested too.
fn outages(seed: u64, length: Duration) -> Vec<Planned> {
    let mut dice = Dice(seed.rotate_left(32));
    let mut planned = Vec::new();
    let mut begin = Duration::ZERO;
    while begin + OUTAGE_INTERVAL <= length {
        let at = begin + dice.milliseconds(30_000, 120_000);
        planned.push(Planned { at, fault: Fault::KafkaAway(OUTAGE) });
        begin += OUTAGE_INTERVAL;
    }
    planned
}

fn fault(dice: &mut Dice) -> Fault {
    let slot = dice.below(SLOTS.len());
    match dice.below(100) {
        0..14 => Fault::Kill(slot),
        14..22 => Fault::Terminate(slot),
        22..34 => Fault::Freeze(slot, dice.milliseconds(300, 3_500)),
        34..50 => Fault::FailAt(slot, fail_point(dice, SLOTS[slot].1)),
        50..54 => Fault::Scale(1 + dice.below(CONSUMERS.len())),
        54..58 => Fault::KafkaKill(dice.milliseconds(0, 3_000)),
        58..62 => Fault::KafkaFreeze(dice.milliseconds(500, 4_000)),
        62..67 => Fault::KafkaHold(dice.milliseconds(500, 5_000)),
        67..69 => Fault::KafkaSlow(dice.milliseconds(20, 300), dice.milliseconds(1_000, 4_000)),
        69..74 => Fault::KafkaCutAfter(u32::try_from(dice.below(20_000)).expect("small")),
        74..77 => Fault::KafkaReset,
        77..80 => Fault::PostgresCrash,
        80..82 => Fault::PostgresRestart,
        82..84 => Fault::PostgresHold(dice.milliseconds(300, 4_000)),
        84..85 => Fault::PostgresSlow(dice.milliseconds(2, 30), dice.milliseconds(1_000, 3_000)),
        85..90 => Fault::PostgresCutAfter(u32::try_from(dice.below(60_000)).expect("small")),
        90..92 => Fault::PostgresReset,
        92..94 => Fault::LockAccount(dice.milliseconds(200, 2_500)),
        94..98 => Fault::Double,
        _ => Fault::Poison,
    }
}

fn fail_point(dice: &mut Dice, role: &str) -> String {
    let points: Vec<&str> = ledger::runtime::fail_point::FAIL_POINTS
        .into_iter()
        // Points that only dead letters reach are too rare.
        .filter(|point| point.starts_with(&format!("{role}/")) && !point.contains("dead-letter"))
        .collect();
    let point = points[dice.below(points.len())];
    let count = 1 + dice.below(if point.ends_with("scoring") { 200 } else { 12 });
    let how = if dice.below(3) == 0 { "stop" } else { "kill" };
    format!("{point}@{count}:{how}")
}

/// SplitMix64, written here so that a seed gives the same numbers with every version of a library.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("small");
        usize::try_from(self.next() % end).expect("small")
    }

    fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from + 1)).expect("small"))
    }
}

#[test]
fn a_seed_always_gives_the_same_schedule() {
    let minute = Duration::from_secs(60);
    assert_eq!(plan(7, minute), plan(7, minute));
    assert_ne!(plan(7, minute), plan(8, minute));
    assert_eq!(plan(7, minute / 2), plan(7, minute)[..plan(7, minute / 2).len()]);
    assert!(plan(7, minute).len() > 40);
    let outages = |minutes| {
        plan(7, minute * minutes).iter().filter(|planned| planned.fault == Fault::KafkaAway(OUTAGE)).count()
    };
    assert_eq!([outages(1), outages(4), outages(10)], [0, 1, 2]);
}
