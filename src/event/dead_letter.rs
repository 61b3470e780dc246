//! The words of dead letters.

/// The number of reasons at the start of [`DEAD_LETTER_REASONS`] that are the relay's.
pub const RELAY_REASONS: usize = 2;

/// The reasons of dead letters: the first two of the relay, the others of `consume-risk`.
pub const DEAD_LETTER_REASONS: [&str; 9] = [
    "record_too_large",
    "record_invalid",
    "unknown_type",
    "no_key",
    "wrong_key",
    "undecodable",
    "not_in_ledger",
    "differs_from_ledger",
    "process_ended",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_of_the_metric_names_the_same_reasons() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        let row = text.lines().find(|line| line.starts_with("| `ledger_dead_letters_total`")).unwrap();
        let (_, labels) = row.split_once("`reason`: ").unwrap();
        let labels = labels.split(" | ").next().unwrap();
        let documented: Vec<&str> = labels.split('`').skip(1).step_by(2).collect();
        assert_eq!(documented, DEAD_LETTER_REASONS);
    }
}
