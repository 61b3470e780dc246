//! Suppressions: a rule does not count for some accounts or counterparties until a moment, for a reason that a person has
//! given.
//!
//! A suppressed rule is evaluated. If it fires, the assessment has it beside the rules in shadow mode, with the reason. The
//! time of the transaction decides, so scoring an event again gives the same result.

use std::{ops::Range, sync::Arc};

use chrono::{DateTime, Utc};
use toml::Spanned;

use super::{
    RuleFileError,
    lists::Lists,
    rule_file::{RuleFile, RuleText, SuppressionIn, did_you_mean, moment},
    subject::Subject,
    text_set::TextSet,
};
use crate::{
    domain::{AccountId, COUNTERPARTY_LENGTH_MAX, bounded_text, format_moment},
    event::RuleSuppressed,
};

/// The most suppressions of a file. Lists serve any number of accounts.
const SUPPRESSIONS_MAX: usize = 1_000;
/// The longest reason in characters.
const REASON_LENGTH_MAX: usize = 500;

/// The texts that a suppression is for.
#[derive(Debug)]
enum Texts {
    One(Box<str>),
    Listed(Arc<TextSet>),
}

impl Texts {
    fn contains(&self, text: &str) -> bool {
        match self {
            Self::One(one) => **one == *text,
            Self::Listed(texts) => texts.contains(text),
        }
    }
}

#[derive(Debug)]
pub(super) struct Suppression {
    /// None: every account.
    accounts: Option<Texts>,
    /// None: every counterparty.
    counterparties: Option<Texts>,
    until: DateTime<Utc>,
    reason: Box<str>,
}

impl Suppression {
    fn applies(&self, subject: &Subject<'_>) -> bool {
        subject.created_at < self.until
            && self.accounts.as_ref().is_none_or(|texts| texts.contains(subject.account_id))
            && self.counterparties.as_ref().is_none_or(|texts| {
                subject.counterparty.is_some_and(|counterparty| texts.contains(counterparty))
            })
    }
}

/// Returns why the rule with these suppressions is suppressed for the transaction. The first one of the file counts.
pub(super) fn suppressed(suppressions: &[Suppression], subject: &Subject<'_>) -> Option<RuleSuppressed> {
    let found = suppressions.iter().find(|suppression| suppression.applies(subject))?;
    Some(RuleSuppressed { until: format_moment(found.until), reason: found.reason.to_string() })
}

/// Checks the suppressions of a file. Each comes with the index of its rule.
pub(super) fn build(
    file: &RuleFile,
    source: RuleText<'_>,
    lists: &Lists,
) -> Result<Vec<(usize, Suppression)>, RuleFileError> {
    if let Some(one) = file.suppressions.get(SUPPRESSIONS_MAX) {
        let message =
            format!("there are more than {SUPPRESSIONS_MAX}; use `accounts` or `counterparties` with a list");
        return Err(source.error(one.span(), "suppressions", message));
    }
    file.suppressions
        .iter()
        .map(|written| SuppressionBuilder { file, source, lists, written }.build())
        .collect()
}

struct SuppressionBuilder<'a> {
    file: &'a RuleFile,
    source: RuleText<'a>,
    lists: &'a Lists,
    written: &'a Spanned<SuppressionIn>,
}

impl SuppressionBuilder<'_> {
    fn build(&self) -> Result<(usize, Suppression), RuleFileError> {
        let written = self.written.get_ref();
        let account = |text: &str| match AccountId::parse(text) {
            Ok(_) => Ok(text.into()),
            Err(error) => Err(error.to_string()),
        };
        let counterparty = |text: &str| bounded_text(text, COUNTERPARTY_LENGTH_MAX).map_err(|error| error.0);
        let accounts = self.texts(["account", "accounts"], &written.account, &written.accounts, account)?;
        let counterparties = self.texts(
            ["counterparty", "counterparties"],
            &written.counterparty,
            &written.counterparties,
            counterparty,
        )?;
        if accounts.is_none() && counterparties.is_none() {
            let message =
                "needs `account` or `counterparty`, or the name of a list in `accounts` or `counterparties`";
            return Err(self.error(self.written.span(), "", message));
        }
        let reason = bounded_text(written.reason.get_ref(), REASON_LENGTH_MAX)
            .map_err(|error| self.error(written.reason.span(), ".reason", error.0))?;
        Ok((self.rule()?, Suppression { accounts, counterparties, until: self.until()?, reason }))
    }

    fn error(&self, span: Range<usize>, part: &str, message: impl Into<String>) -> RuleFileError {
        self.source.error(span, format!("suppressions{part}"), message)
    }

    fn rule(&self) -> Result<usize, RuleFileError> {
        let written = &self.written.get_ref().rule;
        let ids = || self.file.rules.iter().map(|rule| rule.get_ref().id.get_ref().as_str());
        ids().position(|id| id == written.get_ref()).ok_or_else(|| {
            let nearest = did_you_mean(written.get_ref(), ids());
            self.error(written.span(), ".rule", format!("there is no rule {}{nearest}", written.get_ref()))
        })
    }

    fn until(&self) -> Result<DateTime<Utc>, RuleFileError> {
        let until = &self.written.get_ref().until;
        moment(*until.get_ref()).ok_or_else(|| {
            let message = "must be a moment with a time zone, such as 2027-01-01T00:00:00Z";
            self.error(until.span(), ".until", message)
        })
    }

    fn texts(
        &self,
        [part, list_part]: [&str; 2],
        one: &Option<Spanned<String>>,
        list: &Option<Spanned<String>>,
        check: impl FnOnce(&str) -> Result<Box<str>, String>,
    ) -> Result<Option<Texts>, RuleFileError> {
        match (one, list) {
            (None, None) => Ok(None),
            (Some(one), None) => check(one.get_ref())
                .map(|one| Some(Texts::One(one)))
                .map_err(|message| self.error(one.span(), &format!(".{part}"), message)),
            (None, Some(name)) => match self.lists.find(name.get_ref()) {
                Ok(texts) => Ok(Some(Texts::Listed(Arc::clone(texts)))),
                Err(message) => Err(self.error(name.span(), &format!(".{list_part}"), message)),
            },
            (Some(_), Some(list)) => {
                let message = format!("write either one {part} or the name of a list");
                Err(self.error(list.span(), &format!(".{list_part}"), message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        domain::{Currency, parse_moment},
        risk::{AccountHistory, Assessment, RuleFileError, Ruleset, Subject},
    };

    const UNTIL: &str = "2026-07-01T00:00:00Z";

    fn with(suppression: &str) -> Result<Ruleset, RuleFileError> {
        let rule = |id: &str, mode: &str| {
            format!(
                "[[rules]]\nid = {id:?}\nwhen = \"true\"\nscore = 30\nreason = \"of {id}\"\nmode = {mode:?}\n"
            )
        };
        Ruleset::parse(&format!(
            "[levels]\nmedium = 40\nhigh = 70\n[lists.stalls]\nvalues = [\"acct-1\", \"shop\"]\n{}{}{}[[suppressions]]\n{suppression}\n",
            rule("a", "live"),
            rule("b", "live"),
            rule("c", "shadow")
        ))
    }

    fn scored(suppression: &str, account_id: &str, counterparty: Option<&str>, at: &str) -> Assessment {
        let ruleset = with(suppression).unwrap_or_else(|error| panic!("{error}"));
        let subject = Subject {
            account_id,
            account_seq: 1,
            amount: 100,
            currency: Currency::parse("EUR").expect("known"),
            balance_after: 100,
            created_at: parse_moment(at).expect("a moment"),
            counterparty,
            description: None,
            metadata: None,
            is_reversal: false,
        };
        ruleset.score(&mut AccountHistory::new(&ruleset), &subject).expect("scored")
    }

    fn suppression(of: &str) -> String {
        format!("rule = \"a\"\n{of}\nuntil = {UNTIL}\nreason = \"reviewed by A. Meyer\"")
    }

    #[test]
    fn a_suppressed_rule_adds_nothing_and_is_recorded_with_the_reason() {
        let of = suppression("account = \"acct-1\"");
        let assessment = scored(&of, "acct-1", None, "2026-06-30T23:59:59.999999Z");
        assert_eq!(assessment.risk_score, 30);
        assert_eq!(assessment.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            serde_json::to_value(&assessment.shadow_reasons).expect("JSON"),
            serde_json::json!([
                {"rule": "a", "score": 30, "reason": "of a",
                 "suppressed": {"until": "2026-07-01T00:00:00.000000Z", "reason": "reviewed by A. Meyer"}},
                {"rule": "c", "score": 30, "reason": "of c"},
            ])
        );
        // The time of the transaction decides.
        let after = scored(&of, "acct-1", None, UNTIL);
        assert_eq!((after.risk_score, after.shadow_reasons.len()), (60, 1));
        let shadow = scored(&of.replace("\"a\"", "\"c\""), "acct-1", None, "2026-01-01T00:00:00Z");
        assert_eq!(shadow.risk_score, 60);
        assert!(shadow.shadow_reasons[0].suppressed.is_some());
    }

    #[test]
    fn a_suppression_is_for_an_account_a_counterparty_or_a_list_of_them() {
        for (of, account_id, counterparty, is_suppressed) in [
            ("account = \"acct-1\"", "acct-1", None, true),
            ("account = \"acct-1\"", "acct-2", Some("acct-1"), false),
            ("accounts = \"stalls\"", "acct-1", None, true),
            ("accounts = \"stalls\"", "acct-2", Some("shop"), false),
            ("counterparty = \"shop\"", "acct-1", Some("shop"), true),
            ("counterparty = \"shop\"", "acct-1", Some("Shop"), false),
            ("counterparty = \"shop\"", "shop", None, false),
            ("counterparties = \"stalls\"", "acct-9", Some("shop"), true),
            ("counterparties = \"stalls\"", "acct-1", None, false),
            ("account = \"acct-1\"\ncounterparty = \"shop\"", "acct-1", Some("shop"), true),
            ("account = \"acct-1\"\ncounterparty = \"shop\"", "acct-1", Some("other"), false),
            ("account = \"acct-1\"\ncounterparties = \"stalls\"", "acct-2", Some("shop"), false),
        ] {
            let assessment = scored(&suppression(of), account_id, counterparty, "2026-01-01T00:00:00Z");
            assert_eq!(assessment.risk_score == 30, is_suppressed, "{of}: {account_id} {counterparty:?}");
        }
    }

    #[test]
    fn a_suppression_is_part_of_the_version() {
        let version = |text: &str| with(text).expect("valid").version();
        let one = suppression("account = \"acct-1\"");
        assert_ne!(version(&one), version(&one.replace("2026-07", "2026-08")));
        assert_ne!(version(&one), version(&one.replace("Meyer", "Maier")));
        // TOML allows a moment without seconds.
        assert!(with(&one.replace(UNTIL, "2026-07-01T00:00Z")).is_ok());
    }

    #[test]
    fn a_suppression_without_end_reason_or_subject_is_refused() {
        let one = suppression("account = \"acct-1\"");
        for (text, part) in [
            (suppression(""), "needs `account` or `counterparty`"),
            (
                suppression("accounts = \"stals\""),
                "suppressions.accounts: there is no list stals; did you mean stalls?",
            ),
            (
                suppression("account = \"acct-1\"\naccounts = \"stalls\""),
                "either one account or the name of a list",
            ),
            (suppression("account = \"a b\""), "suppressions.account: "),
            (suppression("counterparty = \"\""), "suppressions.counterparty: must not be empty"),
            (one.replace("\"a\"", "\"x\""), "there is no rule x"),
            (one.replace(UNTIL, "2026-07-01"), "with a time zone"),
            (one.replace("reviewed by A. Meyer", ""), "suppressions.reason: must not be empty"),
            (one.replace(&format!("until = {UNTIL}"), ""), "missing field `until`"),
        ] {
            let error = with(&text).expect_err(&text).to_string();
            assert!(error.contains(part), "{error}");
        }
        let many = format!("[[suppressions]]\n{one}\n").repeat(1_001);
        assert!(
            with(&many.replacen("[[suppressions]]\n", "", 1))
                .expect_err("many")
                .message
                .contains("more than 1000")
        );
    }
}
