//! Turns one row of a file into rows with our own columns, by the map.

use std::{collections::HashMap, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{
    number::{self, Signed},
    schema::{Positive, Schema},
    text,
};
use crate::import::columns::Column;

/// Separates the cells of a row whose hash is its key. No cell contains it.
const CELL_END: [u8; 1] = [0x1f];
const KEY_HASH_BYTES: usize = 16;
const FEE_DESCRIPTION: &str = "fee";

/// The transactions of one row of a file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::import) enum MappedRow {
    /// The map skips the row.
    Skipped,
    Transactions {
        first: csv::ByteRecord,
        fee: Option<csv::ByteRecord>,
    },
}

/// A map for a file with known headings.
#[derive(Debug)]
pub(in crate::import) struct Mapper {
    schema: Arc<Schema>,
    /// The position of each heading that the map names.
    positions: HashMap<String, usize>,
    cells: usize,
    columns: Vec<Column>,
}

/// The fields of one transaction, as texts.
#[derive(Default, Clone)]
struct Fields {
    account_id: String,
    idempotency_key: String,
    amount: Option<Signed>,
    is_credit: bool,
    currency: String,
    created_at: String,
    counterparty: String,
    description: String,
    expected_balance: String,
    metadata: Vec<String>,
}

impl Mapper {
    pub(super) fn new(schema: Arc<Schema>, positions: HashMap<String, usize>, cells: usize) -> Self {
        let mut columns = vec![
            Column::AccountId,
            Column::IdempotencyKey,
            Column::Direction,
            Column::Amount,
            Column::Currency,
            Column::CreatedAt,
            Column::Counterparty,
            Column::Description,
            Column::ExpectedBalance,
            Column::Problem,
        ];
        columns.extend(schema.metadata.keys().map(|name| Column::Metadata(name.clone())));
        Self { schema, positions, cells, columns }
    }

    /// Returns the columns of every mapped row.
    pub(in crate::import) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Maps one row. A row that cannot be read gives a row with the reason in the column `Problem`.
    pub(in crate::import) fn map(&self, row: &csv::ByteRecord) -> MappedRow {
        let cell = |heading: &str| {
            self.positions.get(heading).and_then(|position| row.get(*position)).map_or("", text)
        };
        if self.schema.skip.iter().any(|filter| filter.skips(cell(&filter.column))) {
            return MappedRow::Skipped;
        }
        let mut problems = self.problems_of_cells(row);
        let mut fields = self.fields(&cell, &mut problems);
        let fee = self.fee(&fields, &cell, &mut problems);
        let is_zero = fields.amount.as_ref().is_some_and(Signed::is_zero);
        let is_dropped = problems.is_empty() && self.schema.skip_zero_amounts && is_zero;
        let record = |fields: &Fields| self.record(fields, &problems.join("; "), row);
        match fee {
            None if is_dropped => MappedRow::Skipped,
            Some(fee) if is_dropped => MappedRow::Transactions { first: record(&fee), fee: None },
            None => MappedRow::Transactions { first: record(&fields), fee: None },
            Some(fee) => {
                // The balance of the row is that after its fee.
                fields.expected_balance.clear();
                MappedRow::Transactions { first: record(&fields), fee: Some(record(&fee)) }
            }
        }
    }

    fn problems_of_cells(&self, row: &csv::ByteRecord) -> Vec<String> {
        let mut problems = Vec::new();
        let is_surplus = |cell: &[u8]| !text(cell).is_empty();
        if row.len() < self.cells || row.iter().skip(self.cells).any(is_surplus) {
            problems.push(format!("has {} cells, but there are {} headings", row.len(), self.cells));
        }
        let encoding = self.schema.dialect().encoding;
        let is_text = |cell: &[u8]| {
            std::str::from_utf8(cell).is_ok_and(|text| {
                encoding == encoding_rs::UTF_8 || !text.contains(char::REPLACEMENT_CHARACTER)
            })
        };
        if !row.iter().all(is_text) {
            problems.push(format!("is not {}; is `encoding` of the map right?", encoding.name()));
        }
        problems
    }

    fn fields<'a>(&self, cell: &impl Fn(&str) -> &'a str, problems: &mut Vec<String>) -> Fields {
        let schema = &*self.schema;
        let mut check = |checked: Result<String, String>| {
            checked.unwrap_or_else(|problem| {
                problems.push(problem);
                String::new()
            })
        };
        let currency = schema.currency.render(cell);
        let created_at = schema.created_at.as_ref().map(|created_at| {
            created_at.render(cell).map_err(|problem| format!("created_at: the row {problem}"))
        });
        let created_at = check(created_at.unwrap_or_else(|| Ok(String::new())));
        let expected_balance = schema.expected_balance.as_ref().map(|balance| {
            let number = number::parse(&balance.render(cell), schema.marks(), &currency);
            let number = number.map_err(|problem| format!("expected_balance: the row {problem}"))?;
            Ok(number.map_or_else(String::new, |number| number.plain().into_owned()))
        });
        let expected_balance = check(expected_balance.unwrap_or_else(|| Ok(String::new())));
        let amount = self.amount(cell, &currency).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let is_credit = amount.as_ref().is_some_and(|amount| !amount.is_negative);
        let text = |text: &Option<super::template::Text>| {
            text.as_ref().map(|text| text.render(is_credit, &schema.join, cell)).unwrap_or_default()
        };
        Fields {
            account_id: schema.account_id.render(cell),
            idempotency_key: self.key(cell),
            amount,
            is_credit,
            created_at,
            counterparty: text(&schema.counterparty),
            description: text(&schema.description),
            expected_balance,
            metadata: schema.metadata.values().map(|template| template.render(cell)).collect(),
            currency,
        }
    }

    /// Returns the amount; a debit is negative.
    fn amount<'a>(&self, cell: &impl Fn(&str) -> &'a str, currency: &str) -> Result<Option<Signed>, String> {
        let amount = &self.schema.amount;
        let (Some(incoming), Some(outgoing)) = (&amount.incoming, &amount.outgoing) else {
            let Some(column) = &amount.column else { return Ok(None) };
            let Some(number) = self.number(column, cell, currency)? else { return Ok(None) };
            return match &self.schema.direction {
                Some(_) if number.is_negative => Err(format!(
                    "the column {column:?} is negative, although another column says the direction"
                )),
                Some(_) if self.is_debit(cell)? => Ok(Some(number.negated())),
                Some(_) => Ok(Some(number)),
                None if amount.positive == Positive::Debit => Ok(Some(number.negated())),
                None => Ok(Some(number)),
            };
        };
        let is_given = |number: &Signed| !number.is_zero();
        let received = self.number(incoming, cell, currency)?;
        let paid = self.number(outgoing, cell, currency)?;
        let paid = if amount.out_is_negative { paid } else { paid.map(Signed::negated) };
        if received.as_ref().is_some_and(is_given) && paid.as_ref().is_some_and(is_given) {
            return Err(format!("both {incoming:?} and {outgoing:?} have an amount"));
        }
        Ok(received.filter(is_given).or(paid))
    }

    fn number<'a>(
        &self,
        column: &str,
        cell: &impl Fn(&str) -> &'a str,
        currency: &str,
    ) -> Result<Option<Signed>, String> {
        number::parse(cell(column), self.schema.marks(), currency)
            .map_err(|problem| format!("the column {column:?} {problem}"))
    }

    fn is_debit<'a>(&self, cell: &impl Fn(&str) -> &'a str) -> Result<bool, String> {
        let Some(direction) = &self.schema.direction else { return Ok(false) };
        let word = cell(&direction.column);
        let is_one_of = |words: &[String]| words.iter().any(|known| known == word);
        match (is_one_of(&direction.credit), is_one_of(&direction.debit)) {
            (true, false) => Ok(false),
            (false, true) => Ok(true),
            _ => Err(format!(
                "the column {:?} has {word:?}; add it to `credit` or `debit` of [direction] in the map",
                direction.column
            )),
        }
    }

    fn key<'a>(&self, cell: &impl Fn(&str) -> &'a str) -> String {
        let Some(columns) = &self.schema.idempotency_key_hash else {
            return self.schema.idempotency_key.as_ref().map(|key| key.render(cell)).unwrap_or_default();
        };
        let mut hash = Sha256::new();
        for column in columns {
            hash.update(cell(column));
            hash.update(CELL_END);
        }
        let mut key = "row-".to_owned();
        for byte in hash.finalize().iter().take(KEY_HASH_BYTES) {
            key.push_str(&format!("{byte:02x}"));
        }
        key
    }

    /// Returns the fee of a row as a transaction of its own.
    fn fee<'a>(
        &self,
        row: &Fields,
        cell: &impl Fn(&str) -> &'a str,
        problems: &mut Vec<String>,
    ) -> Option<Fields> {
        let fee = self.schema.fee.as_ref()?;
        let amount = match self.number(&fee.column, cell, &row.currency) {
            Ok(amount) => amount?,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        if amount.is_zero() {
            return None;
        }
        let amount = if fee.positive == Positive::Debit { amount.negated() } else { amount };
        let description = fee.description.as_ref().map(|description| description.render(cell));
        Some(Fields {
            idempotency_key: format!("{}:fee", row.idempotency_key),
            is_credit: !amount.is_negative,
            amount: Some(amount),
            counterparty: String::new(),
            description: description.unwrap_or_else(|| FEE_DESCRIPTION.to_owned()),
            ..row.clone()
        })
    }

    fn record(&self, fields: &Fields, problem: &str, row: &csv::ByteRecord) -> csv::ByteRecord {
        let mut record = csv::ByteRecord::new();
        record.push_field(fields.account_id.as_bytes());
        record.push_field(fields.idempotency_key.as_bytes());
        record.push_field(if fields.is_credit { b"credit" } else { b"debit" });
        record.push_field(fields.amount.as_ref().map_or("", |amount| &amount.digits).as_bytes());
        for field in [
            &fields.currency,
            &fields.created_at,
            &fields.counterparty,
            &fields.description,
            &fields.expected_balance,
        ] {
            record.push_field(field.as_bytes());
        }
        record.push_field(problem.as_bytes());
        for entry in &fields.metadata {
            record.push_field(entry.as_bytes());
        }
        record.set_position(row.position().cloned());
        record
    }
}
