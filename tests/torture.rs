//! `make torture`: the whole system as processes under steady load, with a random schedule of faults. Afterwards nothing
//! is lost, doubled or out of order, nothing hangs, and no role has ended by itself.
//!
//! The seed is printed first and gives the same schedule again. The effect of a fault still depends on timing.
//! `LEDGER_TORTURE_SECONDS` sets the length and `LEDGER_TORTURE_SEED` the seed. With `LEDGER_TORTURE_KILLS=2900`, most faults
//! are kills, one every 2,900 ms on average.

mod fleet;
mod operator;
mod other_sessions;
mod records;
mod run;
mod schedule;
mod settings;

use std::time::Duration;

use run::Run;
use schedule::Mode;

const SECONDS: u64 = 45;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "run it with: make torture"]
async fn nothing_is_lost_doubled_or_reordered_whatever_goes_wrong() {
    let seconds = number("LEDGER_TORTURE_SECONDS").unwrap_or(SECONDS);
    let seed = number("LEDGER_TORTURE_SEED").unwrap_or_else(|| rand::random_range(1..1_000_000));
    let (mode, kills) = match number("LEDGER_TORTURE_KILLS") {
        Some(pause) => (Mode::Kills(Duration::from_millis(pause)), format!(" KILLS={pause}")),
        None => (Mode::All, String::new()),
    };
    println!(
        "torture: {seconds} s, seed {seed}; the same schedule again: make torture SECONDS={seconds} SEED={seed}{kills}"
    );
    let Some(mut run) = Run::start(mode).await else { return };
    run.execute(schedule::plan(seed, Duration::from_secs(seconds), mode)).await;
    let differences = run.settle().await;
    for difference in differences.iter().take(40) {
        println!("DIFFERS: {difference}");
    }
    assert!(differences.is_empty(), "{} differences, seed {seed}", differences.len());
}
