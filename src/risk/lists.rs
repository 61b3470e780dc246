//! The named lists of a rule file: `[lists.NAME]` with values in the file itself or in a CSV file beside it. A rule asks
//! `counterparty in lists.NAME`.
//!
//! If a list cannot be read to its end, the rules are refused: a rule with half of a list would seem to work.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::{
    RuleFileError,
    rule_file::{ListIn, RuleText, check_name, did_you_mean},
    text_set::TextSet,
};

/// The most entries of all lists together, so that their memory is bounded.
const ENTRIES_MAX: usize = 2_000_000;

/// Reads a list file. Its name is relative to the rule file. The error text is for the analyst.
pub type ReadListFile<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

/// Returns the names of the list files in a rule file. Nothing of it is checked.
pub fn list_files(text: &str) -> Vec<String> {
    let table = toml::from_str::<toml::Table>(text).unwrap_or_default();
    let lists = table.get("lists").and_then(toml::Value::as_table);
    let files = lists.into_iter().flat_map(toml::Table::values).filter_map(|list| list.get("file")?.as_str());
    files.map(str::to_owned).collect()
}

/// The lists by name.
#[derive(Debug, Default)]
pub(super) struct Lists(BTreeMap<Box<str>, Arc<TextSet>>);

/// The lists of a file while they are read.
struct Reading<'a> {
    source: RuleText<'a>,
    read: ReadListFile<'a>,
    entries_left: usize,
}

impl Lists {
    /// Reads all lists. The hash of a list file's content is appended to `content`, which gives the version of the rules.
    pub fn read(
        written: &BTreeMap<String, Spanned<ListIn>>,
        source: RuleText<'_>,
        read: ReadListFile<'_>,
        content: &mut Sha256,
    ) -> Result<Self, RuleFileError> {
        let mut reading = Reading { source, read, entries_left: ENTRIES_MAX };
        let mut lists = BTreeMap::new();
        for (name, list) in written {
            check_name(name)
                .map_err(|message| source.error(list.span(), format!("lists.{name}"), message))?;
            let texts = reading.list(name, list, content)?;
            lists.insert(name.as_str().into(), Arc::new(texts));
        }
        Ok(Self(lists))
    }

    /// Returns a list. The error text is for the analyst.
    pub fn find(&self, name: &str) -> Result<&Arc<TextSet>, String> {
        self.0.get(name).ok_or_else(|| {
            let known = self.0.keys().map(|known| &**known);
            format!("there is no list {name}{}", did_you_mean(name, known))
        })
    }

    /// Returns the name and the number of entries of each list.
    pub fn sizes(&self) -> Vec<(String, usize)> {
        self.0.iter().map(|(name, texts)| (name.to_string(), texts.len())).collect()
    }
}

impl Reading<'_> {
    fn list(
        &mut self,
        name: &str,
        written: &Spanned<ListIn>,
        content: &mut Sha256,
    ) -> Result<TextSet, RuleFileError> {
        let source = self.source;
        let refused = |part: &str, span: std::ops::Range<usize>, message: String| {
            source.error(span, format!("lists.{name}{part}"), message)
        };
        let mut texts = TextSet::default();
        match written.get_ref() {
            ListIn { values: Some(values), file: None, column: None } => {
                for value in values {
                    self.add(&mut texts, value.get_ref())
                        .map_err(|message| refused(".values", value.span(), message))?;
                }
            }
            ListIn { values: None, file: Some(file), column } => {
                let bytes =
                    (self.read)(file.get_ref()).map_err(|message| refused(".file", file.span(), message))?;
                content.update(name.as_bytes());
                content.update(Sha256::digest(&bytes));
                let column = column.as_ref().map(Spanned::get_ref);
                self.add_file(&mut texts, &bytes, column.map(String::as_str)).map_err(|message| {
                    refused(".file", file.span(), format!("{}: {message}", file.get_ref()))
                })?;
            }
            _ => {
                let message =
                    "needs either `file`, with `column` if its first line has the names, or `values`";
                return Err(refused("", written.span(), message.into()));
            }
        }
        Ok(texts)
    }

    fn add_file(&mut self, texts: &mut TextSet, bytes: &[u8], column: Option<&str>) -> Result<(), String> {
        let mut lines =
            csv::ReaderBuilder::new().has_headers(column.is_some()).flexible(true).from_reader(bytes);
        let index = match column {
            None => 0,
            Some(column) => {
                let names = lines.headers().map_err(|error| error.to_string())?;
                names.iter().position(|name| name == column).ok_or_else(|| {
                    format!("its first line has no column {column}{}", did_you_mean(column, names.iter()))
                })?
            }
        };
        let mut record = csv::StringRecord::new();
        while lines.read_record(&mut record).map_err(|error| error.to_string())? {
            let line = record.position().map_or(0, csv::Position::line);
            let value = record.get(index).unwrap_or_default();
            self.add(texts, value).map_err(|message| format!("line {line}: {message}"))?;
        }
        Ok(())
    }

    fn add(&mut self, texts: &mut TextSet, value: &str) -> Result<(), String> {
        if value.is_empty() {
            return Err("the value is empty, which would fit every transaction without a counterparty".into());
        }
        let before = texts.len();
        let fits = self.entries_left > 0 && texts.insert(value);
        self.entries_left = self.entries_left.saturating_sub(texts.len() - before);
        if fits { Ok(()) } else { Err(format!("the lists have more than {ENTRIES_MAX} entries")) }
    }
}
