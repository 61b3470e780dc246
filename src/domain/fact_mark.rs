//! The ids that a commit touched, as ranges. `aggregate` updates the facts of these transactions.
//!
//! A range may cover transactions of other commits. That costs a comparison, and nothing else.

use chrono::NaiveDate;
use uuid::Uuid;

/// Neighbouring ids that are at least this far apart go into two ranges, so that distant rows do not mark the rows between
/// them. A commit makes at most 144 ranges of a day, and at most one for each of its rows.
const GAP_MS: u128 = 10 * 60 * 1000;
/// A UUIDv7 ends with this many bits after its milliseconds.
const BITS_AFTER_MS: u32 = 80;

/// A range of transaction ids, from `begin` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdRange {
    /// The first id.
    pub begin: Uuid,
    /// The id after the last one.
    pub end: Uuid,
}

/// A range of ids of one UTC day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactMark {
    /// The UTC day of the transactions.
    pub day: NaiveDate,
    /// Their ids.
    pub ids: IdRange,
}

/// Returns ranges that cover the transactions, each given by its day and id.
pub fn fact_marks(touched: impl IntoIterator<Item = (NaiveDate, Uuid)>) -> Vec<FactMark> {
    let mut touched: Vec<(NaiveDate, Uuid)> = touched.into_iter().collect();
    touched.sort_unstable();
    let mut marks: Vec<FactMark> = Vec::new();
    for (day, id) in touched {
        let end = Uuid::from_u128(id.as_u128().saturating_add(1));
        match marks.last_mut() {
            Some(mark)
                if mark.day == day
                    && milliseconds(id).saturating_sub(milliseconds(mark.ids.end)) < GAP_MS =>
            {
                mark.ids.end = end;
            }
            _ => marks.push(FactMark { day, ids: IdRange { begin: id, end } }),
        }
    }
    marks
}

fn milliseconds(id: Uuid) -> u128 {
    id.as_u128() >> BITS_AFTER_MS
}

/// Returns the union of the ranges: ascending, without overlaps.
pub fn union_of(mut ranges: Vec<IdRange>) -> Vec<IdRange> {
    ranges.sort_unstable();
    let mut union: Vec<IdRange> = Vec::new();
    for range in ranges {
        match union.last_mut() {
            Some(last) if range.begin <= last.end => last.end = last.end.max(range.end),
            _ => union.push(range),
        }
    }
    union
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::transaction_id;

    fn at(text: &str) -> (NaiveDate, Uuid) {
        let moment: DateTime<Utc> = text.parse().expect("a moment");
        (moment.date_naive(), transaction_id(moment, 7, 0))
    }

    #[test]
    fn near_rows_share_a_range_and_distant_rows_and_days_do_not() {
        let rows = [
            at("2026-01-31T12:09:00Z"),
            at("2026-01-31T12:00:00Z"),
            at("2026-01-31T12:30:00Z"),
            at("2026-01-31T23:59:59Z"),
            at("2026-02-01T00:00:00Z"),
        ];
        let marks = fact_marks(rows);
        assert_eq!(marks.len(), 4);
        let next = Uuid::from_u128(rows[0].1.as_u128() + 1);
        assert_eq!(marks[0], FactMark { day: rows[1].0, ids: IdRange { begin: rows[1].1, end: next } });
        assert_eq!(fact_marks([]), []);
    }

    fn contains(ranges: &[IdRange], id: u128) -> bool {
        ranges.iter().any(|range| (range.begin.as_u128()..range.end.as_u128()).contains(&id))
    }

    proptest! {
        #[test]
        fn each_row_is_in_a_range_of_its_day(seconds in proptest::collection::vec(0i64..400_000, 0..50)) {
            let row = |second: &i64| {
                let moment = DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::seconds(*second);
                (moment.date_naive(), transaction_id(moment, *second, 9))
            };
            let rows: Vec<(NaiveDate, Uuid)> = seconds.iter().map(row).collect();
            let marks = fact_marks(rows.clone());
            for (day, id) in rows {
                let ranges: Vec<IdRange> = marks.iter().filter(|mark| mark.day == day).map(|mark| mark.ids).collect();
                prop_assert!(contains(&ranges, id.as_u128()));
            }
        }

        #[test]
        fn the_union_covers_the_same_ids_once(bounds in proptest::collection::vec((0u128..40, 1u128..9), 0..12)) {
            let range = |(begin, length): &(u128, u128)| IdRange {
                begin: Uuid::from_u128(*begin),
                end: Uuid::from_u128(begin + length),
            };
            let ranges: Vec<IdRange> = bounds.iter().map(range).collect();
            let union = union_of(ranges.clone());
            for id in 0..60 {
                prop_assert_eq!(contains(&ranges, id), contains(&union, id));
            }
            prop_assert!(union.windows(2).all(|pair| pair[0].end < pair[1].begin));
        }
    }
}
