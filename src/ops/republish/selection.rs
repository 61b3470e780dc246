//! The selection of `ledger republish`: ids, an account, a range, or the missing events.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{super::time_argument, RepublishArgs};
use crate::domain::{format_moment, transaction_id_floor};

/// How many ids the audit names.
const IDS_NAMED_MAX: usize = 100;

/// An end of a range of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// The transaction with this id is in the range.
    Id(Uuid),
    /// The range begins at, or ends before, this time.
    Time(DateTime<Utc>),
}

/// Parses the id of a transaction, a time, a day or a duration ago.
pub(super) fn parse_bound(text: &str) -> Result<Bound, String> {
    if let Ok(id) = text.parse() {
        return Ok(Bound::Id(id));
    }
    let not_an_id = |error| format!("{error}, or the id of a transaction");
    time_argument::parse(text).map(Bound::Time).map_err(not_an_id)
}

impl Bound {
    fn describe(self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Time(time) => format_moment(time),
        }
    }
}

impl RepublishArgs {
    /// Returns an error text if the flags contradict each other.
    pub(super) fn contradiction(&self) -> Option<String> {
        let (from, to) = self.from.zip(self.to)?;
        let (first, before) = self.range();
        (first >= before).then(|| format!("--from {} is after --to {}", from.describe(), to.describe()))
    }

    /// Returns the first id of the range, and the id before which it ends.
    pub(super) fn range(&self) -> (Uuid, Uuid) {
        let from = match self.from {
            None => Uuid::nil(),
            Some(Bound::Id(id)) => id,
            Some(Bound::Time(time)) => transaction_id_floor(time),
        };
        let before = match self.to {
            None => Uuid::max(),
            Some(Bound::Id(id)) => Uuid::from_u128(id.as_u128().saturating_add(1)),
            Some(Bound::Time(time)) => transaction_id_floor(time),
        };
        (from, before)
    }

    /// Describes the selection for the audit.
    pub(super) fn describe(&self) -> String {
        if self.missing {
            return "missing from the topic".to_owned();
        }
        if !self.ids.is_empty() {
            let ids: Vec<String> = self.ids.iter().take(IDS_NAMED_MAX).map(Uuid::to_string).collect();
            let others = self.ids.len().saturating_sub(IDS_NAMED_MAX);
            let more = if others > 0 { format!(" and {others} more") } else { String::new() };
            return format!("transactions {}{more}", ids.join(" "));
        }
        let account = self.account.as_ref().map(|account| format!("account {account}"));
        let from = self.from.map(|from| format!("from {}", from.describe()));
        let to = self.to.map(|to| format!("to {}", to.describe()));
        [account, from, to].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: RepublishArgs,
    }

    fn parse(arguments: &[&str]) -> Result<RepublishArgs, clap::Error> {
        let arguments = [&["republish"], arguments].concat();
        CommandLine::try_parse_from(arguments).map(|line| line.args)
    }

    const ID: &str = "01a206a6-4f5f-7c41-87f5-c48b0979c33c";

    #[test]
    fn a_range_includes_the_transactions_that_it_names_and_ends_before_a_time() {
        let args = parse(&["--from", ID, "--to", ID]).unwrap();
        let (from, before) = args.range();
        assert_eq!((from.to_string(), before.as_u128() - from.as_u128()), (ID.to_owned(), 1));
        assert_eq!(args.contradiction(), None);
        let args = parse(&["--account", "a", "--from", "2026-01-01", "--to", "2026-01-02"]).unwrap();
        let (from, before) = args.range();
        assert_eq!((from.get_version_num(), from < before), (7, true));
        assert_eq!(
            args.describe(),
            "account a from 2026-01-01T00:00:00.000000Z to 2026-01-02T00:00:00.000000Z"
        );
        let args = parse(&["--from", "2026-01-02", "--to", "2026-01-02"]).unwrap();
        assert!(args.contradiction().is_some());
    }

    #[test]
    fn exactly_one_kind_of_selection_is_accepted() {
        for accepted in [&[ID][..], &["--missing"], &["--account", "a"], &["--from", "2h"], &["--to", ID]] {
            assert!(parse(accepted).is_ok(), "{accepted:?}");
        }
        for refused in [
            &[][..],
            &["--yes"],
            &[ID, "--missing"],
            &[ID, "--account", "a"],
            &["--missing", "--from", "2h"],
            &["--from", "soon"],
        ] {
            assert!(parse(refused).is_err(), "{refused:?}");
        }
    }
}
