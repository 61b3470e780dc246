//! Turns Parquet values into the texts that a CSV file would contain for them, and checks the types of columns.
//!
//! A type that is not exact is refused before any row is read: floating-point numbers, integers as amounts (their unit
//! is unknown), timestamps without a time zone.

use std::{fmt::Display, io::Write as _};

use anyhow::{Context as _, bail};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType,
    cast::AsArray,
    types::{
        Date32Type, Decimal128Type, Decimal256Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::Serializer as _;
use uuid::Uuid;

use super::columns::Column;

const UUID_BYTES: i32 = 16;
/// A text that is valid in no column, so that the row is rejected and the file is still read.
const OUT_OF_RANGE: &[u8] = b"out of range";

/// Whether the zeros at the end of a decimal, which come from the column's type, are part of its text.
#[derive(Clone, Copy)]
pub(super) enum TrailingZeros {
    /// For amounts, whose currency may have fewer decimals than the type.
    Cut,
    /// For all other texts.
    Kept,
}

impl TrailingZeros {
    pub(super) fn of(column: &Column) -> Self {
        if matches!(column, Column::Amount | Column::ExpectedBalance) { Self::Cut } else { Self::Kept }
    }
}

/// Checks that a column may have a type. The error continues the sentence "column NAME …".
pub(super) fn check(
    column: &Column,
    data_type: &DataType,
    is_uuid: bool,
    assume_utc: bool,
) -> Result<(), String> {
    use DataType::{
        Binary, BinaryView, Date32, Decimal128, Decimal256, Map, Struct, Timestamp, Utf8, Utf8View,
    };
    let is_text = matches!(data_type, Utf8 | Utf8View | Binary | BinaryView);
    match (column, data_type) {
        // Some writers declare a column without any value as a column of nulls.
        (Column::Ignored, _) | (_, DataType::Null) => Ok(()),
        (_, DataType::Float16 | DataType::Float32 | DataType::Float64) => {
            Err("contains floating-point numbers, which are not exact; write it as DECIMAL or text".into())
        }
        _ if is_text => Ok(()),
        (Column::Amount | Column::ExpectedBalance, Decimal128(..) | Decimal256(..)) => Ok(()),
        (Column::Amount | Column::ExpectedBalance, kind) if kind.is_integer() => {
            Err("contains integers, whose unit is unknown; write it as DECIMAL or text".into())
        }
        (Column::Amount | Column::ExpectedBalance, other) => Err(must_be("DECIMAL or text", other)),
        (Column::CreatedAt, Timestamp(_, Some(_))) => Ok(()),
        (Column::CreatedAt, Timestamp(_, None) | Date32) if assume_utc => Ok(()),
        (Column::CreatedAt, Timestamp(_, None) | Date32) => {
            Err("has no time zone; --assume-utc reads it as UTC".into())
        }
        (Column::CreatedAt, other) => Err(must_be("a TIMESTAMP with a time zone, or text", other)),
        (Column::MetadataObject, Map(entries, _)) => match entries.data_type() {
            Struct(fields) if fields.iter().all(|field| is_plain(field.data_type(), false)) => Ok(()),
            _ => Err("is a map whose values are not plain".into()),
        },
        (Column::MetadataObject, other) => Err(must_be("a map, a struct, or a JSON object as text", other)),
        (_, other) if is_plain(other, is_uuid) => Ok(()),
        (_, other) => Err(must_be("text or another plain value", other)),
    }
}

/// Whether each value has exactly one text.
fn is_plain(data_type: &DataType, is_uuid: bool) -> bool {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Decimal128, Decimal256, FixedSizeBinary, Timestamp, Utf8,
        Utf8View,
    };
    match data_type {
        Utf8 | Utf8View | Binary | BinaryView | Boolean | Date32 => true,
        Decimal128(..) | Decimal256(..) | Timestamp(..) => true,
        FixedSizeBinary(UUID_BYTES) => is_uuid,
        other => other.is_integer(),
    }
}

fn must_be(wanted: &str, found: &DataType) -> String {
    use DataType::{FixedSizeList, LargeList, List, Map, Struct};
    let found = match found {
        List(_) | LargeList(_) | FixedSizeList(..) => "a list".to_owned(),
        Struct(_) => "a struct".to_owned(),
        Map(..) => "a map".to_owned(),
        plain => plain.to_string(),
    };
    format!("is {found}, but must be {wanted}")
}

/// Appends the text of a value. The value must not be null.
pub(super) fn render(
    values: &ArrayRef,
    row: usize,
    zeros: TrailingZeros,
    text: &mut Vec<u8>,
) -> anyhow::Result<()> {
    use DataType::{
        BinaryView, Boolean, Date32, Decimal128, Decimal256, FixedSizeBinary, Int8, Int16, Int32, Int64, Map,
        Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8View,
    };
    match values.data_type() {
        Utf8View => text.extend_from_slice(values.as_string_view().value(row).as_bytes()),
        BinaryView => text.extend_from_slice(values.as_binary_view().value(row)),
        Decimal128(_, scale) => decimal(value::<Decimal128Type>(values, row), *scale, zeros, text)?,
        Decimal256(_, scale) => decimal(value::<Decimal256Type>(values, row), *scale, zeros, text)?,
        Timestamp(unit, zone) => timestamp(values, row, *unit, zone.is_some(), text),
        Date32 => match NaiveDate::from_epoch_days(value::<Date32Type>(values, row)) {
            Some(date) => write!(text, "{date}")?,
            None => text.extend_from_slice(OUT_OF_RANGE),
        },
        Boolean => write!(text, "{}", values.as_boolean().value(row))?,
        FixedSizeBinary(UUID_BYTES) => {
            write!(text, "{}", Uuid::from_slice(values.as_fixed_size_binary().value(row))?.hyphenated())?;
        }
        Int8 => write!(text, "{}", value::<Int8Type>(values, row))?,
        Int16 => write!(text, "{}", value::<Int16Type>(values, row))?,
        Int32 => write!(text, "{}", value::<Int32Type>(values, row))?,
        Int64 => write!(text, "{}", value::<Int64Type>(values, row))?,
        UInt8 => write!(text, "{}", value::<UInt8Type>(values, row))?,
        UInt16 => write!(text, "{}", value::<UInt16Type>(values, row))?,
        UInt32 => write!(text, "{}", value::<UInt32Type>(values, row))?,
        UInt64 => write!(text, "{}", value::<UInt64Type>(values, row))?,
        Map(..) => map(values, row, text)?,
        DataType::Null => {}
        other => bail!("values of type {other} are not supported"),
    }
    Ok(())
}

fn value<T: ArrowPrimitiveType>(values: &ArrayRef, row: usize) -> T::Native {
    values.as_primitive::<T>().value(row)
}

fn decimal(
    unscaled: impl Display,
    scale: i8,
    zeros: TrailingZeros,
    text: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let scale = usize::try_from(scale).context("a decimal type with a negative scale")?;
    let unscaled = unscaled.to_string();
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", unscaled.as_str()),
    };
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = match zeros {
        TrailingZeros::Cut => fraction.trim_end_matches('0'),
        TrailingZeros::Kept => fraction,
    };
    match fraction {
        "" => write!(text, "{sign}{whole}")?,
        fraction => write!(text, "{sign}{whole}.{fraction}")?,
    }
    Ok(())
}

/// Appends a timestamp in RFC 3339, without the offset if the type has no time zone.
fn timestamp(values: &ArrayRef, row: usize, unit: TimeUnit, is_utc: bool, text: &mut Vec<u8>) {
    let at: Option<DateTime<Utc>> = match unit {
        TimeUnit::Second => DateTime::from_timestamp_secs(value::<TimestampSecondType>(values, row)),
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(value::<TimestampMillisecondType>(values, row))
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(value::<TimestampMicrosecondType>(values, row))
        }
        TimeUnit::Nanosecond => {
            Some(DateTime::from_timestamp_nanos(value::<TimestampNanosecondType>(values, row)))
        }
    };
    let Some(at) = at else {
        return text.extend_from_slice(OUT_OF_RANGE);
    };
    let at = at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let shown = if is_utc { at.as_str() } else { at.trim_end_matches('Z') };
    text.extend_from_slice(shown.as_bytes());
}

/// Appends a map as a JSON object of texts. Repeated names stay repeated, and entries without a value are left out.
fn map(values: &ArrayRef, row: usize, text: &mut Vec<u8>) -> anyhow::Result<()> {
    let entries = values.as_map().value(row);
    let [names, values] = entries.columns() else { bail!("a map does not have two columns") };
    let mut object = Vec::new();
    for entry in (0..entries.len()).filter(|entry| !values.is_null(*entry)) {
        let (mut name, mut value) = (Vec::new(), Vec::new());
        render(names, entry, TrailingZeros::Kept, &mut name)?;
        render(values, entry, TrailingZeros::Kept, &mut value)?;
        match (String::from_utf8(name), String::from_utf8(value)) {
            (Ok(name), Ok(value)) => object.push((name, value)),
            // Append the invalid text, so that the row is rejected.
            (Err(not_utf8), _) | (_, Err(not_utf8)) => {
                text.extend_from_slice(not_utf8.as_bytes());
                return Ok(());
            }
        };
    }
    serde_json::Serializer::new(text).collect_map(object)?;
    Ok(())
}
