//! The scale of the currencies: how many units of each currency count as one unit of the amounts that a rule file names.
//!
//! Guarantee: a scale has a factor for every currency, so no amount is used in a currency that was forgotten.

use std::collections::HashMap;

use super::{
    RuleFileError,
    money::Decimal,
    rule_file::{DEFAULT_CURRENCY, RuleText, ScaleIn, did_you_mean},
};
use crate::domain::{CURRENCIES, Currency};

/// How many missing currencies an error names.
const MISSING_SHOWN_MAX: usize = 5;

/// A factor for every currency.
pub(super) struct Scale(HashMap<Currency, Decimal>);

impl Scale {
    /// Reads the table. Without one, every factor is 1.
    pub fn read(written: Option<&ScaleIn>, source: RuleText<'_>) -> Result<Self, RuleFileError> {
        let Some(table) = written else { return Ok(Self(HashMap::new())) };
        let mut factors = HashMap::new();
        let mut default = None;
        for (code, text) in table.get_ref() {
            let refused = |message: String| source.error(text.span(), format!("scale.{code}"), message);
            let factor = Decimal::parse(text.get_ref()).map_err(refused)?;
            if !factor.is_positive() {
                return Err(refused("must be more than 0".into()));
            }
            match Currency::parse(code) {
                Ok(currency) => {
                    factors.insert(currency, factor);
                }
                Err(_) if code == DEFAULT_CURRENCY => default = Some(factor),
                Err(_) => {
                    let nearest = did_you_mean(code, CURRENCIES.iter().map(|(known, _)| *known));
                    return Err(refused(format!("there is no currency {code}{nearest}")));
                }
            }
        }
        let all = CURRENCIES.iter().filter_map(|(code, _)| Currency::parse(code).ok());
        let missing: Vec<Currency> = all.filter(|currency| !factors.contains_key(currency)).collect();
        match default {
            Some(default) => factors.extend(missing.into_iter().map(|currency| (currency, default))),
            None if missing.is_empty() => {}
            None => return Err(source.error(table.span(), "scale", incomplete(&missing))),
        }
        Ok(Self(factors))
    }

    pub fn factor(&self, currency: Currency) -> Decimal {
        self.0.get(&currency).copied().unwrap_or(Decimal::ONE)
    }
}

fn incomplete(missing: &[Currency]) -> String {
    let shown: Vec<&str> = missing.iter().take(MISSING_SHOWN_MAX).map(|currency| currency.code()).collect();
    format!(
        "lists no factor for {} currencies, such as {}; list them, or write a `default` for them",
        missing.len(),
        shown.join(", ")
    )
}
