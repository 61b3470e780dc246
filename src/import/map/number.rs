//! Reads numbers as banks and spreadsheets write them, without rounding: `1.234,50`, `(195.00)`, `5,00-`, `−9.5 EUR`.
//!
//! A mark that the map does not name is refused, and so is a thousands mark that does not separate thousands. So a
//! number is read as what it means, or not at all.

use std::borrow::Cow;

const MINUS: [char; 2] = ['-', '\u{2212}'];
/// Symbols, each with the currencies that it can mean.
const SYMBOLS: &[(char, &[&str])] = &[
    ('€', &["EUR"]),
    ('£', &["GBP"]),
    ('¥', &["JPY", "CNY"]),
    ('₹', &["INR"]),
    ('$', &["USD", "AUD", "CAD", "HKD", "MXN", "NZD", "SGD"]),
];

/// The marks within a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) decimal: char,
    /// A blank stands for every kind of blank, an apostrophe for both kinds.
    pub(super) thousands: Option<char>,
}

/// A number that may be negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) is_negative: bool,
    /// Digits with at most one point and without zeros at the end of the fraction.
    pub(super) digits: String,
}

impl Signed {
    pub(super) fn is_zero(&self) -> bool {
        self.digits.bytes().all(|byte| matches!(byte, b'0' | b'.'))
    }

    pub(super) fn negated(self) -> Self {
        Self { is_negative: !self.is_negative, ..self }
    }

    /// Returns the number as `[-]digits[.digits]`.
    pub(super) fn plain(&self) -> Cow<'_, str> {
        match self.is_negative {
            true => format!("-{}", self.digits).into(),
            false => self.digits.as_str().into(),
        }
    }
}

/// Parses a number. Returns None for an empty text. The error continues the sentence "the column …".
pub(super) fn parse(text: &str, marks: Marks, currency: &str) -> Result<Option<Signed>, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    let (is_negative, number) = without_sign(trimmed, currency)
        .ok_or_else(|| format!("has {trimmed:?}, which has more than one sign"))?;
    let digits = digits(number, marks).map_err(|problem| format!("has {trimmed:?}{problem}"))?;
    Ok(Some(Signed { is_negative, digits }))
}

/// Removes sign, parentheses and currency from both ends. Returns None if there are two signs.
fn without_sign<'a>(text: &'a str, currency: &str) -> Option<(bool, &'a str)> {
    let (mut rest, mut is_negative, mut signs) = (text, false, 0);
    loop {
        let before = rest;
        if let Some(inner) = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            (rest, is_negative, signs) = (inner, true, signs + 1);
        } else if let Some(inner) = rest.strip_prefix(MINUS).or_else(|| rest.strip_suffix(MINUS)) {
            (rest, is_negative, signs) = (inner, true, signs + 1);
        } else if let Some(inner) = rest.strip_prefix('+') {
            (rest, signs) = (inner, signs + 1);
        } else {
            rest = without_currency(rest, currency);
        }
        rest = rest.trim();
        if rest == before {
            return (signs < 2).then_some((is_negative, rest));
        }
    }
}

fn without_currency<'a>(text: &'a str, currency: &str) -> &'a str {
    if !currency.is_empty() {
        let code = text.strip_suffix(currency).or_else(|| text.strip_prefix(currency));
        if let Some(rest) = code {
            return rest;
        }
    }
    let of_currency =
        SYMBOLS.iter().filter(|(_, codes)| codes.contains(&currency)).map(|(symbol, _)| *symbol);
    let mut stripped =
        of_currency.filter_map(|symbol| text.strip_suffix(symbol).or_else(|| text.strip_prefix(symbol)));
    stripped.next().unwrap_or(text)
}

/// Returns digits with at most one point. The error continues a quoted number.
fn digits(number: &str, marks: Marks) -> Result<String, String> {
    let (whole, fraction) = match number.split_once(marks.decimal) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_some_and(|fraction| !all_digits(fraction)) || (whole.is_empty() && fraction.is_none()) {
        return Err(not_a_number(number, marks));
    }
    let mut digits = String::with_capacity(number.len());
    let groups: Vec<&str> = match marks.thousands {
        Some(mark) => whole.split(|character| is_mark(character, mark)).collect(),
        None => vec![whole],
    };
    let last = groups.len() - 1;
    for (index, group) in groups.iter().enumerate() {
        let fits = match index {
            _ if last == 0 => group.is_empty() || all_digits(group),
            0 => all_digits(group) && group.len() <= 3,
            // India writes 10,00,000: groups of two before the last group of three.
            _ if index < last => all_digits(group) && matches!(group.len(), 2 | 3),
            _ => all_digits(group) && group.len() == 3,
        };
        if !fits {
            return Err(not_a_number(number, marks));
        }
        digits.push_str(group);
    }
    if digits.is_empty() {
        digits.push('0');
    }
    let fraction = fraction.unwrap_or_default().trim_end_matches('0');
    if !fraction.is_empty() {
        digits.push('.');
        digits.push_str(fraction);
    }
    Ok(digits)
}

fn is_mark(character: char, mark: char) -> bool {
    match mark {
        ' ' => character.is_whitespace(),
        '\'' => matches!(character, '\'' | '\u{2019}'),
        mark => character == mark,
    }
}

fn not_a_number(number: &str, marks: Marks) -> String {
    let thousands = marks.thousands.map_or_else(
        || "without thousands marks".to_owned(),
        |mark| format!("with the thousands mark {mark:?}"),
    );
    let is_digit_or_mark =
        |character: char| character.is_ascii_digit() || ".,' \u{a0}\u{202f}\u{2019}".contains(character);
    let advice = match number.chars().all(is_digit_or_mark) {
        true => "; are `decimal` and `thousands` of the map right?",
        false => "",
    };
    format!(", which is no number with the decimal mark {:?} and {thousands}{advice}", marks.decimal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GERMAN: Marks = Marks { decimal: ',', thousands: Some('.') };
    const ENGLISH: Marks = Marks { decimal: '.', thousands: Some(',') };
    const FRENCH: Marks = Marks { decimal: ',', thousands: Some(' ') };
    const PLAIN: Marks = Marks { decimal: '.', thousands: None };

    fn read(text: &str, marks: Marks) -> Result<String, String> {
        parse(text, marks, "EUR").map(|number| number.expect("a number").plain().into_owned())
    }

    #[test]
    fn numbers_are_read_exactly() {
        for (text, marks, plain) in [
            ("-1.850,00", GERMAN, "-1850"),
            ("-4,5", GERMAN, "-4.5"),
            ("1.234", GERMAN, "1234"),
            ("-5.000,00\u{a0}EUR", GERMAN, "-5000"),
            ("1.234,56 €", GERMAN, "1234.56"),
            (" 1,000,000.00 ", ENGLISH, "1000000"),
            ("10,00,000.50", ENGLISH, "1000000.5"),
            (" (195.00)", ENGLISH, "-195"),
            ("5.00-", PLAIN, "-5"),
            ("\u{2212}5.00", PLAIN, "-5"),
            ("+5.010", PLAIN, "5.01"),
            (".50", PLAIN, "0.5"),
            ("1\u{202f}234\u{a0}567,8", FRENCH, "1234567.8"),
            ("1'234.5", Marks { decimal: '.', thousands: Some('\'') }, "1234.5"),
        ] {
            assert_eq!(read(text, marks), Ok(plain.to_owned()), "{text:?}");
        }
        let dollars = parse("$-5.25", PLAIN, "USD").expect("a number").expect("present");
        assert_eq!(dollars.plain(), "-5.25");
        assert_eq!(parse(" \u{a0}", GERMAN, "EUR"), Ok(None));
    }

    #[test]
    fn a_number_with_other_marks_is_refused() {
        for (text, marks) in [
            ("1.2", GERMAN),
            ("1.23.456", ENGLISH),
            ("12.34", GERMAN),
            ("1.2345", GERMAN),
            ("1234.567", GERMAN),
            ("1,234.50", PLAIN),
            ("1 234", PLAIN),
            ("5.", PLAIN),
            (".", PLAIN),
            ("1e2", PLAIN),
            ("٥.00", PLAIN),
            ("--5", PLAIN),
            ("(-5)", PLAIN),
            ("5 USD", PLAIN),
            ("£5", PLAIN),
            ("$5", PLAIN),
        ] {
            assert!(read(text, marks).is_err(), "{text:?}");
        }
        assert!(read("1,234.50", PLAIN).expect_err("refused").contains("`decimal` and `thousands`"));
    }
}
