//! What consumer groups left behind: positions within their partitions, dead letters on their way or sent.

use anyhow::Context as _;

use super::{
    report::Check,
    topic::{PartitionReader, partitions},
};
use crate::{
    broker::{Broker, BrokerError, FetchedRecord},
    event::TRANSACTIONS_DEAD_LETTER_TOPIC,
    repository::{
        Connection,
        verification::{self, Found, Snapshot},
    },
};

/// Positions within what the broker holds.
pub(super) async fn check_positions(broker: &dyn Broker, snapshot: &Snapshot) -> anyhow::Result<Check> {
    let mut found = Found::default();
    for position in &snapshot.positions {
        let (topic, partition, at) = (&position.topic, position.partition, position.next_offset);
        let name = format!("{}: {topic}/{partition}", position.consumer_group);
        match broker.offset_range(topic, partition).await {
            Ok(range) if at > range.latest => {
                found.push(|| format!("{name} is at {at}, beyond the end at {}", range.latest));
            }
            Ok(range) if at < range.earliest => {
                found.push(|| format!("{name} is at {at}, but the first record there is {}", range.earliest));
            }
            Ok(_) => {}
            Err(BrokerError::NoSuchTopic(_)) => found.push(|| format!("{name}: there is no such topic")),
            Err(error) => return Err(error).context("reading offsets"),
        }
    }
    let checked = i64::try_from(snapshot.positions.len()).unwrap_or(i64::MAX);
    Ok(Check::of("positions", "within what their partition holds", checked, found))
}

/// Dead letters against the topic that they are sent to.
pub(super) async fn check_dead_letters(
    connection: &mut Connection,
    broker: &dyn Broker,
) -> anyhow::Result<Check> {
    let topic = TRANSACTIONS_DEAD_LETTER_TOPIC;
    let (mut records_read, mut foreign, mut trimmed) = (0, 0, false);
    for partition in 0..partitions(broker, topic).await? {
        let mut reader = PartitionReader::open(broker, topic, partition).await?;
        trimmed |= reader.range.earliest > 0;
        while let Some(records) = reader.read().await? {
            let origins: Vec<_> = records.iter().filter_map(origin).collect();
            records_read += records.len();
            foreign += verification::match_dead_letters(connection, &origins).await?;
        }
    }
    let mut found = match trimmed {
        true => Found::default(),
        false => verification::dead_letters_unsent(connection).await?,
    };
    if foreign > 0 {
        let example = format!("{foreign} records of {topic} name a record that was never put aside");
        found.add(Found { differences: foreign, examples: vec![example] });
    }
    let letters = verification::counts(connection).await?.dead_letters;
    let check = Check::of("dead letters", "each is in the outbox or in its topic", letters, found);
    Ok(match (letters, trimmed) {
        (0, _) => check,
        (_, false) => check.with_note(format!("{records_read} records in {topic}")),
        (_, true) => check.with_note(format!("retention removed the start of {topic}: not checked")),
    })
}

/// Which record a dead letter stands for: group, topic, partition and offset. Headers of ours stand behind those that
/// came with the record.
fn origin(record: &FetchedRecord) -> Option<(String, String, i32, i64)> {
    let header = |name: &str| {
        let name = format!("__ledger.error.{name}");
        let (_, value) = record.headers.iter().filter(|(known, _)| *known == name).last()?;
        std::str::from_utf8(value).ok()
    };
    Some((
        header("group")?.to_owned(),
        header("topic")?.to_owned(),
        header("partition")?.parse().ok()?,
        header("offset")?.parse().ok()?,
    ))
}
