//! Written amounts of a rule file as minor units.

/// ISO 4217 has currencies with 0 to 4 decimals.
pub(super) const DECIMALS_MAX: u8 = 4;

/// Converts a decimal text to minor units. Zeros after the currency's last decimal are allowed, so that one text serves
/// yen and euro. Other digits there are an error, because amounts are never rounded.
pub(super) fn minor_units(text: &str, decimals: u8) -> Result<i64, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, whole) = whole.strip_prefix('-').map_or((false, whole), |rest| (true, rest));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return Err(format!("\"{text}\" is not a plain decimal number such as \"125.50\""));
    }
    let decimals = usize::from(decimals);
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > decimals {
        return Err(format!("\"{text}\" has more decimals than a currency with {decimals} decimals"));
    }
    let padded = format!("{whole}{fraction:0<decimals$}");
    let minor = padded.parse::<i64>().ok().filter(|minor| *minor <= crate::domain::AMOUNT_MINOR_MAX);
    let minor = minor.ok_or_else(|| format!("\"{text}\" is larger than any amount of the ledger"))?;
    Ok(if negative { -minor } else { minor })
}
