//! Checks the settings of a topic at the start of a role: some break a promise of the product, others weaken it.
//!
//! Pure. A setting that the broker does not have or does not reveal counts as fine.

use std::time::Duration;

use super::{REQUEST_BYTES_MAX, Retention, TopicSpec, TopicState};
use crate::event::TRANSACTIONS_TOPIC;

/// The settings of a topic that need an operator. Each text is one line with the topic, the value and the remedy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicProblems {
    /// Why no role may use the topic.
    pub refusal: Option<String>,
    /// The settings with which the topic promises less than the configuration.
    pub warnings: Vec<String>,
}

/// Checks a topic against its configuration. The number of partitions is checked by `ensure_topics`.
pub fn check_topic(spec: &TopicSpec, state: &TopicState) -> TopicProblems {
    let checks = [copies, insync_copies, retention_age, retention_bytes, message_bytes, unclean_election];
    let warning = |check: fn(&TopicSpec, &TopicState) -> Option<String>| {
        Some(format!("topic {} {}", spec.name, check(spec, state)?))
    };
    TopicProblems {
        refusal: compaction(&spec.name, state),
        warnings: checks.into_iter().filter_map(warning).collect(),
    }
}

fn compaction(topic: &str, state: &TopicState) -> Option<String> {
    let policy = state.cleanup_policy.as_deref().filter(|policy| policy.contains("compact"))?;
    let republish = match topic {
        TRANSACTIONS_TOPIC => ", and afterwards `ledger republish --missing`",
        _ => "",
    };
    Some(format!(
        "topic {topic} has cleanup.policy={policy}, so Kafka removes all but the last event of each account; run \
         `kafka-configs --alter --entity-type topics --entity-name {topic} --add-config \
         cleanup.policy=delete`{republish}"
    ))
}

fn copies(spec: &TopicSpec, state: &TopicState) -> Option<String> {
    let (factor, brokers) = (state.replication_factor?, state.brokers?);
    let configured = spec.replication_factor;
    let remedy = "add replicas with kafka-reassign-partitions";
    if factor == 1 && brokers > 1 {
        return Some(format!(
            "has one copy of each partition, although the cluster has {brokers} brokers: the loss of one disk loses \
             events; {remedy}"
        ));
    }
    (factor < configured).then(|| {
        format!(
            "has {factor} copies of each partition, but broker.topics.replication_factor is {configured}; {remedy}"
        )
    })
}

fn insync_copies(spec: &TopicSpec, state: &TopicState) -> Option<String> {
    let (insync, configured) = (state.min_insync_replicas?, spec.min_insync_replicas);
    let remedy = |value: i16| format!("set min.insync.replicas={value} with kafka-configs");
    if let Some(factor) = state.replication_factor.filter(|factor| insync > *factor) {
        let remedy = remedy(configured.min(factor));
        return Some(format!(
            "has min.insync.replicas={insync}, but {factor} copies of each partition: nothing can be published; {remedy}"
        ));
    }
    (insync < configured).then(|| {
        format!(
            "has min.insync.replicas={insync}, but broker.topics.min_insync_replicas is {configured}: fewer copies \
             than configured have a record that counts as published; {}",
            remedy(configured)
        )
    })
}

fn retention_age(spec: &TopicSpec, state: &TopicState) -> Option<String> {
    let age = state.retention?.age?;
    let configured = spec.retention.age;
    let is_shorter = configured.is_none_or(|configured| age < configured);
    is_shorter.then(|| {
        let text = |age: Duration| humantime::format_duration(age).to_string();
        let configured = configured.map_or_else(|| "for ever".to_owned(), text);
        format!(
            "keeps records for {} (retention.ms), but {configured} is configured: a consumer that is further behind \
             halts; set retention.ms with kafka-configs",
            text(age)
        )
    })
}

fn retention_bytes(spec: &TopicSpec, state: &TopicState) -> Option<String> {
    let bytes = state.retention?.bytes?;
    let Retention { bytes: configured, .. } = spec.retention;
    let is_smaller = configured.is_none_or(|configured| bytes < configured);
    is_smaller.then(|| {
        let configured = configured.map_or_else(|| "no limit".to_owned(), |bytes| bytes.to_string());
        format!(
            "keeps {bytes} bytes of each partition (retention.bytes), but {configured} is configured: a consumer that \
             is further behind halts; set retention.bytes with kafka-configs"
        )
    })
}

fn message_bytes(_spec: &TopicSpec, state: &TopicState) -> Option<String> {
    let bytes = state.message_bytes_max.filter(|bytes| *bytes < REQUEST_BYTES_MAX)?;
    Some(format!(
        "has max.message.bytes={bytes}, less than a request of the relay ({REQUEST_BYTES_MAX}): requests are refused and \
         sent again in parts, and a larger record becomes a dead letter; raise max.message.bytes with kafka-configs"
    ))
}

fn unclean_election(_spec: &TopicSpec, state: &TopicState) -> Option<String> {
    state.unclean_election.filter(|is_allowed| *is_allowed)?;
    Some(
        "has unclean.leader.election.enable=true: an election may lose published events, and consumers that have read \
         them halt; set it to false with kafka-configs"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TopicSpec {
        let retention = Retention { age: Some(Duration::from_secs(3_600)), bytes: None };
        TopicSpec {
            replication_factor: 3,
            min_insync_replicas: 2,
            retention,
            ..TopicSpec::new(TRANSACTIONS_TOPIC, 12)
        }
    }

    fn state() -> TopicState {
        TopicState {
            replication_factor: Some(3),
            min_insync_replicas: Some(2),
            retention: Some(spec().retention),
            cleanup_policy: Some("delete".to_owned()),
            message_bytes_max: Some(1_048_588),
            unclean_election: Some(false),
            brokers: Some(3),
            ..TopicState::of_partitions(12)
        }
    }

    #[test]
    fn a_topic_as_configured_has_no_problem_and_neither_has_one_that_hides_its_settings() {
        assert_eq!(check_topic(&spec(), &state()), TopicProblems::default());
        let hidden = TopicState { hides_settings: true, ..TopicState::of_partitions(12) };
        assert_eq!(check_topic(&spec(), &hidden), TopicProblems::default());
        let unlimited = TopicState { retention: Some(Retention::default()), ..state() };
        assert_eq!(
            check_topic(&spec(), &unlimited),
            TopicProblems::default(),
            "more than configured is fine"
        );
    }

    #[test]
    fn a_compacted_topic_is_refused_with_the_command_that_ends_it() {
        for policy in ["compact", "compact,delete", "delete,compact"] {
            let compacted = TopicState { cleanup_policy: Some(policy.to_owned()), ..state() };
            let refusal = check_topic(&spec(), &compacted).refusal.expect("refused");
            assert!(refusal.contains(&format!("cleanup.policy={policy},")), "{refusal}");
            assert!(refusal.contains("--entity-name transactions.v1 --add-config cleanup.policy=delete`"));
            assert!(refusal.ends_with("`ledger republish --missing`"), "{refusal}");
        }
    }

    #[test]
    fn each_weaker_setting_is_one_warning_that_names_it() {
        let short = Retention { age: Some(Duration::from_secs(60)), bytes: None };
        let small = Retention { bytes: Some(1_000), ..spec().retention };
        for (weaker, part) in [
            (TopicState { replication_factor: Some(1), min_insync_replicas: None, ..state() }, "one copy"),
            (TopicState { replication_factor: Some(2), ..state() }, "has 2 copies"),
            (TopicState { min_insync_replicas: Some(1), ..state() }, "min.insync.replicas=1"),
            (TopicState { min_insync_replicas: Some(4), ..state() }, "nothing can be published"),
            (TopicState { retention: Some(short), ..state() }, "keeps records for 1m"),
            (TopicState { retention: Some(small), ..state() }, "keeps 1000 bytes"),
            (TopicState { message_bytes_max: Some(100_000), ..state() }, "max.message.bytes=100000"),
            (TopicState { unclean_election: Some(true), ..state() }, "unclean.leader.election.enable=true"),
        ] {
            let TopicProblems { refusal, warnings } = check_topic(&spec(), &weaker);
            assert_eq!(refusal, None);
            assert!(warnings.len() == 1 && warnings[0].contains(part), "{part}: {warnings:?}");
            assert!(warnings[0].starts_with("topic transactions.v1 "), "{warnings:?}");
        }
        let alone = TopicState { replication_factor: Some(1), brokers: Some(1), ..state() };
        let one = TopicSpec { replication_factor: 1, min_insync_replicas: 1, ..spec() };
        let alone = TopicState { min_insync_replicas: Some(1), ..alone };
        assert_eq!(check_topic(&one, &alone), TopicProblems::default(), "one broker cannot have more copies");
    }
}
