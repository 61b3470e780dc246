//! The order of first occurrences of each account's events, in constant memory for each account.
//!
//! The events of an account should occur as 1, 2, 3 …
//!
//! - A number that occurred before is a duplicate; a crash of a relay causes some.
//! - A number above the next one leaves a gap. If an event fills the gap later, it is out of order.
//! - An event that an operator published again may fill a gap late.
//! - A gap that is never filled needs another explanation, such as a dead letter.

use std::collections::{BTreeMap, HashMap};

use crate::repository::verification::{Example, Findings, PublishedAccount, SequenceRange};

/// The events that occurred so far.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Whether an account may be in two partitions. The order between them is unknown, so nothing counts as late.
    repartitioned: bool,
    accounts: HashMap<Box<str>, AccountProgress>,
    gaps: BTreeMap<Box<str>, Vec<(i64, i64)>>,
    /// Events that occurred after later events of their account, or in a second partition.
    pub(super) late: Findings,
    /// The number of events that occurred before.
    pub(super) duplicates: i64,
    /// The number of events that an operator published again and that fill a gap.
    pub(super) filled: i64,
}

#[derive(Debug)]
struct AccountProgress {
    first: i64,
    next: i64,
    partition: i32,
}

/// One occurrence of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occurrence<'a> {
    pub(super) account_id: &'a str,
    pub(super) account_seq: i64,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Whether the partition still has its first record. If not, an account may start with any number.
    pub(super) whole: bool,
    /// Whether an operator published the event again.
    pub(super) is_republished: bool,
}

impl Order {
    pub(super) fn new(repartitioned: bool) -> Self {
        Self { repartitioned, ..Self::default() }
    }

    /// Adds the next event of a partition.
    pub(super) fn observe(&mut self, seen: Occurrence<'_>) {
        let Some(progress) = self.accounts.get_mut(seen.account_id) else {
            self.begin(seen);
            return;
        };
        if progress.partition != seen.partition && !self.repartitioned {
            let before = progress.partition;
            self.late.push(|| example(seen, &format!("was in partition {before} before")));
            return;
        }
        let expected = progress.next;
        if seen.account_seq < expected {
            self.observe_earlier(seen);
            return;
        }
        progress.next = seen.account_seq + 1;
        if seen.account_seq > expected {
            self.leave_gap(seen.account_id, expected, seen.account_seq - 1);
        }
    }

    fn begin(&mut self, seen: Occurrence<'_>) {
        let first = if seen.whole { 1 } else { seen.account_seq };
        let progress = AccountProgress { first, next: seen.account_seq + 1, partition: seen.partition };
        self.accounts.insert(seen.account_id.into(), progress);
        if seen.account_seq > first {
            self.leave_gap(seen.account_id, first, seen.account_seq - 1);
        }
    }

    /// Counts a duplicate, or a late event if it fills a gap.
    fn observe_earlier(&mut self, seen: Occurrence<'_>) {
        match self.fill_gap(seen) {
            Some(()) if seen.is_republished => self.filled += 1,
            Some(()) if self.repartitioned => {}
            Some(()) => {
                self.late.push(|| example(seen, "comes after later events of its account"));
            }
            None => self.duplicates += 1,
        }
    }

    fn fill_gap(&mut self, seen: Occurrence<'_>) -> Option<()> {
        let seq = seen.account_seq;
        let ranges = self.gaps.get_mut(seen.account_id)?;
        let at = ranges.iter().position(|(from, to)| (*from..=*to).contains(&seq))?;
        let (from, to) = ranges.swap_remove(at);
        ranges.extend([(from, seq - 1), (seq + 1, to)].into_iter().filter(|(from, to)| from <= to));
        Some(())
    }

    fn leave_gap(&mut self, account_id: &str, from: i64, to: i64) {
        self.gaps.entry(account_id.into()).or_default().push((from, to));
    }

    /// Returns the number of accounts.
    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// Returns the range of each account's events.
    pub(super) fn published(&self) -> impl Iterator<Item = PublishedAccount> + '_ {
        self.accounts.iter().map(|(account_id, progress)| PublishedAccount {
            account_id: account_id.to_string(),
            first_seq: progress.first,
            next_seq: progress.next,
        })
    }

    /// Returns the gaps within these ranges.
    pub(super) fn gaps(&self) -> impl Iterator<Item = SequenceRange> + '_ {
        self.gaps.iter().flat_map(|(account_id, ranges)| {
            ranges.iter().map(|(from, to)| SequenceRange {
                account_id: account_id.to_string(),
                from_seq: *from,
                to_seq: *to,
            })
        })
    }
}

fn example(seen: Occurrence<'_>, difference: &str) -> Example {
    let Occurrence { account_id, account_seq, partition, offset, .. } = seen;
    let text = format!(
        "transaction {account_seq} of account {account_id} (partition {partition} offset {offset}) {difference}"
    );
    Example::new(text)
        .with("account_id", account_id)
        .with("account_seq", account_seq)
        .with("partition", partition)
        .with("offset", offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(seqs: &[i64], whole: bool) -> Order {
        let mut order = Order::default();
        for (offset, account_seq) in (0..).zip(seqs) {
            order.observe(Occurrence {
                account_id: "a",
                account_seq: *account_seq,
                partition: 0,
                offset,
                whole,
                is_republished: false,
            });
        }
        order
    }

    fn occurrence(account_seq: i64, partition: i32) -> Occurrence<'static> {
        Occurrence { account_id: "a", account_seq, partition, offset: 0, whole: true, is_republished: false }
    }

    fn gaps(order: &Order) -> Vec<(i64, i64)> {
        order.gaps().map(|gap| (gap.from_seq, gap.to_seq)).collect()
    }

    #[test]
    fn duplicates_after_a_crash_keep_the_order() {
        let order = order_of(&[1, 2, 3, 2, 3, 4], true);
        assert_eq!((order.late.differences, order.duplicates, gaps(&order)), (0, 2, vec![]));
        assert_eq!(order.published().next().map(|account| account.next_seq), Some(5));
    }

    #[test]
    fn an_event_that_fills_a_gap_later_is_out_of_order() {
        let order = order_of(&[1, 4, 3, 5], true);
        assert_eq!((order.late.differences, gaps(&order)), (1, vec![(2, 2)]));
    }

    #[test]
    fn an_account_may_start_with_any_number_in_a_trimmed_partition() {
        assert_eq!(gaps(&order_of(&[7, 8], true)), vec![(1, 6)]);
        let trimmed = order_of(&[7, 8], false);
        let first = trimmed.published().next().map(|account| account.first_seq);
        assert_eq!((gaps(&trimmed), first), (vec![], Some(7)));
    }

    #[test]
    fn after_a_change_of_partitions_an_account_may_be_in_two_of_them() {
        let mut order = Order::new(true);
        for (partition, account_seq) in [(0, 3), (0, 4), (1, 1), (1, 2)] {
            let offset = account_seq;
            order.observe(Occurrence {
                account_id: "a",
                account_seq,
                partition,
                offset,
                whole: true,
                is_republished: false,
            });
        }
        assert_eq!((order.late.differences, order.duplicates, gaps(&order)), (0, 0, vec![]));
    }

    #[test]
    fn an_account_in_two_partitions_is_out_of_order() {
        let mut order = order_of(&[1], true);
        order.observe(occurrence(2, 1));
        assert_eq!(order.late.differences, 1);
    }

    #[test]
    fn an_event_that_was_published_again_may_fill_a_gap() {
        let mut order = order_of(&[1, 4], true);
        for account_seq in [2, 2, 3] {
            order.observe(Occurrence { is_republished: true, ..occurrence(account_seq, 0) });
        }
        let counts = (order.late.differences, order.duplicates, order.filled);
        assert_eq!((counts, gaps(&order)), ((0, 1, 2), vec![]));
    }
}
