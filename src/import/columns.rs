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
    /// Why a map could not read the row. Empty if it could.
    Problem,
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
    let mut unknown = Vec::new();
    for (index, heading) in headings.into_iter().enumerate() {
        if heading.is_empty() {
            let number = index + 1;
            return Err(format!("column {number} has no heading; does the line end with a comma?"));
        }
        if !seen.insert(heading) {
            return Err(format!("column {heading:?} appears twice"));
        }
        match column(heading, ignore) {
            Some(column) => columns.push(column),
            None => unknown.push(heading),
        }
    }
    if !unknown.is_empty() {
        return Err(describe_unknown(&unknown));
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

fn column(heading: &str, ignore: &[String]) -> Option<Column> {
    if ignore.iter().any(|name| name == heading) {
        return Some(Column::Ignored);
    }
    if let Some((_, column)) = KNOWN.iter().find(|(name, _)| *name == heading) {
        return Some(column.clone());
    }
    let name = heading.strip_prefix(METADATA_PREFIX).filter(|name| !name.is_empty())?;
    Some(Column::Metadata(name.to_owned()))
}

/// Returns whether a heading is one of the required columns.
pub(super) fn is_required(heading: &str) -> bool {
    REQUIRED.contains(&heading)
}

fn describe_unknown(unknown: &[&str]) -> String {
    if let [heading] = unknown {
        let suggestion = nearest(heading).map_or_else(String::new, |name| format!("did you mean {name}? "));
        return format!("unknown column {heading:?}; {suggestion}To ignore it, use --ignore {heading}");
    }
    let described = unknown.iter().map(|heading| match nearest(heading) {
        Some(name) => format!("{heading:?} (did you mean {name}?)"),
        None => format!("{heading:?}"),
    });
    format!(
        "unknown columns {}; to ignore them, use --ignore {}; a file of another program is read by a map (--map)",
        described.collect::<Vec<_>>().join(", "),
        unknown.join(",")
    )
}

/// Names that are less similar are not suggested.
const LIKENESS_MIN: f64 = 0.8;

/// Returns the most similar known name, if it is similar at all. One similar word of the name is enough.
fn nearest(heading: &str) -> Option<&'static str> {
    let heading = heading.trim().to_lowercase();
    let heading = heading.as_str();
    let likeness = |name: &str| {
        let words = name.split('_').map(|word| strsim::jaro_winkler(word, heading) * 0.99);
        words.fold(strsim::jaro_winkler(name, heading), f64::max)
    };
    let names = KNOWN.iter().map(|(name, _)| *name).chain(["metadata.NAME"]);
    let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) >= LIKENESS_MIN).then_some(nearest)
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
    fn all_unknown_columns_are_named_at_once_and_only_near_names_are_suggested() {
        let error = parse_with(&["Buchungstag", "balanse", "IBAN"], &[]).expect_err("refused");
        for part in
            ["\"Buchungstag\",", "\"balanse\" (did you mean expected_balance?)", "--ignore Buchungstag,"]
        {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(error.matches("did you mean").count(), 1, "{error}");
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
