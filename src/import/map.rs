//! Maps: how to read a file of another program. `config/import/` has one for each of several exports.
//!
//! ```text
//! row of the file ─▶ skip? ─▶ texts, numbers and dates by the map ─▶ row with our own columns (and one for a fee)
//! ```
//!
//! Guarantees: a mapped row passes the same checks as a row of a file with our own columns; nothing is rounded; a row that
//! the map cannot read is rejected with the reason and never skipped.

mod guess;
mod guess_columns;
mod guess_table;
mod mapper;
mod moment;
mod number;
mod schema;
mod template;

use std::{
    collections::HashMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};

pub(super) use guess::guess;
pub(super) use mapper::{MappedRow, Mapper};

use super::{csv_rows::Dialect, order::Order};
use schema::Schema;

/// A map is written by hand, so a longer file is none.
const MAP_BYTES_MAX: u64 = 1024 * 1024;

/// A map file that was read and checked.
#[derive(Debug)]
pub(super) struct ImportMap {
    path: PathBuf,
    text: String,
    schema: Arc<Schema>,
}

impl ImportMap {
    /// Reads a map file. An error names the file, the line and the remedy.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut text = String::new();
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot read the map {}", path.display()))?;
        file.take(MAP_BYTES_MAX)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read the map {}", path.display()))?;
        Self::parse(path, text)
    }

    fn parse(path: &Path, text: String) -> anyhow::Result<Self> {
        let schema: Schema = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            let message = error.message().trim().replace('\n', "; ");
            anyhow!("{} line {line}: {message}", path.display())
        })?;
        schema.check().map_err(|problem| anyhow!("{}: {problem}", path.display()))?;
        Ok(Self { path: path.to_owned(), text, schema: Arc::new(schema) })
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.schema.dialect()
    }

    pub(super) fn order(&self) -> Option<Order> {
        self.schema.order
    }

    /// Returns the number of rows to drop at the end of a file.
    pub(super) fn footer_rows(&self) -> usize {
        self.schema.footer_rows.0
    }

    /// Returns whether keys are hashes of rows, so that equal rows must be numbered.
    pub(super) fn derives_keys(&self) -> bool {
        self.schema.idempotency_key_hash.is_some()
    }

    /// Returns the headings of the map that a row lacks. A row that lacks none is the row of the headings.
    pub(super) fn missing_in(&self, row: &csv::ByteRecord) -> Vec<&str> {
        let cells: Vec<&str> = row.iter().map(text).collect();
        self.schema.headings().into_iter().filter(|heading| !cells.contains(heading)).collect()
    }

    /// Describes headings with the lines of the map that name them.
    pub(super) fn describe(&self, headings: &[&str]) -> String {
        let line = |heading: &str| {
            let names = [format!("{{{heading}}}"), format!("{{{heading}|"), format!("\"{heading}\"")];
            self.text.lines().position(|line| names.iter().any(|name| line.contains(name)))
        };
        let described = headings.iter().map(|heading| match line(heading) {
            Some(index) => format!("{heading:?} (line {} of {})", index + 1, self.path.display()),
            None => format!("{heading:?}"),
        });
        described.collect::<Vec<_>>().join(", ")
    }

    /// Makes the mapper for a file with these headings.
    pub(super) fn mapper(&self, headings: &csv::ByteRecord) -> anyhow::Result<Mapper> {
        let named = self.schema.headings();
        let mut positions = HashMap::new();
        for (position, heading) in headings.iter().map(text).enumerate() {
            if named.contains(&heading) && positions.insert(heading.to_owned(), position).is_some() {
                bail!("the column {heading:?}, which the map names, appears twice");
            }
        }
        Ok(Mapper::new(Arc::clone(&self.schema), positions, headings.len()))
    }
}

/// Returns a cell as trimmed text, or an empty text if it is not UTF-8.
fn text(cell: &[u8]) -> &str {
    std::str::from_utf8(cell).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: &str =
        "account_id = \"a\"\ncurrency = \"EUR\"\nidempotency_key = \"{Id}\"\namount = { column = \"Sum\" }\n";

    fn error(text: String) -> String {
        format!("{:#}", ImportMap::parse(Path::new("bank.toml"), text).expect_err("refused"))
    }

    #[test]
    fn a_wrong_map_is_refused_with_its_line() {
        for (more, expected) in [
            ("seperator = \";\"", "bank.toml line 5: unknown field `seperator`"),
            ("separator = \"ab\"", "bank.toml line 5: \"ab\" must be one ASCII character"),
            ("\nencoding = \"latin\"", "bank.toml line 6: \"latin\" is no known encoding"),
            ("order = \"newest\"", "bank.toml line 5: unknown variant `newest`"),
            ("description = \"{A\"", "bank.toml line 5: has a \"{\" without a \"}\""),
            ("thousands = \".\"", "`decimal` and `thousands` must differ"),
            ("order = \"by-time\"", "needs [created_at]"),
            ("[[skip]]\ncolumn = \"A\"", "needs exactly one of"),
        ] {
            let error = error(format!("{MINIMUM}{more}"));
            assert!(error.contains(expected), "{more}: {error}");
        }
        let hashed = MINIMUM.replace("idempotency_key = \"{Id}\"", "idempotency_key_hash = [\"Sum\"]");
        let date = "created_at = { value = \"{Day}\", formats = [\"%Y-%m-%d\"], zone = \"UTC\" }";
        assert!(error(format!("{hashed}{date}")).contains("must include the date column \"Day\""));
    }

    #[test]
    fn missing_headings_are_named_with_the_line_of_the_map() {
        let map = ImportMap::parse(Path::new("bank.toml"), MINIMUM.to_owned()).expect("valid");
        let missing = map.missing_in(&csv::ByteRecord::from(vec!["Id", "Total"]));
        assert_eq!(map.describe(&missing), "\"Sum\" (line 4 of bank.toml)");
    }

    /// Separator, encoding, marks, dates, amounts and their sign, of every sample that has them.
    const SAMPLES: [(&str, &[&str]); 11] = [
        (
            "dkb_girokonto",
            &[
                "separator = \";\"",
                "encoding = \"utf-8\"",
                "decimal = \",\"",
                "thousands = \".\"",
                "%d.%m.%y",
                "column = \"Betrag (€)\"",
                "newest-first",
                "is_not = [\"Gebucht\"]",
            ],
        ),
        (
            "sparkasse_latin1",
            &[
                "separator = \";\"",
                "windows-1252",
                "decimal = \",\"",
                "%d.%m.%Y",
                "in = \"Haben\"",
                "out = \"Soll\"",
                "out_is_negative = true",
                "{Währung|upper}",
            ],
        ),
        (
            "paypal_activity_us",
            &[
                "separator = \",\"",
                "thousands = \",\"",
                "{Date} {Time}",
                "%m/%d/%Y %H:%M:%S",
                "column = \"Gross\"",
                "column = \"Fee\"\npositive = \"credit\"",
                "newest-first",
                "{Transaction ID}",
                "{Balance}",
            ],
        ),
        (
            "paypal_activity_de",
            &[
                "separator = \",\"",
                "decimal = \",\"",
                "thousands = \".\"",
                "{Datum} {Uhrzeit}",
                "%d.%m.%Y %H:%M:%S",
                "column = \"Brutto\"",
                "column = \"Entgelt\"\npositive = \"credit\"",
                "{Guthaben}",
            ],
        ),
        (
            "stripe_balance_itemized",
            &[
                "%Y-%m-%d %H:%M:%S",
                "{created_utc}",
                "column = \"gross\"",
                "column = \"fee\"",
                "{currency|upper}",
                "newest-first",
                "{balance_transaction_id}",
            ],
        ),
        ("wise_statement_eur", &["%d-%m-%Y", "column = \"Amount\"", "{TransferWise ID}", "newest-first"]),
        (
            "revolut_statement",
            &[
                "{Completed Date}",
                "%Y-%m-%d %H:%M:%S",
                "column = \"Amount\"",
                "column = \"Fee\"",
                "is_not = [\"COMPLETED\"]",
                "idempotency_key_hash",
            ],
        ),
        ("paysim", &["column = \"amount\"", "credit = [\"CASH_IN\"]", "{nameOrig}", "value = \"{step}\""]),
        (
            "ieee_train_transaction",
            &[
                "column = \"TransactionAmt\"",
                "positive = \"debit\"",
                "{TransactionID}",
                "value = \"{TransactionDT}\"",
            ],
        ),
        (
            "kaggle_bank_sheet",
            &[
                "thousands = \",\"",
                "%d-%b-%y",
                "in = \"DEPOSIT AMT\"",
                "out = \"WITHDRAWAL AMT\"",
                "{Account No|alphanumeric}",
                "{BALANCE AMT}",
            ],
        ),
        (
            "kaggle_bank_transactions_2",
            &[
                "%Y-%m-%dT%H:%M:%S",
                "{TransactionDate}",
                "column = \"TransactionAmount\"",
                "credit = [\"Credit\"]",
                "debit = [\"Debit\"]",
                "{AccountID}",
                "by-time",
            ],
        ),
    ];

    #[test]
    fn a_guess_is_a_valid_map_with_the_facts_of_the_sample() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/import/samples");
        for (sample, facts) in SAMPLES {
            let map = guess(&folder.join(format!("{sample}.csv"))).expect("a guess");
            let missing: Vec<&&str> = facts.iter().filter(|fact| !map.contains(**fact)).collect();
            assert!(missing.is_empty(), "{sample}: {missing:?} in\n{map}");
            ImportMap::parse(Path::new("guess.toml"), map.clone())
                .unwrap_or_else(|error| panic!("{error:#}\n{map}"));
        }
    }

    #[test]
    fn every_shipped_map_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/import");
        let files = std::fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").path());
        let maps = files.filter(|file| file.extension().is_some_and(|extension| extension == "toml"));
        assert_eq!(maps.inspect(|map| drop(ImportMap::read(map).expect("valid"))).count(), 11);
    }
}
