//! Currencies and their decimals, from ISO 4217, list one (active codes), published by SIX Financial Information, in its
//! state of January 2026.
//!
//! - The decimals of a currency can never change once a ledger holds money in it: amounts are stored in minor units.
//! - A code stays in [`CURRENCIES`] when its currency has ended, because the ledger may hold it; [`ENDED`] has the date.
//!   Rows from before that stay readable and reversible, and history can be imported, but nothing new is posted.
//!   Codes that ended before 2026, such as HRK, were never in the list.
//! - The migrations fill the table `currencies` with the same list; `the_currency_table_equals_the_compiled_list` in
//!   `tests/http.rs` compares the two.
//!
//! Deliberately absent: codes without a minor unit (metals, testing), and codes of funds except CLF and UYW, which are
//! units of account with four decimals.

use std::fmt;

use chrono::{DateTime, Utc};

/// An ISO 4217 currency, as an index into [`CURRENCIES`]. Cheap to copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency(u8);

/// Code and decimals of each currency, sorted by code.
pub const CURRENCIES: &[(&str, u8)] = &[
    ("AED", 2),
    ("AFN", 2),
    ("ALL", 2),
    ("AMD", 2),
    ("AOA", 2),
    ("ARS", 2),
    ("AUD", 2),
    ("AWG", 2),
    ("AZN", 2),
    ("BAM", 2),
    ("BBD", 2),
    ("BDT", 2),
    ("BGN", 2),
    ("BHD", 3),
    ("BIF", 0),
    ("BMD", 2),
    ("BND", 2),
    ("BOB", 2),
    ("BRL", 2),
    ("BSD", 2),
    ("BTN", 2),
    ("BWP", 2),
    ("BYN", 2),
    ("BZD", 2),
    ("CAD", 2),
    ("CDF", 2),
    ("CHF", 2),
    ("CLF", 4),
    ("CLP", 0),
    ("CNY", 2),
    ("COP", 2),
    ("CRC", 2),
    ("CUP", 2),
    ("CVE", 2),
    ("CZK", 2),
    ("DJF", 0),
    ("DKK", 2),
    ("DOP", 2),
    ("DZD", 2),
    ("EGP", 2),
    ("ERN", 2),
    ("ETB", 2),
    ("EUR", 2),
    ("FJD", 2),
    ("FKP", 2),
    ("GBP", 2),
    ("GEL", 2),
    ("GHS", 2),
    ("GIP", 2),
    ("GMD", 2),
    ("GNF", 0),
    ("GTQ", 2),
    ("GYD", 2),
    ("HKD", 2),
    ("HNL", 2),
    ("HTG", 2),
    ("HUF", 2),
    ("IDR", 2),
    ("ILS", 2),
    ("INR", 2),
    ("IQD", 3),
    ("IRR", 2),
    ("ISK", 0),
    ("JMD", 2),
    ("JOD", 3),
    ("JPY", 0),
    ("KES", 2),
    ("KGS", 2),
    ("KHR", 2),
    ("KMF", 0),
    ("KPW", 2),
    ("KRW", 0),
    ("KWD", 3),
    ("KYD", 2),
    ("KZT", 2),
    ("LAK", 2),
    ("LBP", 2),
    ("LKR", 2),
    ("LRD", 2),
    ("LSL", 2),
    ("LYD", 3),
    ("MAD", 2),
    ("MDL", 2),
    ("MGA", 2),
    ("MKD", 2),
    ("MMK", 2),
    ("MNT", 2),
    ("MOP", 2),
    ("MRU", 2),
    ("MUR", 2),
    ("MVR", 2),
    ("MWK", 2),
    ("MXN", 2),
    ("MYR", 2),
    ("MZN", 2),
    ("NAD", 2),
    ("NGN", 2),
    ("NIO", 2),
    ("NOK", 2),
    ("NPR", 2),
    ("NZD", 2),
    ("OMR", 3),
    ("PAB", 2),
    ("PEN", 2),
    ("PGK", 2),
    ("PHP", 2),
    ("PKR", 2),
    ("PLN", 2),
    ("PYG", 0),
    ("QAR", 2),
    ("RON", 2),
    ("RSD", 2),
    ("RUB", 2),
    ("RWF", 0),
    ("SAR", 2),
    ("SBD", 2),
    ("SCR", 2),
    ("SDG", 2),
    ("SEK", 2),
    ("SGD", 2),
    ("SHP", 2),
    ("SLE", 2),
    ("SOS", 2),
    ("SRD", 2),
    ("SSP", 2),
    ("STN", 2),
    ("SVC", 2),
    ("SYP", 2),
    ("SZL", 2),
    ("THB", 2),
    ("TJS", 2),
    ("TMT", 2),
    ("TND", 3),
    ("TOP", 2),
    ("TRY", 2),
    ("TTD", 2),
    ("TWD", 2),
    ("TZS", 2),
    ("UAH", 2),
    ("UGX", 0),
    ("USD", 2),
    ("UYU", 2),
    ("UYW", 4),
    ("UZS", 2),
    ("VED", 2),
    ("VES", 2),
    ("VND", 0),
    ("VUV", 0),
    ("WST", 2),
    ("XAF", 0),
    ("XCD", 2),
    ("XCG", 2),
    ("XOF", 0),
    ("XPF", 0),
    ("YER", 2),
    ("ZAR", 2),
    ("ZMW", 2),
    ("ZWG", 2),
];

/// The currencies of [`CURRENCIES`] that have ended.
pub const ENDED: &[EndedCurrency] =
    &[EndedCurrency { code: "BGN", ended_at_seconds: 1_767_225_600, successor: "EUR" }];

/// A currency that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct EndedCurrency {
    /// The code of the currency.
    pub code: &'static str,
    /// The Unix time of the end of the currency; nothing is posted in it afterwards.
    ended_at_seconds: i64,
    /// The code of the currency that replaced it.
    successor: &'static str,
}

/// The error for a text that is not a supported ISO 4217 code in capitals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an active ISO 4217 currency code in capitals, such as EUR")]
pub struct UnknownCurrency;

/// The error for a currency that cannot be posted in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CurrencyError {
    /// The text is not a supported code.
    #[error(transparent)]
    Unknown(#[from] UnknownCurrency),
    /// The currency has ended.
    #[error("{code} is no longer a currency; {successor} replaced it")]
    Ended {
        /// The code of the currency.
        code: &'static str,
        /// The code of its successor.
        successor: &'static str,
    },
}

impl Currency {
    /// Parses the code of a currency that has not ended, for a transaction of today.
    pub fn parse_active(code: &str) -> Result<Self, CurrencyError> {
        let currency = Self::parse(code)?;
        currency.check_active()?;
        Ok(currency)
    }

    /// Refuses a currency that has ended.
    pub fn check_active(self) -> Result<(), CurrencyError> {
        self.ended().map_or(Ok(()), |ended| Err(ended.error()))
    }

    /// Refuses a currency that had ended when the transaction was created.
    pub fn check_active_at(self, created_at: DateTime<Utc>) -> Result<(), CurrencyError> {
        let ended = self.ended().filter(|ended| created_at.timestamp() >= ended.ended_at_seconds);
        ended.map_or(Ok(()), |ended| Err(ended.error()))
    }

    fn ended(self) -> Option<&'static EndedCurrency> {
        ENDED.iter().find(|ended| ended.code == self.code())
    }

    /// Parses a code in capitals, also one whose currency has ended. `eur` is refused.
    pub fn parse(code: &str) -> Result<Self, UnknownCurrency> {
        let index =
            CURRENCIES.binary_search_by(|(known, _)| (*known).cmp(code)).map_err(|_| UnknownCurrency)?;
        u8::try_from(index).map(Self).map_err(|_| UnknownCurrency)
    }

    /// Returns the three-letter code.
    pub fn code(self) -> &'static str {
        CURRENCIES.get(usize::from(self.0)).map_or("", |(code, _)| code)
    }

    /// Returns the number of decimals: 0 for JPY, 2 for EUR, 3 for BHD.
    pub fn decimals(self) -> u8 {
        CURRENCIES.get(usize::from(self.0)).map_or(0, |(_, decimals)| *decimals)
    }
}

impl EndedCurrency {
    fn error(&self) -> CurrencyError {
        CurrencyError::Ended { code: self.code, successor: self.successor }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_three_capitals() {
        assert!(CURRENCIES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(
            CURRENCIES
                .iter()
                .all(|(code, _)| code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()))
        );
        assert!(CURRENCIES.len() <= 256);
    }

    #[test]
    fn every_code_is_found_with_its_decimals() {
        for (code, decimals) in CURRENCIES {
            let currency = Currency::parse(code).expect("listed");
            assert_eq!((currency.code(), currency.decimals()), (*code, *decimals));
        }
    }

    #[test]
    fn a_currency_that_ended_is_known_and_refused_from_its_end() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a moment");
        for ended in ENDED {
            let currency = Currency::parse(ended.code).expect("known");
            assert_eq!(Currency::parse_active(ended.code), Err(ended.error()));
            assert!(Currency::parse_active(ended.successor).is_ok());
            assert!(currency.check_active_at(DateTime::UNIX_EPOCH).is_ok());
        }
        let lev = Currency::parse("BGN").expect("known");
        assert!(lev.check_active_at(at("2025-12-31T23:59:59Z")).is_ok());
        let refused = lev.check_active_at(at("2026-01-01T00:00:00Z")).expect_err("refused").to_string();
        assert_eq!(refused, "BGN is no longer a currency; EUR replaced it");
    }

    #[test]
    fn lower_case_unknown_and_historic_codes_are_refused() {
        for code in ["eur", "", "EURO", "XXX", "XAU", "XTS", "CHE", "USN", "HRK", "DEM"] {
            assert_eq!(Currency::parse(code), Err(UnknownCurrency), "{code}");
        }
    }
}
