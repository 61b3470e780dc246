//! `ledger consume-risk`: scores every event of `transactions.v1` once and publishes the result.
//!
//! ```text
//! transactions.v1 ─▶ reader ─▶ ledger's rows + histories ─▶ rules ─▶ one commit: assessments, outbox, position
//!                                                              └───▶ or one commit: dead letter, position
//! ```
//!
//! Guarantees:
//! - A transaction has one assessment, however often its event is delivered.
//! - A position never moves back and never passes a record that has neither a result nor a dead letter.
//! - During an outage of the database or the broker, the role waits and retries. An outage never causes a dead letter.
//! - The instances of a group share the partitions by leases.
//!
//! Deliberately absent:
//! - Kafka's own consumer groups, which cannot fence a write to PostgreSQL.
//! - A second assessment of a transaction.
//!
//! Two things happen only when an operator asks for them: [`retry_record`] retries a dead letter, and [`Backfill`]
//! assesses transactions whose events never reached the topic.

mod answer_timeout;
mod assess;
mod backfill;
mod cache;
mod dead_letter;
mod decode;
mod isolation;
mod memory_budget;
mod ownership;
mod partition;
mod reader;
mod retry;
mod rules;
mod shared_connections;
mod trace;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

pub use backfill::{Backfill, BackfillFailure, Backfilled};
pub use partition::{Attempts, LogCheck, NextAttempt, PartitionConsumer, StepOutcome};
pub use retry::{RetriedRecord, UnwrittenAssessment, retry_record};
pub use rules::read_list_file;

use crate::{
    broker::topic_specs,
    config::Overrides,
    domain::RiskLevel,
    event::{DEAD_LETTER_REASONS, RELAY_REASONS, TRANSACTIONS_TOPIC},
    risk::Ruleset,
    runtime::{Boot, BrokerWatch, Context, LeaseGroup, StartDetails, start_at_zero},
};

/// Flags of `ledger consume-risk`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// The rule file; overrides risk.rules. Without either, the rules in the binary are used
    #[arg(long, env = "LEDGER_CONSUME_RISK_RULES", value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// The consumer group; overrides consume_risk.group
    #[arg(long, env = "LEDGER_CONSUME_RISK_GROUP", value_name = "NAME")]
    pub group: Option<String>,
}

impl Args {
    /// Returns the settings that the flags override.
    pub fn overrides(&self) -> Overrides {
        let rules = self.rules.as_ref().map(|path| ("risk.rules".to_owned(), path.display().to_string()));
        let group = self.group.as_ref().map(|name| ("consume_risk.group".to_owned(), name.clone()));
        rules.into_iter().chain(group).collect()
    }
}

/// Runs the role until it is asked to stop. SIGHUP makes it read the rule file again.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    run_role(context, Some(hangup)).await
}

/// Runs the role beside others in one process, which SIGHUP still ends.
pub async fn run_beside_others(context: Context) -> anyhow::Result<()> {
    run_role(context, None).await
}

async fn run_role(context: Context, hangup: Option<Signal>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    let mut boot = Boot::new(&context, "consume-risk");
    drop(boot.connect_to_write().await?);
    let rules = watch_rules(&context, hangup).await?;
    let mut topics = topic_specs(&config);
    topics.retain(|topic| topic.name == TRANSACTIONS_TOPIC);
    let (broker, record) = boot.broker_with_topics(&topics).await?;
    let (context, broker_watch) = BrokerWatch::start(&context, Arc::clone(&broker), record);
    let partitions = broker.partitions(TRANSACTIONS_TOPIC).await.context("transactions.v1")?;
    if broker.log_id(TRANSACTIONS_TOPIC, 0).await?.is_none() {
        tracing::warn!(
            "this broker has no topic ids (Kafka has them since 3.1): a topic that is deleted and created again is noticed only \
             while its log is shorter than the position"
        );
    }
    let group = &config.consume_risk.group;
    let names = (0..partitions).map(|partition| ownership::lease_name(group, partition)).collect();
    let (members, ttl) = (format!("consume-risk/{group}"), config.consume_risk.lease_ttl);
    let generation = boot.broker_generation();
    let ruleset = Some(rules.borrow().version().to_string());
    let admin = boot.started(StartDetails {
        group: Some(group),
        partitions: Some(partitions),
        ruleset,
        ..StartDetails::default()
    })?;
    // After the start line, which names the owner of the leases.
    let leases = LeaseGroup::join_in_generation(&context, generation, &members, names, ttl);
    start_counters();
    context.health.set_ready(true);
    ownership::Ownership::new(context.clone(), broker, rules).run(leases).await;
    context.health.set_ready(false);
    admin.stop().await;
    broker_watch.end().await
}

/// Starts the role's counters at 0.
fn start_counters() {
    let (_, reasons) = DEAD_LETTER_REASONS.split_at(RELAY_REASONS);
    start_at_zero("ledger_dead_letters_total", "reason", reasons);
    start_at_zero("ledger_consumer_events_total", "outcome", &["assessed", "duplicate", "dead_lettered"]);
    start_at_zero("ledger_risk_assessments_total", "level", &RiskLevel::ALL.map(RiskLevel::as_str));
    start_at_zero("ledger_risk_histories_total", "source", &["memory", "ledger"]);
    start_at_zero("ledger_risk_rules_reloads_total", "outcome", &["loaded", "refused"]);
    metrics::counter!("ledger_consumer_sequence_gaps_total").increment(0);
}

/// Loads the rules. If they come from a file, the receiver follows its changes.
async fn watch_rules(
    context: &Context,
    hangup: Option<Signal>,
) -> anyhow::Result<watch::Receiver<Arc<Ruleset>>> {
    let path = context.config.risk.rules.clone();
    let ruleset = rules::load(path.as_deref()).await?;
    rules::show(&ruleset);
    let (sender, receiver) = watch::channel(Arc::new(ruleset));
    tokio::spawn(rules::follow(path, sender, hangup, context.stop.clone()));
    Ok(receiver)
}

/// Loads the rules of a file.
pub async fn load_rule_file(path: &Path) -> anyhow::Result<Ruleset> {
    rules::load(Some(path)).await
}

/// Loads the configured rules, or the rules in the binary, for commands that assess outside the role.
pub async fn load_rules(context: &Context) -> anyhow::Result<Ruleset> {
    rules::load(context.config.risk.rules.as_deref()).await
}
