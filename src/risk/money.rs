//! Written amounts of a rule file as minor units.

/// ISO 4217 has currencies with 0 to 4 decimals.
pub(super) const DECIMALS_MAX: u8 = 4;

/// The most decimals of a written number.
const FRACTION_DIGITS_MAX: usize = 18;

/// An exact decimal number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal {
    digits: i128,
    decimals: usize,
}

impl Decimal {
    /// The number one.
    pub const ONE: Self = Self { digits: 1, decimals: 0 };

    pub fn parse(text: &str) -> Result<Self, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let unsigned = whole.strip_prefix('-').unwrap_or(whole);
        if unsigned.is_empty() || !digits(unsigned) || !digits(fraction) || text.ends_with('.') {
            return Err(format!("\"{text}\" is not a plain decimal number such as \"125.50\""));
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > FRACTION_DIGITS_MAX {
            return Err(format!("has more than {FRACTION_DIGITS_MAX} decimals"));
        }
        let digits = format!("{whole}{fraction}").parse::<i128>().map_err(|_| too_large(text))?;
        Ok(Self { digits, decimals: fraction.len() })
    }

    fn is_one(self) -> bool {
        self.digits == 1 && self.decimals == 0
    }

    pub fn is_positive(self) -> bool {
        self.digits > 0
    }

    fn times(self, other: Self) -> Option<Self> {
        let mut product = Self {
            digits: self.digits.checked_mul(other.digits)?,
            decimals: self.decimals.checked_add(other.decimals)?,
        };
        while product.decimals > 0 && product.digits % 10 == 0 {
            product.digits /= 10;
            product.decimals -= 1;
        }
        Some(product)
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:0>width$}", self.digits, width = self.decimals + 1);
        match digits.split_at(digits.len() - self.decimals) {
            (whole, "") => formatter.write_str(whole),
            (whole, fraction) => write!(formatter, "{whole}.{fraction}"),
        }
    }
}

/// Converts a decimal text to minor units. Zeros after the currency's last decimal are allowed, so that one text serves
/// yen and euro. Other digits there are an error, because amounts are never rounded.
pub(super) fn minor_units(text: &str, decimals: u8) -> Result<i64, String> {
    scaled_minor_units(text, Decimal::ONE, decimals)
}

/// Like [`minor_units`], for the amount times `factor`.
pub(super) fn scaled_minor_units(text: &str, factor: Decimal, decimals: u8) -> Result<i64, String> {
    let amount = Decimal::parse(text)?.times(factor).ok_or_else(|| too_large(text))?;
    let padding = usize::from(decimals).checked_sub(amount.decimals).ok_or_else(|| {
        let times = if factor.is_one() { String::new() } else { format!(" times {factor}") };
        format!("\"{text}\"{times} has more decimals than a currency with {decimals} decimals")
    })?;
    let minor = u32::try_from(padding).ok().and_then(|padding| 10_i128.checked_pow(padding));
    let minor = minor.and_then(|unit| amount.digits.checked_mul(unit));
    let minor = minor.and_then(|minor| i64::try_from(minor).ok());
    minor
        .filter(|minor| minor.saturating_abs() <= crate::domain::AMOUNT_MINOR_MAX)
        .ok_or_else(|| too_large(text))
}

fn too_large(text: &str) -> String {
    format!("\"{text}\" is larger than any amount of the ledger")
}
