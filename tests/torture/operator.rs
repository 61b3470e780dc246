//! Faults that an operator causes, and their way out, beside the other faults. A step that fails because a server is away
//! is repeated.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ledger::event::TRANSACTIONS_TOPIC;

use super::settings;
use crate::support::{
    kafka_admin::{change_quota, delete_topic},
    system::System,
};

/// The client id of the roles, which has the quotas.
pub const CLIENT_ID: &str = "torture";

/// The longest time for one step, with all its repetitions.
const STEP_MAX: Duration = Duration::from_secs(300);
const STEP_PAUSE: Duration = Duration::from_millis(500);
/// A command is killed after this time. Long, because it may read all events of a run on a busy machine.
pub const COMMAND_MAX: Duration = Duration::from_secs(900);

/// The message of a start without the settings of Kafka.
const REFUSAL: &str = "but broker.kind is postgres; configure the recorded broker";

/// Prints lines with the time since the beginning of the run.
#[derive(Clone, Copy)]
pub struct Log(pub Instant);

impl Log {
    pub fn say(self, what: &str) {
        println!("{:7.2} s  {what}", self.0.elapsed().as_secs_f64());
    }
}

/// Sets a client quota, waits and lifts it.
pub async fn throttle(
    log: Log,
    system: Arc<System>,
    (name, value): (&'static str, f64),
    time: Duration,
) -> Result<(), String> {
    let kafka = system.kafka().broker.address;
    repeat("the beginning of a quota", || change_quota(kafka, CLIENT_ID, name, Some(value))).await?;
    log.say(&format!("{name} is limited to {value}"));
    tokio::time::sleep(time).await;
    repeat("the end of a quota", || change_quota(kafka, CLIENT_ID, name, None)).await?;
    log.say(&format!("{name} is not limited any more"));
    Ok(())
}

/// Starts a command without the settings of Kafka. It must be refused, or fail because PostgreSQL is away.
pub async fn start_with_wrong_broker(
    log: Log,
    system: Arc<System>,
    command: &'static str,
) -> Result<(), String> {
    let mut process = system.start(command, &[("LEDGER_BROKER__KIND", "postgres")]);
    let deadline = Instant::now() + STEP_MAX;
    let status = loop {
        match process.ended() {
            Some(status) => break status,
            None if process.stderr().contains("started role=") || Instant::now() > deadline => {
                return Err(format!("{command} works with the wrong broker: {}", process.stderr()));
            }
            None => tokio::time::sleep(STEP_PAUSE).await,
        }
    };
    // The reader of the pipe may be late.
    tokio::time::sleep(STEP_PAUSE).await;
    let stderr = process.stderr();
    let was_refused = stderr.contains(REFUSAL);
    let said = if was_refused { "it is refused" } else { "it ends before the comparison" };
    log.say(&format!("{command} without the settings of Kafka: {said}"));
    let stdout = process.stdout();
    match status.code() {
        // A `verify` that is not refused prints a report, and ends with 1 too.
        Some(1) if !stderr.contains("started role=") && stdout.is_empty() => Ok(()),
        _ => Err(format!("{command} without the settings of Kafka ends with {status}: {stderr}{stdout}")),
    }
}

/// Deletes the topic of transactions under the roles, which create it again. Waits until all partitions are halted with
/// the reason, and takes the documented way out.
pub async fn make_topic_anew(log: Log, system: Arc<System>) -> Result<(), String> {
    let kafka = system.kafka().broker.address;
    repeat("the deletion of the topic", || delete_topic(kafka, TRANSACTIONS_TOPIC)).await?;
    log.say("the topic is deleted");
    repeat("the halt of all partitions with its reason", || are_halted(Arc::clone(&system))).await?;
    log.say("all partitions are halted: the topic was created again");
    let reset = &["consumers", "reset", "--group", "risk", "--to", "earliest"];
    repeat("the reset", || command(Arc::clone(&system), reset)).await?;
    log.say("the positions are reset");
    let republished = republish_missing(&system).await?;
    log.say(&format!("published again: {republished}"));
    Ok(())
}

async fn are_halted(system: Arc<System>) -> Result<(), String> {
    let halted = "SELECT count(*) FROM consumer_positions WHERE halt_reason LIKE '%created again%'";
    match settings::observer(&system.database).try_value(halted).await?.as_str() {
        "6" => Ok(()),
        other => Err(format!("{other} partitions are halted")),
    }
}

/// Publishes the events that the topic lost. Returns the last line of the command.
pub async fn republish_missing(system: &Arc<System>) -> Result<String, String> {
    let arguments = &["republish", "--missing", "--yes", "--by", "torture"];
    let output = repeat("the republication", || command(Arc::clone(system), arguments)).await?;
    Ok(output.lines().last().unwrap_or_default().to_owned())
}

async fn command(system: Arc<System>, arguments: &'static [&'static str]) -> Result<String, String> {
    let run = move || system.run_within(arguments, COMMAND_MAX);
    let output = tokio::task::spawn_blocking(run).await.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// Repeats a step until it succeeds. Returns the last error if that takes too long.
async fn repeat<T, Step>(what: &str, step: impl Fn() -> Step) -> Result<T, String>
where
    Step: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + STEP_MAX;
    loop {
        match step().await {
            Err(error) if Instant::now() > deadline => {
                return Err(format!("{what} does not succeed: {error}"));
            }
            Err(_) => tokio::time::sleep(STEP_PAUSE).await,
            done => return done,
        }
    }
}
