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
    /// The client id of the roles has this quota for this time.
    Throttle((&'static str, f64), Duration),
    /// `transactions.v1` is deleted under all roles, which create it again, and an operator ends the halts.
    TopicAnew,
    /// This command is started without the settings of Kafka.
    WrongBroker(&'static str),
    /// A default of the database, or of the role in it, changes for this time. All sessions end at its begin and end.
    Setting(&'static str, Scope, Duration),
}

/// The owner of a default setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scope {
    Database,
    Role,
}

/// Which faults happen how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// All kinds.
    All,
    /// Above all kills, with this pause on average, and now and then a fault of the environment.
    Kills(Duration),
}

/// One long outage of Kafka lies in each of these intervals; a shorter run has none.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(240);
const OUTAGE: Duration = Duration::from_secs(60);

/// The slots that are killed in a run of kills: two processes of each role.
pub const KILLED: usize = 6;

/// Client quotas that slow the roles down.
const QUOTAS: [(&str, f64); 3] =
    [("producer_byte_rate", 30_000.0), ("consumer_byte_rate", 30_000.0), ("request_percentage", 1.0)];

/// Commands that use the broker.
const BROKER_COMMANDS: [&str; 3] = ["relay", "consume-risk", "verify"];

/// Defaults that would change a result, end a session or refuse a statement. A locale that the machine does not have is
/// refused by the server.
const SETTINGS: [&str; 14] = [
    "synchronous_commit=off",
    "statement_timeout=20ms",
    "search_path=other",
    "default_transaction_isolation=serializable",
    "default_transaction_read_only=on",
    "lock_timeout=1ms",
    "idle_in_transaction_session_timeout=50ms",
    "row_security=on",
    "bytea_output=escape",
    "standard_conforming_strings=off",
    "client_encoding=LATIN1",
    "TimeZone=Pacific/Kiritimati",
    "DateStyle=SQL, DMY",
    "lc_messages=de_DE.UTF-8",
];

/// Wrong clocks, as `LEDGER_CLOCK_OFFSET` takes them.
const WRONG_CLOCKS: [&str; 4] = ["30days", "-2h", "30days@5s", "-90s@2s"];

/// A fault and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

/// Returns all faults of a run of this length.
pub fn plan(seed: u64, length: Duration, mode: Mode) -> Vec<Planned> {
    let mut planned = match mode {
        Mode::All => [common(seed, length), outages(seed, length)].concat(),
        Mode::Kills(pause) => kills(seed, length, pause),
    };
    planned.extend(rare(seed, length));
    planned.extend(environment(seed, length, mode));
    planned.extend(topics_made_anew(seed, length, mode));
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// Kills of a role, and now and then of PostgreSQL or Kafka.
fn kills(seed: u64, length: Duration, pause: Duration) -> Vec<Planned> {
    let pause_ms = usize::try_from(pause.as_millis()).expect("short");
    let mut dice = Dice(seed);
    let mut at = Duration::from_secs(2);
    let mut planned = Vec::new();
    while at < length {
        let slot = dice.below(KILLED);
        let fault = match dice.below(100) {
            0..88 => Fault::Kill(slot),
            88..95 => Fault::PostgresCrash,
            _ => Fault::KafkaKill(dice.milliseconds(0, 500)),
        };
        planned.push(Planned { at, fault });
        at += dice.milliseconds(pause_ms / 2, pause_ms * 3 / 2);
    }
    planned
}

/// Faults of the environment. They use random numbers of their own, as the rare ones do.
fn environment(seed: u64, length: Duration, mode: Mode) -> Vec<Planned> {
    let (pause_min, pause_max) = if mode == Mode::All { (5_000, 15_000) } else { (30_000, 60_000) };
    let mut dice = Dice(seed.rotate_left(16));
    let mut kinds = Deck::of((0..10).collect());
    let mut quotas = Deck::of(QUOTAS.to_vec());
    let mut commands = Deck::of(BROKER_COMMANDS.to_vec());
    let scopes = [Scope::Database, Scope::Role];
    let mut settings =
        Deck::of(SETTINGS.iter().flat_map(|setting| scopes.map(|scope| (*setting, scope))).collect());
    let mut at = Duration::from_secs(5);
    let mut planned = Vec::new();
    while at < length {
        let fault = match kinds.draw(&mut dice) {
            0..3 => Fault::Throttle(quotas.draw(&mut dice), dice.milliseconds(3_000, 10_000)),
            3..5 => Fault::WrongBroker(commands.draw(&mut dice)),
            _ => {
                let (setting, scope) = settings.draw(&mut dice);
                Fault::Setting(setting, scope, dice.milliseconds(2_000, 10_000))
            }
        };
        planned.push(Planned { at, fault });
        at += dice.milliseconds(pause_min, pause_max);
    }
    planned
}

/// Plans one deletion of the topic in each interval; a role creates it again. The recovery publishes the whole ledger
/// again, so a long run has few deletions.
fn topics_made_anew(seed: u64, length: Duration, mode: Mode) -> Vec<Planned> {
    let interval = Duration::from_secs(if mode == Mode::All { 100 } else { 1_500 });
    let mut dice = Dice(seed.rotate_left(48));
    let mut planned = Vec::new();
    let mut begin = Duration::ZERO;
    while begin + interval <= length {
        let at = begin + dice.milliseconds(10_000, 50_000);
        planned.push(Planned { at, fault: Fault::TopicAnew });
        begin += interval;
    }
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

/// Cards that are drawn in random order, each once before any is drawn again.
struct Deck<T> {
    cards: Vec<T>,
    drawn: usize,
}

impl<T: Copy> Deck<T> {
    fn of(cards: Vec<T>) -> Self {
        Self { cards, drawn: 0 }
    }

    fn draw(&mut self, dice: &mut Dice) -> T {
        let next = self.drawn % self.cards.len();
        let chosen = next + dice.below(self.cards.len() - next);
        self.cards.swap(next, chosen);
        self.drawn += 1;
        self.cards[next]
    }
}

/// An hour of kills changes every setting of the list, as a default of the database and of the role.
#[test]
fn a_long_run_draws_every_setting_for_both_scopes() {
    let hour = Duration::from_secs(3_600);
    for mode in [Mode::All, Mode::Kills(Duration::from_millis(2_900))] {
        for seed in 1..=20 {
            let drawn: std::collections::HashSet<String> = plan(seed, hour, mode)
                .iter()
                .filter_map(|planned| match planned.fault {
                    Fault::Setting(setting, scope, _) => Some(format!("{setting} {scope:?}")),
                    _ => None,
                })
                .collect();
            assert_eq!(drawn.len(), 2 * SETTINGS.len(), "seed {seed}, {mode:?}: {drawn:?}");
        }
    }
}

#[test]
fn a_seed_always_gives_the_same_schedule() {
    let minute = Duration::from_secs(60);
    let kills = Mode::Kills(Duration::from_millis(2_900));
    for mode in [Mode::All, kills] {
        let plan = |seed, length| plan(seed, length, mode);
        assert_eq!(plan(7, minute), plan(7, minute));
        assert_ne!(plan(7, minute), plan(8, minute));
        assert_eq!(plan(7, minute / 2), plan(7, minute)[..plan(7, minute / 2).len()]);
    }
    assert!(plan(7, minute, Mode::All).len() > 40);
    let count = |minutes, mode, wanted: fn(&Fault) -> bool| {
        plan(7, minute * minutes, mode).iter().filter(|planned| wanted(&planned.fault)).count()
    };
    let outage = |fault: &Fault| *fault == Fault::KafkaAway(OUTAGE);
    assert_eq!([1, 4, 10].map(|minutes| count(minutes, Mode::All, outage)), [0, 1, 2]);
    let topic = |fault: &Fault| *fault == Fault::TopicAnew;
    assert_eq!([1, 2, 10].map(|minutes| count(minutes, Mode::All, topic)), [0, 1, 6]);
    let kill = |fault: &Fault| matches!(fault, Fault::Kill(_) | Fault::KafkaKill(_) | Fault::PostgresCrash);
    assert!(count(60, kills, kill) > 1_150);
}
