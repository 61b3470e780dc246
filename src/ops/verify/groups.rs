//! The checks of consumer groups: positions are within their partitions and not halted; dead letters are in the outbox or published.

use anyhow::Context as _;
use uuid::Uuid;

use super::{
    report::Check,
    topic::{PartitionReader, TopicHistory, partitions},
};
use crate::{
    broker::{Broker, BrokerError, FetchedRecord},
    event::TRANSACTIONS_DEAD_LETTER_TOPIC,
    repository::{
        Connection,
        verification::{self, Example, Findings, Snapshot},
    },
};

/// The header with the id of a dead letter.
const DEAD_LETTER_ID: &str = "__ledger.error.id";

/// Compares the positions with the offsets that the broker holds, and reports halted ones.
pub(super) async fn check_positions(broker: &dyn Broker, snapshot: &Snapshot) -> anyhow::Result<Check> {
    let mut found = Findings::default();
    for position in &snapshot.positions {
        let (topic, partition, at) = (&position.topic, position.partition, position.next_offset);
        let name = format!("{}: {topic}/{partition}", position.consumer_group);
        let example = |text: String| {
            Example::new(text)
                .with("consumer_group", position.consumer_group.as_str())
                .with("topic", topic.as_str())
                .with("partition", partition)
                .with("offset", at)
        };
        if let Some(reason) = &position.halt_reason {
            found.push(|| example(format!("{name} is halted at {at}: {reason}")));
            continue;
        }
        match broker.offset_range(topic, partition).await {
            Ok(range) if at > range.latest => {
                found.push(|| example(format!("{name} is at {at}, beyond the end at {}", range.latest)));
            }
            Ok(range) if at < range.earliest => {
                let earliest = range.earliest;
                found
                    .push(|| example(format!("{name} is at {at}, but the first record there is {earliest}")));
            }
            Ok(_) => {}
            Err(BrokerError::NoSuchTopic(_)) => {
                found.push(|| example(format!("{name}: the topic does not exist")));
            }
            Err(error) => return Err(error).context("reading offsets"),
        }
    }
    let checked = i64::try_from(snapshot.positions.len()).unwrap_or(i64::MAX);
    Ok(Check::of(
        "positions",
        "each is within the offsets of its partition, and none is halted",
        checked,
        found,
    ))
}

/// Compares the dead letters with the dead-letter topic.
pub(super) async fn check_dead_letters(
    connection: &mut Connection,
    broker: &dyn Broker,
    history: TopicHistory,
) -> anyhow::Result<Check> {
    let topic = TRANSACTIONS_DEAD_LETTER_TOPIC;
    let (mut records_read, mut foreign, mut trimmed) = (0, 0, history.moved_at.is_some());
    for partition in 0..partitions(broker, topic).await? {
        let mut reader = PartitionReader::open(broker, topic, partition).await?;
        trimmed |= reader.range.earliest > 0;
        while let Some(records) = reader.read().await? {
            let ids: Vec<Uuid> = records.iter().filter_map(dead_letter_id).collect();
            records_read += records.len();
            foreign += verification::match_dead_letters(connection, &ids).await?;
        }
    }
    let mut found = match trimmed {
        true => Findings::default(),
        false => verification::unpublished_dead_letters(connection).await?,
    };
    if foreign > 0 {
        let text = format!("{foreign} records of {topic} name a record that was never dead-lettered");
        let example = Example::new(text).with("topic", topic);
        found.add(Findings { differences: foreign, examples: vec![example] });
    }
    let letters = verification::table_counts(connection).await?.dead_letters;
    let check =
        Check::of("dead letters", "each is in the outbox or in the dead-letter topic", letters, found);
    Ok(match (letters, trimmed) {
        (0, _) => check,
        (_, false) => check.with_note(format!("{records_read} records in {topic}")),
        (_, true) => check.with_note(match history.moved_at {
            Some(_) => "earlier records are in another broker: not checked".to_owned(),
            None => format!("retention removed the start of {topic}: not checked"),
        }),
    })
}

/// Reads the id of the dead letter from the headers. Headers added by the ledger come after the record's headers, so the
/// last header with the name counts.
fn dead_letter_id(record: &FetchedRecord) -> Option<Uuid> {
    let (_, id) = record.headers.iter().filter(|(name, _)| *name == DEAD_LETTER_ID).last()?;
    Uuid::try_parse_ascii(id).ok()
}
