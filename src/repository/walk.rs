//! Pages by filters that no index serves: the rows are walked in the order of the page and looked at one by one, and
//! the walk has an end, so that a page takes its time and not that of the whole table.
//!
//! A page whose walk ends before it is full is answered short, with the position to go on from. So that one statement
//! says both, the last row of a whole walk is answered even where it does not match.

/// Rows that a page looks at, at the most. As text, for SQL.
macro_rules! walk_rows_max {
    () => {
        "5000"
    };
}
pub(super) use walk_rows_max;

/// A page, newest first.
#[derive(Debug)]
pub struct Page<Row, Position> {
    /// At most as many as were asked for; fewer, even none, where the walk ended before.
    pub rows: Vec<Row>,
    /// Where to go on; None at the end.
    pub next: Option<Position>,
}

/// A row that was walked over.
pub(super) struct Walked<Row> {
    pub(super) row: Row,
    pub(super) matches: bool,
    /// Whether it is the last one that the walk may look at.
    pub(super) is_last: bool,
}

impl<Row, Position> Page<Row, Position> {
    /// Of what was read: one matching row more than `limit` where there are so many, and the last row of the walk.
    pub(super) fn of(
        walked: impl IntoIterator<Item = Walked<Row>>,
        limit: usize,
        position: impl Fn(&Row) -> Position,
    ) -> Self {
        let mut page = Self { rows: Vec::with_capacity(limit), next: None };
        for Walked { row, matches, is_last } in walked {
            if matches && page.rows.len() == limit {
                page.next = page.rows.last().map(&position);
                return page;
            }
            if is_last {
                page.next = Some(position(&row));
            }
            if matches {
                page.rows.push(row);
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(i64, bool, bool)]) -> (Vec<i64>, Option<i64>) {
        let walked = rows.iter().map(|&(row, matches, is_last)| Walked { row, matches, is_last });
        let page = Page::of(walked, 2, |row| *row);
        (page.rows, page.next)
    }

    #[test]
    fn a_page_goes_on_behind_its_last_row_or_behind_the_walk() {
        assert_eq!(page(&[]), (vec![], None));
        assert_eq!(page(&[(9, true, false), (8, true, false)]), (vec![9, 8], None));
        assert_eq!(page(&[(9, true, false), (8, true, false), (7, true, false)]), (vec![9, 8], Some(8)));
        assert_eq!(page(&[(9, true, false), (4, false, true)]), (vec![9], Some(4)));
        assert_eq!(page(&[(9, true, false), (4, true, true)]), (vec![9, 4], Some(4)));
        // The walk's last row is one too many: the next page begins with it.
        assert_eq!(page(&[(9, true, false), (8, true, false), (4, true, true)]), (vec![9, 8], Some(8)));
        assert_eq!(page(&[(9, true, false), (8, true, false), (4, false, true)]), (vec![9, 8], Some(4)));
    }
}
