//! The meaning of each column of a file, from its name. A column that is neither known nor ignored is refused.

use std::collections::BTreeSet;

/// The content of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    AccountId,
    IdempotencyKey,
    Direction,
    Amount,
    Currency,
    CreatedAt,
    Counterparty,
    Description,
    ExpectedBalance,
    /// The metadata entry of this name.
    Metadata(String),
    /// Several metadata entries, as a JSON object.
    MetadataObject,
    Ignored,
}

const KNOWN: &[(&str, Column)] = &[
    ("account_id", Column::AccountId),
    ("idempotency_key", Column::IdempotencyKey),
    ("direction", Column::Direction),
    ("amount", Column::Amount),
    ("currency", Column::Currency),
    ("created_at", Column::CreatedAt),
    ("counterparty", Column::Counterparty),
    ("description", Column::Description),
    ("expected_balance", Column::ExpectedBalance),
    ("metadata", Column::MetadataObject),
];
const REQUIRED: &[&str] = &["account_id", "idempotency_key", "direction", "amount", "currency"];
const METADATA_PREFIX: &str = "metadata.";

/// Returns the columns for the headings of a file. The error names the wrong heading and gives advice.
pub(super) fn parse<'a>(
    headings: impl IntoIterator<Item = &'a str>,
    ignore: &[String],
) -> Result<Vec<Column>, String> {
    if let Some(needed) = ignore.iter().find(|name| REQUIRED.contains(&name.as_str())) {
        return Err(format!("--ignore {needed}: this column is required and cannot be ignored"));
    }
    let mut seen = BTreeSet::new();
    let mut columns = Vec::new();
    for (index, heading) in headings.into_iter().enumerate() {
        if heading.is_empty() {
            let number = index + 1;
            return Err(format!("column {number} has no heading; does the line end with a comma?"));
        }
        if !seen.insert(heading) {
            return Err(format!("column {heading:?} appears twice"));
        }
        columns.push(column(heading, ignore)?);
    }
    if let Some(missing) = REQUIRED.iter().find(|name| !seen.contains(**name)) {
        return Err(format!(
            "column {missing:?} is missing; the required columns are {}",
            REQUIRED.join(", ")
        ));
    }
    if let Some(absent) = ignore.iter().find(|name| !seen.contains(name.as_str())) {
        return Err(format!("--ignore {absent}: the file has no such column"));
    }
    Ok(columns)
}

fn column(heading: &str, ignore: &[String]) -> Result<Column, String> {
    if ignore.iter().any(|name| name == heading) {
        return Ok(Column::Ignored);
    }
    if let Some((_, column)) = KNOWN.iter().find(|(name, _)| *name == heading) {
        return Ok(column.clone());
    }
    match heading.strip_prefix(METADATA_PREFIX) {
        Some(name) if !name.is_empty() => Ok(Column::Metadata(name.to_owned())),
        _ => Err(format!(
            "unknown column {heading:?}; did you mean {}? To ignore it, use --ignore {heading}",
            nearest(heading)
        )),
    }
}

/// Returns the most similar known name. One similar word of the name is enough.
fn nearest(heading: &str) -> &'static str {
    let heading = heading.trim().to_lowercase();
    let heading = heading.as_str();
    let likeness = |name: &str| {
        let words = name.split('_').map(|word| strsim::jaro_winkler(word, heading) * 0.99);
        words.fold(strsim::jaro_winkler(name, heading), f64::max)
    };
    let names = KNOWN.iter().map(|(name, _)| *name).chain(["metadata.NAME"]);
    names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: [&str; 5] = ["account_id", "idempotency_key", "direction", "amount", "currency"];

    fn parse_with(more: &[&str], ignore: &[&str]) -> Result<Vec<Column>, String> {
        let headings = MINIMUM.iter().chain(more).copied();
        parse(headings, &ignore.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn metadata_columns_keep_their_name_and_ignored_columns_do_not() {
        let columns = parse_with(&["metadata.channel", "k_symbol"], &["k_symbol"]).expect("valid");
        assert_eq!(columns[5..], [Column::Metadata("channel".into()), Column::Ignored]);
    }

    #[test]
    fn an_unknown_column_is_refused_with_the_nearest_known_name() {
        let error = parse_with(&["expected_balanse"], &[]).expect_err("refused");
        assert_eq!(
            error,
            "unknown column \"expected_balanse\"; did you mean expected_balance? To ignore it, use --ignore expected_balanse"
        );
        assert!(parse_with(&["metadata.", "a"], &[]).expect_err("refused").contains("metadata"));
    }

    #[test]
    fn missing_repeated_and_unknown_columns_are_named() {
        assert!(parse(["amount"], &[]).expect_err("refused").contains("\"account_id\" is missing"));
        assert!(parse_with(&["amount"], &[]).expect_err("refused").contains("\"amount\" appears twice"));
        assert!(parse_with(&[], &["x"]).expect_err("refused").contains("--ignore x"));
        assert!(
            parse_with(&[], &["amount"]).expect_err("refused").starts_with("--ignore amount: this column")
        );
    }
}
