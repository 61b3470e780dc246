//! The order of first occurrences, account by account, in constant memory per account.
//!
//! An account's events are to be seen as 1, 2, 3 …. One below what was seen is a duplicate, which may follow a crash.
//! One beyond the next leaves a gap; a gap that is filled later was filled out of order, and one that is never filled
//! must be accounted for elsewhere (a record that was put aside, for one).

use std::collections::{BTreeMap, HashMap};

use crate::repository::verification::{Found, PublishedAccount, SequenceRange};

/// Events seen so far.
#[derive(Debug, Default)]
pub(super) struct Order {
    accounts: HashMap<Box<str>, Track>,
    gaps: BTreeMap<Box<str>, Vec<(i64, i64)>>,
    /// Events that came after later ones of their account, or in two partitions.
    pub(super) late: Found,
    /// Events that were seen before.
    pub(super) duplicates: i64,
}

#[derive(Debug)]
struct Track {
    first: i64,
    next: i64,
    partition: i32,
}

/// An event as the order sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) account_id: &'a str,
    pub(super) account_seq: i64,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Whether the partition still has its first record; if not, an account may begin anywhere.
    pub(super) whole: bool,
}

impl Order {
    /// Takes the next event of a partition.
    pub(super) fn observe(&mut self, seen: Seen<'_>) {
        let Some(track) = self.accounts.get_mut(seen.account_id) else {
            self.begin(seen);
            return;
        };
        if track.partition != seen.partition {
            self.late.push(|| format!("{} was in partition {} before", place(seen), track.partition));
            return;
        }
        let expected = track.next;
        if seen.account_seq < expected {
            self.below(seen);
            return;
        }
        track.next = seen.account_seq + 1;
        if seen.account_seq > expected {
            self.leave_gap(seen.account_id, expected, seen.account_seq - 1);
        }
    }

    fn begin(&mut self, seen: Seen<'_>) {
        let first = if seen.whole { 1 } else { seen.account_seq };
        let track = Track { first, next: seen.account_seq + 1, partition: seen.partition };
        self.accounts.insert(seen.account_id.into(), track);
        if seen.account_seq > first {
            self.leave_gap(seen.account_id, first, seen.account_seq - 1);
        }
    }

    /// A duplicate, unless it fills a gap: then it is late.
    fn below(&mut self, seen: Seen<'_>) {
        match self.fill_gap(seen) {
            Some(()) => self.late.push(|| format!("{} comes after later rows of its account", place(seen))),
            None => self.duplicates += 1,
        }
    }

    fn fill_gap(&mut self, seen: Seen<'_>) -> Option<()> {
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

    /// How many accounts were seen.
    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// How far each account was seen.
    pub(super) fn published(&self) -> impl Iterator<Item = PublishedAccount> + '_ {
        self.accounts.iter().map(|(account_id, track)| PublishedAccount {
            account_id: account_id.to_string(),
            first_seq: track.first,
            next_seq: track.next,
        })
    }

    /// What was not seen below that.
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

fn place(seen: Seen<'_>) -> String {
    let Seen { account_id, account_seq, partition, offset, .. } = seen;
    format!("account {account_id} row {account_seq} (partition {partition} offset {offset})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(seqs: &[i64], whole: bool) -> Order {
        let mut order = Order::default();
        for (offset, account_seq) in (0..).zip(seqs) {
            order.observe(Seen { account_id: "a", account_seq: *account_seq, partition: 0, offset, whole });
        }
        order
    }

    fn gaps(order: &Order) -> Vec<(i64, i64)> {
        order.gaps().map(|gap| (gap.from_seq, gap.to_seq)).collect()
    }

    #[test]
    fn duplicates_after_a_crash_are_in_order() {
        let order = order_of(&[1, 2, 3, 2, 3, 4], true);
        assert_eq!((order.late.differences, order.duplicates, gaps(&order)), (0, 2, vec![]));
        assert_eq!(order.published().next().map(|account| account.next_seq), Some(5));
    }

    #[test]
    fn a_gap_that_is_filled_later_was_out_of_order() {
        let order = order_of(&[1, 4, 3, 5], true);
        assert_eq!((order.late.differences, gaps(&order)), (1, vec![(2, 2)]));
    }

    #[test]
    fn where_the_start_is_gone_an_account_may_begin_anywhere() {
        assert_eq!(gaps(&order_of(&[7, 8], true)), vec![(1, 6)]);
        let trimmed = order_of(&[7, 8], false);
        let first = trimmed.published().next().map(|account| account.first_seq);
        assert_eq!((gaps(&trimmed), first), (vec![], Some(7)));
    }

    #[test]
    fn an_account_in_two_partitions_has_no_order() {
        let mut order = order_of(&[1], true);
        order.observe(Seen { account_id: "a", account_seq: 2, partition: 1, offset: 0, whole: true });
        assert_eq!(order.late.differences, 1);
    }
}
