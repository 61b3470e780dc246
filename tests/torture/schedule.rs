//! What goes wrong when: a pure function of the seed.

use std::time::Duration;

/// The processes that there are.
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

/// The slots of the consumers, which come and go.
pub const CONSUMERS: std::ops::Range<usize> = 4..8;

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// `kill -9`.
    Kill(usize),
    /// SIGTERM, and a new one in its place.
    Terminate(usize),
    /// SIGSTOP, and SIGCONT after that time.
    Freeze(usize, Duration),
    /// Killed, and a new one that fails at a point.
    FailAt(usize, String),
    /// So many consumers from now on.
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
    /// Somebody holds the hot account's row.
    LockAccount(Duration),
    /// Records of the topic are published again.
    Double,
    /// A record that is no event.
    Poison,
    /// Somebody posts in a transaction that stays open for that time, and then commits, or else vanishes.
    LeaveOpen(Duration, bool),
    /// The last records of every partition of all topics are published again.
    DoubleTails,
    /// Kafka is killed and stays away for so long that backlogs grow.
    KafkaAway(Duration),
}

/// There is one such outage in each of these, so none in a short run.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(240);
const OUTAGE: Duration = Duration::from_secs(60);

/// A fault and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

/// All that goes wrong within that time.
pub fn plan(seed: u64, length: Duration) -> Vec<Planned> {
    let mut planned = common(seed, length);
    planned.extend(rare(seed, length));
    planned.extend(outages(seed, length));
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// About one a second.
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

/// With dice of their own, so that what is common stays the same for a seed.
fn rare(seed: u64, length: Duration) -> Vec<Planned> {
    let mut dice = Dice(!seed);
    let mut at = Duration::from_secs(4);
    let mut planned = Vec::new();
    while at < length {
        let fault = match dice.below(10) {
            0..7 => Fault::LeaveOpen(dice.milliseconds(500, 7_000), dice.below(3) > 0),
            _ => Fault::DoubleTails,
        };
        planned.push(Planned { at, fault });
        at += dice.milliseconds(3_000, 15_000);
    }
    planned
}

/// Late enough that there is something to be missed, early enough to see what comes after.
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
        // Reached by dead letters only, which are few: nearly never.
        .filter(|point| point.starts_with(&format!("{role}/")) && !point.contains("aside"))
        .collect();
    let point = points[dice.below(points.len())];
    let turn = 1 + dice.below(if point.ends_with("scoring") { 200 } else { 12 });
    let how = if dice.below(3) == 0 { "stop" } else { "kill" };
    format!("{point}@{turn}:{how}")
}

/// SplitMix64: the same numbers for a seed for ever, whatever a library does.
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
fn a_seed_is_a_schedule() {
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
