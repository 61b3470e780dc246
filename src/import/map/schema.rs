//! The content of a map file. Every value is checked while it is read, so that the error names its line.

use std::collections::BTreeMap;

use encoding_rs::Encoding;
use serde::{Deserialize, Deserializer, de};

use super::{
    moment::CreatedAt,
    number::Marks,
    template::{Template, Text},
};
use crate::import::{csv_rows::Dialect, order::Order};

/// The most rows at the end of a file that a map can drop.
const FOOTER_ROWS_MAX: usize = 1_000;

/// A map file: how to read a file of another program, and which column or text becomes which field.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Schema {
    #[serde(default = "default_separator")]
    separator: Character,
    #[serde(default = "default_quote")]
    quote: Quote,
    #[serde(default = "default_encoding")]
    encoding: Label,
    #[serde(default = "default_decimal")]
    decimal: Character,
    thousands: Option<Character>,
    pub(super) order: Option<Order>,
    #[serde(default)]
    pub(super) footer_rows: FooterRows,
    #[serde(default)]
    pub(super) skip_zero_amounts: bool,
    #[serde(default = "default_join")]
    pub(super) join: String,
    pub(super) account_id: Template,
    pub(super) currency: Template,
    pub(super) idempotency_key: Option<Template>,
    pub(super) idempotency_key_hash: Option<Vec<String>>,
    pub(super) counterparty: Option<Text>,
    pub(super) description: Option<Text>,
    pub(super) expected_balance: Option<Template>,
    pub(super) amount: AmountColumns,
    pub(super) direction: Option<DirectionColumn>,
    pub(super) created_at: Option<CreatedAt>,
    pub(super) fee: Option<Fee>,
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, Template>,
    #[serde(default)]
    pub(super) skip: Vec<Filter>,
}

impl Schema {
    pub(super) fn dialect(&self) -> Dialect {
        Dialect { separator: self.separator.byte(), quote: self.quote.0, encoding: self.encoding.0 }
    }

    pub(super) fn marks(&self) -> Marks {
        Marks { decimal: self.decimal.0, thousands: self.thousands.map(|mark| mark.0) }
    }

    /// Checks what no single value shows.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.idempotency_key.is_some() == self.idempotency_key_hash.is_some() {
            return Err(
                "needs either `idempotency_key` (a column that identifies a row, such as \"{Id}\") or \
                        `idempotency_key_hash` (the columns that do so together)"
                    .to_owned(),
            );
        }
        if Some(self.decimal) == self.thousands {
            return Err("`decimal` and `thousands` must differ".to_owned());
        }
        if self.order == Some(Order::ByTime) && self.created_at.is_none() {
            return Err("order = \"by-time\" needs [created_at]".to_owned());
        }
        let Some(hashed) = &self.idempotency_key_hash else { return Ok(()) };
        let dates: Vec<&str> =
            self.created_at.iter().flat_map(|created_at| created_at.value.headings()).collect();
        // Equal rows are numbered. Without the date, the number would depend on where the file begins.
        match dates.is_empty() || dates.iter().any(|date| hashed.iter().any(|heading| heading == date)) {
            true => Ok(()),
            false => {
                Err(format!("`idempotency_key_hash` must include the date column {:?}", dates.join(" ")))
            }
        }
    }

    /// Returns every heading that the map names.
    pub(super) fn headings(&self) -> Vec<&str> {
        let texts = [&self.counterparty, &self.description].into_iter().flatten();
        let templates = [Some(&self.account_id), Some(&self.currency)]
            .into_iter()
            .chain([self.idempotency_key.as_ref(), self.expected_balance.as_ref()])
            .flatten()
            .chain(self.created_at.iter().flat_map(CreatedAt::templates))
            .chain(self.fee.iter().flat_map(|fee| &fee.description))
            .chain(self.metadata.values());
        let columns =
            [&self.amount.column, &self.amount.incoming, &self.amount.outgoing].into_iter().flatten();
        let columns = columns
            .chain(self.direction.iter().map(|direction| &direction.column))
            .chain(self.fee.iter().map(|fee| &fee.column))
            .chain(self.skip.iter().map(|filter| &filter.column))
            .chain(self.idempotency_key_hash.iter().flatten());
        let mut headings: Vec<&str> = templates
            .flat_map(Template::headings)
            .chain(texts.flat_map(Text::headings))
            .chain(columns.map(String::as_str))
            .collect();
        headings.sort_unstable();
        headings.dedup();
        headings
    }
}

fn default_separator() -> Character {
    Character(',')
}

fn default_decimal() -> Character {
    Character('.')
}

fn default_quote() -> Quote {
    Quote(Some(b'"'))
}

fn default_encoding() -> Label {
    Label(encoding_rs::UTF_8)
}

fn default_join() -> String {
    " ".to_owned()
}

/// One ASCII character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Character(char);

impl Character {
    fn byte(self) -> u8 {
        u8::try_from(self.0).unwrap_or(b',')
    }
}

fn one_character(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some('\u{a0}' | '\u{202f}'), None) => Ok(' '),
        (Some(character), None) if character.is_ascii() => Ok(character),
        _ => Err(format!("{text:?} must be one ASCII character, such as \";\" or \"\\t\"")),
    }
}

impl<'de> Deserialize<'de> for Character {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_character(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

/// The quotation mark; none for files that quote nothing.
#[derive(Debug, Clone, Copy)]
struct Quote(Option<u8>);

impl<'de> Deserialize<'de> for Quote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        let quote = one_character(&text).map_err(de::Error::custom)?;
        Ok(Self(u8::try_from(quote).ok()))
    }
}

/// The name of an encoding, such as `windows-1252`.
#[derive(Debug, Clone, Copy)]
struct Label(&'static Encoding);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let label = String::deserialize(deserializer)?;
        Encoding::for_label_no_replacement(label.as_bytes()).map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "{label:?} is no known encoding; common ones are \"utf-8\", \"windows-1252\", \"iso-8859-15\", \"utf-16le\""
            ))
        })
    }
}

/// The number of rows that are dropped at the end of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FooterRows(pub(super) usize);

impl<'de> Deserialize<'de> for FooterRows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = usize::deserialize(deserializer)?;
        match rows {
            0..=FOOTER_ROWS_MAX => Ok(Self(rows)),
            _ => Err(de::Error::custom(format!("must be at most {FOOTER_ROWS_MAX}"))),
        }
    }
}

/// The meaning of a number without a minus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Positive {
    Credit,
    Debit,
}

/// The columns of the amount: one with a sign or a direction column beside it, or one for each direction.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "AmountTable")]
pub(super) struct AmountColumns {
    pub(super) column: Option<String>,
    pub(super) positive: Positive,
    pub(super) incoming: Option<String>,
    pub(super) outgoing: Option<String>,
    /// Whether the numbers of `outgoing` have a minus.
    pub(super) out_is_negative: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AmountTable {
    column: Option<String>,
    positive: Option<Positive>,
    #[serde(rename = "in")]
    incoming: Option<String>,
    #[serde(rename = "out")]
    outgoing: Option<String>,
    out_is_negative: Option<bool>,
}

impl TryFrom<AmountTable> for AmountColumns {
    type Error = &'static str;

    fn try_from(table: AmountTable) -> Result<Self, Self::Error> {
        let AmountTable { column, positive, incoming, outgoing, out_is_negative } = table;
        let is_one =
            column.is_some() && incoming.is_none() && outgoing.is_none() && out_is_negative.is_none();
        let are_two = column.is_none() && positive.is_none() && incoming.is_some() && outgoing.is_some();
        if !is_one && !are_two {
            return Err(
                "[amount] needs either `column` (and `positive`), or `in` and `out` (and `out_is_negative`)",
            );
        }
        Ok(Self {
            column,
            positive: positive.unwrap_or(Positive::Credit),
            incoming,
            outgoing,
            out_is_negative: out_is_negative.unwrap_or(false),
        })
    }
}

/// A column whose text says the direction.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectionColumn {
    pub(super) column: String,
    #[serde(default)]
    pub(super) credit: Vec<String>,
    #[serde(default)]
    pub(super) debit: Vec<String>,
}

/// A column whose amount is a transaction of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fee {
    pub(super) column: String,
    #[serde(default = "default_fee_direction")]
    pub(super) positive: Positive,
    pub(super) description: Option<Template>,
}

fn default_fee_direction() -> Positive {
    Positive::Debit
}

/// Rows to skip: those whose cell is one of `is`, or none of `is_not`, or begins with `starts_with`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "FilterTable")]
pub(super) struct Filter {
    pub(super) column: String,
    condition: Condition,
}

#[derive(Debug, Clone)]
enum Condition {
    Is(Vec<String>),
    IsNot(Vec<String>),
    StartsWith(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterTable {
    column: String,
    is: Option<Vec<String>>,
    is_not: Option<Vec<String>>,
    starts_with: Option<String>,
}

impl TryFrom<FilterTable> for Filter {
    type Error = &'static str;

    fn try_from(table: FilterTable) -> Result<Self, Self::Error> {
        let condition = match (table.is, table.is_not, table.starts_with) {
            (Some(texts), None, None) => Condition::Is(texts),
            (None, Some(texts), None) => Condition::IsNot(texts),
            (None, None, Some(start)) if !start.is_empty() => Condition::StartsWith(start),
            _ => return Err("[[skip]] needs exactly one of `is`, `is_not` and `starts_with`"),
        };
        Ok(Self { column: table.column, condition })
    }
}

impl Filter {
    /// Returns whether a row with this cell is skipped.
    pub(super) fn skips(&self, cell: &str) -> bool {
        match &self.condition {
            Condition::Is(texts) => texts.iter().any(|text| text == cell),
            Condition::IsNot(texts) => !texts.iter().any(|text| text == cell),
            Condition::StartsWith(start) => cell.starts_with(start),
        }
    }
}
