//! The plan of a switch: its effects on outbox, positions and topics, and the reasons to refuse it. Pure, except for reading
//! the configured broker.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::super::installation::Installation;
use crate::{
    broker::{self, BrokerIdentity, SharedBroker},
    config::{BrokerKind, Config},
    event::TRANSACTIONS_TOPIC,
    repository::broker_identity::{InFlight, RecordedBroker, RecordedTopic},
    runtime::{OutputFormat, print_json, print_text, table},
};

/// The state of the database that decides about a switch.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) recorded: Option<RecordedBroker>,
    pub(super) topics: Vec<RecordedTopic>,
    pub(super) in_flight: InFlight,
    /// The relays and consumers that hold a lease or are members of a group.
    pub(super) running: Vec<String>,
}

/// The configured broker.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) identity: BrokerIdentity,
    /// The partitions of the topics that exist.
    pub(super) partitions: BTreeMap<String, i32>,
    /// The number of records in its topic of transactions.
    records: i64,
}

impl Target {
    pub(super) async fn read(config: &Config, broker: &SharedBroker) -> anyhow::Result<Self> {
        let names: Vec<String> = broker::topic_specs(config).into_iter().map(|spec| spec.name).collect();
        let found = broker.identify(&names).await?;
        let mut records = 0;
        for partition in 0..found.partitions.get(TRANSACTIONS_TOPIC).copied().unwrap_or(0) {
            let range = broker.offset_range(TRANSACTIONS_TOPIC, partition).await?;
            records += range.latest - range.earliest;
        }
        Ok(Self { identity: found.identity, partitions: found.partitions, records })
    }

    /// Returns the topics whose number of partitions is not the recorded one.
    pub(super) fn changed_topics(&self, recorded: &[RecordedTopic]) -> BTreeMap<String, i32> {
        let is_recorded =
            |name: &str, count| recorded.iter().any(|topic| topic.topic == name && topic.partitions == count);
        let changed = self.partitions.iter().filter(|(name, count)| !is_recorded(name, **count));
        changed.map(|(name, count)| (name.clone(), *count)).collect()
    }
}

/// A topic before and after the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TopicPlan {
    topic: String,
    /// The recorded number of partitions, if the broker stays the same.
    partitions_recorded: Option<i32>,
    /// None for a topic that is missing.
    partitions: Option<i32>,
}

/// The effects of a switch.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Plan {
    /// The recorded broker.
    pub(super) from: String,
    /// The configured broker.
    pub(super) to: String,
    is_other_broker: bool,
    topics: Vec<TopicPlan>,
    /// Rows of the outbox, which are published to the new broker.
    pub(super) outbox_rows: i64,
    /// Positions that are removed; none if only partitions change.
    pub(super) positions_removed: i64,
    /// Events that only the old broker has and that are not assessed.
    unassessed: i64,
    /// The number of records in the new topic of transactions.
    records_there: i64,
    running: Vec<String>,
    /// The setting that names the new broker.
    #[serde(skip)]
    origin: String,
}

impl Plan {
    pub(super) fn new(config: &Config, target: &Target, standing: &Standing) -> Self {
        let recorded = standing.recorded.as_ref();
        let is_other_broker = recorded.is_none_or(|recorded| recorded.identity != target.identity);
        let before = |name: &str| {
            let topic = standing.topics.iter().find(|topic| topic.topic == name && !is_other_broker)?;
            Some(topic.partitions)
        };
        let topics = broker::topic_specs(config).into_iter().map(|spec| TopicPlan {
            partitions_recorded: before(&spec.name),
            partitions: target.partitions.get(&spec.name).copied(),
            topic: spec.name,
        });
        Self {
            from: recorded.map_or_else(|| "none".to_owned(), |recorded| recorded.identity.to_string()),
            to: target.identity.to_string(),
            is_other_broker,
            topics: topics.collect(),
            outbox_rows: standing.in_flight.outbox_rows,
            positions_removed: if is_other_broker { standing.in_flight.positions } else { 0 },
            unassessed: standing.in_flight.unassessed,
            records_there: target.records,
            running: standing.running.clone(),
            origin: origin(config),
        }
    }

    /// Returns whether the record says all this already.
    pub(super) fn is_done(&self) -> bool {
        let differs = |topic: &TopicPlan| {
            topic
                .partitions_recorded
                .zip(topic.partitions)
                .is_some_and(|(recorded, actual)| recorded != actual)
        };
        !self.is_other_broker && !self.topics.iter().any(differs)
    }

    /// Returns why the switch must not happen now.
    pub(super) fn refusal(&self) -> Option<String> {
        if !self.running.is_empty() {
            let running = self.running.join(", ");
            return Some(format!("relays or consumers are running: stop {running} first"));
        }
        (self.unassessed > 0).then(|| {
            format!(
                "{} transactions are published to {} and not assessed: let a consumer read it to the end, or run \
                 `ledger risk assess`",
                self.unassessed, self.from
            )
        })
    }

    pub(super) fn print(
        &self,
        output: OutputFormat,
        installation: &Installation,
        result: &str,
    ) -> anyhow::Result<()> {
        if output == OutputFormat::Json {
            let plan = serde_json::json!({ "plan": self, "refusal": self.refusal(), "result": result });
            print_json(&installation.json(plan)?)?;
            return Ok(());
        }
        installation.print(output)?;
        print_text(format_args!("from {} to {} ({})", self.from, self.to, self.origin))?;
        let number =
            |count: Option<i32>, none: &str| count.map_or_else(|| none.to_owned(), |n| n.to_string());
        let mut rows = table(["topic", "recorded", "partitions"]);
        for topic in &self.topics {
            let recorded = number(topic.partitions_recorded, "");
            rows.add_row([topic.topic.clone(), recorded, number(topic.partitions, "missing")]);
        }
        print_text(rows)?;
        for effect in self.effects() {
            print_text(effect)?;
        }
        print_text(result)?;
        Ok(())
    }

    /// Describes the effects, each in a line.
    fn effects(&self) -> Vec<String> {
        let Self { from, to, outbox_rows, positions_removed, unassessed, records_there, .. } = self;
        let outbox = format!("outbox: {outbox_rows} rows stay and are published to {to}, in order");
        let topic = TRANSACTIONS_TOPIC;
        let of_brokers = match self.is_other_broker {
            true => [
                format!(
                    "positions: {positions_removed} are removed; consumers read {topic} of {to} from its first record \
                     ({records_there} there now), and an event that is assessed already changes nothing"
                ),
                format!("records of {from} stay there: other readers must read them before they move"),
            ],
            false => [
                "positions: all stay; a new partition is read from its first record".to_owned(),
                "keys move to other partitions: other readers must reach the end before a relay starts"
                    .to_owned(),
            ],
        };
        let pending = format!("published, but not assessed: {unassessed} transactions");
        [outbox].into_iter().chain(of_brokers).chain([pending]).collect()
    }
}

/// Returns the setting that names the configured broker.
fn origin(config: &Config) -> String {
    match config.broker.kind {
        BrokerKind::Kafka => {
            format!("broker.kafka.bootstrap_servers = {}", config.broker.kafka.bootstrap_servers)
        }
        BrokerKind::Postgres => "broker.kind = postgres".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(is_other_broker: bool, recorded: Option<i32>, partitions: Option<i32>) -> Plan {
        Plan {
            from: "postgres".into(),
            to: "kafka cluster x".into(),
            is_other_broker,
            topics: vec![TopicPlan { topic: "t".into(), partitions_recorded: recorded, partitions }],
            outbox_rows: 0,
            positions_removed: 0,
            unassessed: 0,
            records_there: 0,
            running: Vec::new(),
            origin: String::new(),
        }
    }

    #[test]
    fn the_recorded_broker_with_the_recorded_partitions_needs_no_switch() {
        assert!(plan(false, Some(12), Some(12)).is_done());
        assert!(plan(false, None, Some(12)).is_done());
        assert!(!plan(false, Some(12), Some(24)).is_done());
        assert!(!plan(true, None, None).is_done());
    }

    #[test]
    fn running_roles_and_unassessed_transactions_stand_in_the_way() {
        let plan = plan(true, None, None);
        assert_eq!(plan.refusal(), None);
        let running = Plan { running: vec!["a".into(), "b".into()], unassessed: 7, ..plan.clone() };
        assert!(running.refusal().is_some_and(|why| why.contains("stop a, b first")));
        let unassessed = Plan { unassessed: 7, ..plan };
        assert!(
            unassessed
                .refusal()
                .is_some_and(|why| why.starts_with("7 transactions are published to postgres"))
        );
    }
}
