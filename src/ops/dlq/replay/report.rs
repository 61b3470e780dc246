//! The result of a replay: counts of all dead letters, and a limited list of them, because there may be millions.

use serde::Serialize;
use uuid::Uuid;

use super::super::{super::installation::Installation, ReplayArgs, content::printable};
use crate::runtime::{OutputFormat, print_json, print_text, table};

/// How many dead letters are listed one by one. For all of them, the log has a line and the audit a row.
const LISTED_MAX: usize = 10_000;

/// The outcome of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Assessed,
    AlreadyAssessed,
    Queued,
    AlreadyQueued,
    Failing,
}

impl Outcome {
    const ALL: [Self; 5] =
        [Self::Assessed, Self::AlreadyAssessed, Self::Queued, Self::AlreadyQueued, Self::Failing];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Assessed => "assessed",
            Self::AlreadyAssessed => "already_assessed",
            Self::Queued => "queued",
            Self::AlreadyQueued => "already_queued",
            Self::Failing => "failing",
        }
    }
}

/// A dead letter and the outcome of its replay.
#[derive(Debug, Serialize)]
pub(super) struct Replayed {
    pub(super) id: Uuid,
    pub(super) record: String,
    pub(super) outcome: Outcome,
    pub(super) detail: String,
}

/// The outcomes of all replays of one command.
#[derive(Debug, Default)]
pub(super) struct Report {
    listed: Vec<Replayed>,
    counts: [u64; Outcome::ALL.len()],
}

impl Report {
    pub(super) fn add(&mut self, replayed: Replayed) {
        for (outcome, count) in Outcome::ALL.iter().zip(&mut self.counts) {
            *count += u64::from(*outcome == replayed.outcome);
        }
        if self.listed.len() < LISTED_MAX {
            self.listed.push(replayed);
        }
    }

    fn counts(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.counts)
    }

    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        self.counts().find(|(known, _)| *known == outcome).map_or(0, |(_, count)| count)
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn not_listed(&self) -> u64 {
        self.total().saturating_sub(u64::try_from(self.listed.len()).unwrap_or(u64::MAX))
    }

    pub(super) fn print(
        &self,
        installation: &Installation,
        args: &ReplayArgs,
        has_more: bool,
    ) -> anyhow::Result<()> {
        installation.print(args.output)?;
        match args.output {
            OutputFormat::Json => print_json(&installation.json(self.json(args.dry_run, has_more))?)?,
            OutputFormat::Table => self.print_table(args.dry_run, has_more)?,
        }
        Ok(())
    }

    fn json(&self, dry_run: bool, has_more: bool) -> serde_json::Value {
        let counts: serde_json::Map<String, serde_json::Value> =
            self.counts().map(|(outcome, count)| (outcome.as_str().to_owned(), count.into())).collect();
        serde_json::json!({
            "dry_run": dry_run, "counts": counts, "has_more": has_more, "items": self.listed,
            "items_left_out": self.not_listed(),
        })
    }

    fn print_table(&self, dry_run: bool, has_more: bool) -> std::io::Result<()> {
        let heading = if dry_run { "would be" } else { "outcome" };
        let mut rows = table(["id", "record", heading, "detail"]).wrapping(["detail"]);
        for replayed in &self.listed {
            let detail = printable(&replayed.detail);
            rows.add_row([&replayed.id.to_string(), &replayed.record, replayed.outcome.as_str(), &detail]);
        }
        if !self.listed.is_empty() {
            print_text(&rows)?;
        }
        let left_out = self.not_listed();
        if left_out > 0 {
            print_text(format_args!("… and {left_out} more"))?;
        }
        let some = self.counts().filter(|(_, count)| *count > 0);
        let counts: Vec<String> =
            some.map(|(outcome, count)| format!("{count} {}", outcome.as_str())).collect();
        let summary = if counts.is_empty() { "no dead letters".to_owned() } else { counts.join(", ") };
        print_text(format_args!("{}{summary}", if dry_run { "dry run: " } else { "" }))?;
        if has_more {
            print_text("there are more: raise --limit, or leave it out")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_list_is_limited() {
        let mut report = Report::default();
        for number in 0..LISTED_MAX + 7 {
            let outcome = if number % 2 == 0 { Outcome::Assessed } else { Outcome::Failing };
            report.add(Replayed { id: Uuid::nil(), record: String::new(), outcome, detail: String::new() });
        }
        let json = report.json(false, false);
        assert_eq!(json["items"].as_array().map(Vec::len), Some(LISTED_MAX));
        assert_eq!((&json["items_left_out"], &json["counts"]["failing"]), (&7.into(), &5_003.into()));
        assert_eq!((report.total(), report.count(Outcome::Assessed)), (10_007, 5_004));
    }
}
