//! Exact money: whole minor units in an `i64`, parsed from decimal strings and formatted as such. Never a float.

use super::Currency;

/// The largest amount, and the largest absolute balance, in minor units: 10^18 − 1. The sum of two such values fits into
/// an `i64`.
pub const AMOUNT_MINOR_MAX: i64 = 999_999_999_999_999_999;

/// A positive amount in minor units of its currency, 1 ..= [`AMOUNT_MINOR_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct Amount(i64);

/// Why a text is not an amount. The messages are for clients of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The text is empty or has exponents, blanks, `NaN`, or a sign other than a permitted leading minus.
    #[error("must be a plain decimal number such as \"125.50\"")]
    Malformed,
    /// The text has more decimals than the currency.
    #[error("has more than the {decimals} decimals of {code}")]
    TooManyDecimals {
        /// The ISO 4217 code.
        code: &'static str,
        /// The decimals of the currency.
        decimals: u8,
    },
    /// The amount is larger than [`AMOUNT_MINOR_MAX`].
    #[error("is larger than the ledger accepts (18 digits including decimals)")]
    TooLarge,
    /// The amount is zero or negative.
    #[error("must be greater than zero")]
    NotPositive,
}

impl Amount {
    /// Makes an amount of minor units.
    pub fn from_minor(minor: i64) -> Result<Self, AmountError> {
        match minor {
            1..=AMOUNT_MINOR_MAX => Ok(Self(minor)),
            i64::MIN..=0 => Err(AmountError::NotPositive),
            _ => Err(AmountError::TooLarge),
        }
    }

    /// Parses a positive decimal string with no more decimals than `currency` has.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, AmountError> {
        Self::from_minor(parse_minor(text, currency)?)
    }

    /// Returns the amount in minor units.
    pub fn minor(self) -> i64 {
        self.0
    }
}

/// The most digits before the decimal point, with leading zeros.
const WHOLE_DIGITS_MAX: usize = 18;

/// Parses `[-]digits[.digits]` into minor units of `currency`, at most [`AMOUNT_MINOR_MAX`] away from zero.
///
/// `1.5` and `1.50` are the same EUR amount. `1.500` is refused although its last digit is zero, because the client
/// probably means a currency with other decimals. Leading zeros are accepted, up to 18 digits before the point.
pub fn parse_minor(text: &str, currency: Currency) -> Result<i64, AmountError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err(AmountError::Malformed),
        Some((whole, fraction)) => (whole, fraction),
        None => (digits, ""),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(AmountError::Malformed);
    }
    if whole.len() > WHOLE_DIGITS_MAX {
        return Err(AmountError::TooLarge);
    }
    let decimals = currency.decimals();
    if fraction.len() > usize::from(decimals) {
        return Err(AmountError::TooManyDecimals { code: currency.code(), decimals });
    }
    let padding = usize::from(decimals) - fraction.len();
    let zeros = std::iter::repeat_n(b'0', padding);
    let mut minor: i64 = 0;
    for digit in whole.bytes().chain(fraction.bytes()).chain(zeros) {
        let grown = minor.checked_mul(10).and_then(|tens| tens.checked_add(i64::from(digit - b'0')));
        minor = grown.filter(|minor| *minor <= AMOUNT_MINOR_MAX).ok_or(AmountError::TooLarge)?;
    }
    Ok(if negative { -minor } else { minor })
}

/// Formats minor units with exactly the decimals of `currency`: `-12550` EUR is `-125.50`, `7` JPY is `7`.
pub fn format_minor(minor: i64, currency: Currency) -> String {
    let decimals = usize::from(currency.decimals());
    let sign = if minor < 0 { "-" } else { "" };
    let digits = minor.unsigned_abs();
    if decimals == 0 {
        return format!("{sign}{digits}");
    }
    let scale = 10_u64.pow(u32::from(currency.decimals()));
    format!("{sign}{}.{:0decimals$}", digits / scale, digits % scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).expect("known code")
    }

    #[test]
    fn decimals_follow_the_currency() {
        assert_eq!(parse_minor("125.5", currency("EUR")), Ok(12_550));
        assert_eq!(parse_minor("125", currency("JPY")), Ok(125));
        assert_eq!(parse_minor("1.234", currency("BHD")), Ok(1_234));
        assert_eq!(
            parse_minor("1.0", currency("JPY")),
            Err(AmountError::TooManyDecimals { code: "JPY", decimals: 0 })
        );
        assert_eq!(
            parse_minor("1.000", currency("EUR")),
            Err(AmountError::TooManyDecimals { code: "EUR", decimals: 2 })
        );
    }

    #[test]
    fn a_text_that_is_not_a_plain_decimal_is_refused() {
        for text in [
            "", ".", "1.", ".5", "+1", "1e3", "NaN", "Infinity", " 1", "1 ", "1,5", "--1", "٣", "0x1",
            "1_000",
        ] {
            assert_eq!(parse_minor(text, currency("EUR")), Err(AmountError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn amounts_are_positive_and_bounded() {
        assert_eq!(Amount::parse("0.00", currency("EUR")), Err(AmountError::NotPositive));
        assert_eq!(Amount::parse("-1", currency("EUR")), Err(AmountError::NotPositive));
        assert_eq!(
            Amount::parse("9999999999999999.99", currency("EUR")).map(Amount::minor),
            Ok(AMOUNT_MINOR_MAX)
        );
        assert_eq!(Amount::parse("10000000000000000.00", currency("EUR")), Err(AmountError::TooLarge));
        assert_eq!(parse_minor("-000000000000000001.00", currency("EUR")), Ok(-100));
        assert_eq!(parse_minor("-0000000000000000001.00", currency("EUR")), Err(AmountError::TooLarge));
        assert_eq!(Amount::parse(&"9".repeat(20_000), currency("EUR")), Err(AmountError::TooLarge));
    }

    proptest! {
        #[test]
        fn formatting_then_parsing_gives_the_same_minor_units(
            minor in -AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX, index in 0..CURRENCIES_COUNT
        ) {
            let currency = currency(super::super::CURRENCIES[index].0);
            prop_assert_eq!(parse_minor(&format_minor(minor, currency), currency), Ok(minor));
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in ".{0,40}") {
            let _ = parse_minor(&text, currency("EUR"));
        }

        #[test]
        fn parsing_agrees_with_big_decimal(whole in 0_u64..1_000_000_000, cents in 0_u8..100) {
            let text = format!("{whole}.{cents:02}");
            let exact = text.parse::<bigdecimal::BigDecimal>().expect("decimal");
            let scaled = (exact * bigdecimal::BigDecimal::from(100)).to_plain_string();
            let minor = parse_minor(&text, currency("EUR")).expect("valid");
            prop_assert_eq!(scaled.split('.').next().expect("whole").parse::<i64>().expect("integer"), minor);
        }
    }

    const CURRENCIES_COUNT: usize = super::super::CURRENCIES.len();
}
