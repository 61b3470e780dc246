//! Runs the examples of a rule file with the code that scores events.

use super::{
    AccountHistory, Mode, RiskLevel, Ruleset,
    example::{Example, ExampleTransactions, Expectation},
    observation::Observation,
    subject::Subject,
};

/// The result of an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleRun<'a> {
    /// The id of the rule. None: an example of all rules.
    pub rule: Option<&'a str>,
    /// The name, empty if it has none.
    pub name: &'a str,
    /// The line of the file where the example begins.
    pub line: usize,
    /// What the file says.
    pub expected: &'a Expectation,
    /// What the rules say.
    pub actual: ExampleActual,
}

/// The result of the last transaction, as far as the example says what it expects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExampleActual {
    /// Whether the rule fires.
    pub fires: Option<bool>,
    /// Why the rule of the example, or another live rule, fails.
    pub error: Option<String>,
    /// The live rules that fire.
    pub rules: Option<Vec<String>>,
    /// The score of all live rules.
    pub score: Option<i16>,
    /// The level of the score.
    pub level: Option<RiskLevel>,
}

impl ExampleRun<'_> {
    /// Returns whether the result is the expected one. A rule that fails never gives the expected result.
    pub fn is_as_expected(&self) -> bool {
        let ExampleActual { fires, error, rules, score, level } = &self.actual;
        let expected = self.expected;
        error.is_none()
            && *fires == expected.fires
            && (expected.rules.is_none() || *rules == expected.rules)
            && (expected.score.is_none() || *score == expected.score)
            && (expected.level.is_none() || *level == expected.level)
    }
}

impl Ruleset {
    /// Runs all examples, in the order of the rules; those of all rules come last.
    pub fn run_examples(&self) -> Vec<ExampleRun<'_>> {
        let run = |example| ExampleRun {
            rule: self.rule_of(example),
            name: &example.name,
            line: example.line,
            expected: &example.expected,
            actual: self.run(example),
        };
        self.examples.iter().map(run).collect()
    }

    fn rule_of(&self, example: &Example) -> Option<&str> {
        example.rule.and_then(|index| self.rules().get(index)).map(|rule| &*rule.id)
    }

    fn run(&self, example: &Example) -> ExampleActual {
        let mut history = AccountHistory::new(self);
        let mut state = AccountState { account_seq: example.account_seq, balance: example.balance };
        let count: usize = example.transactions.iter().map(|each| each.times).sum();
        let mut left = count;
        for each in &example.transactions {
            let mut at = each.at;
            for _ in 0..each.times {
                left = left.saturating_sub(1);
                state.balance = state.balance.saturating_add(each.amount);
                let subject = state.subject(example, each, at);
                if left == 0 {
                    return self.observe(example, &mut history, &subject);
                }
                self.remember(&mut history, &subject);
                state.account_seq = state.account_seq.saturating_add(1);
                at = at.checked_add_signed(each.every).unwrap_or(at);
            }
        }
        ExampleActual::default()
    }

    /// Scores the last transaction.
    fn observe(
        &self,
        example: &Example,
        history: &mut AccountHistory,
        subject: &Subject<'_>,
    ) -> ExampleActual {
        let amounts = self.amounts_in(subject.currency);
        let features = history.advance(self, amounts, &self.row_of(subject));
        let observation = Observation::new(self.features(), subject, &features, amounts);
        let mut actual = ExampleActual::default();
        if let Some(rule) = example.rule.and_then(|index| self.rules().get(index)) {
            match rule.when.evaluate(&observation) {
                Ok(fires) => actual.fires = Some(fires),
                Err(error) => actual.error = Some(error),
            }
        }
        let Expectation { rules, score, level, .. } = &example.expected;
        if rules.is_some() || score.is_some() || level.is_some() {
            let assessment = self.assess(&observation);
            actual.score = Some(assessment.risk_score);
            actual.level = Some(assessment.risk_level);
            actual.rules = Some(assessment.reasons.into_iter().map(|reason| reason.rule).collect());
            let failed = assessment.rule_errors.into_iter().find(|error| error.mode == Mode::Live.as_str());
            actual.error =
                actual.error.or_else(|| failed.map(|error| format!("{}: {}", error.rule, error.error)));
        }
        actual
    }
}

/// The state of the account between two transactions.
struct AccountState {
    account_seq: i64,
    balance: i64,
}

impl AccountState {
    fn subject<'a>(
        &self,
        example: &'a Example,
        transaction: &'a ExampleTransactions,
        created_at: chrono::DateTime<chrono::Utc>,
    ) -> Subject<'a> {
        Subject {
            account_id: &example.account_id,
            account_seq: self.account_seq,
            amount: transaction.amount,
            currency: example.currency,
            balance_after: self.balance,
            created_at,
            counterparty: transaction.counterparty.as_deref(),
            description: transaction.description.as_deref(),
            metadata: transaction.metadata.as_ref(),
            is_reversal: transaction.is_reversal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::risk::{RuleFileError, SHIPPED_RULES};

    const RULE: &str =
        "[levels]\nmedium = 40\nhigh = 70\n[features.seen]\naggregate = \"count\"\nwindow = \"1h\"\n";

    /// Parses a file with one rule and one example of it. The example begins in line 12.
    fn with(when: &str, example: &str) -> Result<Ruleset, RuleFileError> {
        let rule = format!("[[rules]]\nid = \"r\"\nwhen = {when:?}\nscore = 50\nreason = \"r\"\n");
        Ruleset::parse(&format!("{RULE}{rule}[[rules.examples]]\n{example}\n"))
    }

    fn is_as_expected(when: &str, example: &str) -> bool {
        let ruleset = with(when, example).unwrap_or_else(|error| panic!("{when}: {error}"));
        ruleset.run_examples().iter().all(ExampleRun::is_as_expected)
    }

    #[test]
    fn each_shipped_rule_has_an_example_that_fires_and_one_that_does_not() {
        let ruleset = Ruleset::parse(SHIPPED_RULES).expect("valid");
        let runs = ruleset.run_examples();
        let different: Vec<_> = runs.iter().filter(|run| !run.is_as_expected()).collect();
        assert!(different.is_empty(), "{different:#?}");
        let mut found: BTreeMap<&str, Vec<Option<bool>>> = BTreeMap::new();
        for run in &runs {
            found.entry(run.rule.unwrap_or_default()).or_default().push(run.expected.fires);
        }
        for rule in ruleset.summaries() {
            let fires = found.get(rule.id).map(Vec::as_slice).unwrap_or_default();
            assert!(fires.contains(&Some(true)) && fires.contains(&Some(false)), "{}: {fires:?}", rule.id);
        }
    }

    #[test]
    fn examples_are_not_part_of_the_version() {
        let version = |example: &str| with("true", example).expect("valid").version();
        let one = version("transactions = [{ at = \"0s\", credit = \"1\" }]\nfires = true");
        assert_eq!(version("transactions = [{ at = \"0s\", debit = \"7\" }]\nfires = false"), one);
        let without = format!("{RULE}[[rules]]\nid = \"r\"\nwhen = \"true\"\nscore = 50\nreason = \"r\"\n");
        assert_eq!(Ruleset::parse(&without).expect("valid").version(), one);
        let of_all = "[[examples]]\ntransactions = [{ at = \"0s\", debit = \"7\" }]\nscore = 50\n";
        assert_eq!(Ruleset::parse(&format!("{without}{of_all}")).expect("valid").version(), one);
    }

    #[test]
    fn the_last_transaction_is_scored_with_all_that_an_example_says() {
        let example = "transactions = [\n\
            { at = \"0s\", credit = \"5\", times = 3, every = \"10m\" },\n\
            { at = \"70m\", debit = \"1.50\", counterparty = \"shop\", description = \"d\", metadata = { n = 7, web = true, c = \"DE\" }, is_reversal = true },\n\
            ]\naccount_id = \"acct-1\"\naccount_seq = 40\nbalance = \"100\"\ncurrency = \"USD\"\nstart = 2026-03-01T22:00:00Z\nfires = true\nscore = 50\nlevel = \"medium\"\n";
        for part in [
            "currency == 'USD' && amount == money('1.50') && direction == 'debit'",
            "currency == 'USD' && balance_before == money('115') && balance_after == money('113.50')",
            "account_id == 'acct-1' && account_seq == 43 && is_reversal",
            "counterparty == 'shop' && description == 'd'",
            "metadata.n == 7 && metadata.web && metadata.c == 'DE'",
            "hour == 23 && weekday == 7",
            "seen == 2",
        ] {
            assert!(is_as_expected(part, example), "{part}");
            assert!(!is_as_expected(&format!("!({part})"), example), "{part}");
        }
        // What an example leaves out.
        let example = "transactions = [{ at = \"0s\", credit = \"5\" }]\nfires = true\n";
        let defaults = "currency == 'EUR' && account_seq == 1 && hour == 12 && weekday == 1 && account_id == 'example' \
            && balance_before == money('0') && counterparty == '' && size(metadata) == 0";
        assert!(is_as_expected(defaults, example));
    }

    #[test]
    fn an_example_says_how_its_result_differs() {
        let one = "transactions = [{ at = \"0s\", credit = \"5\" }]\nfires = true\n";
        let rule = "[[rules]]\nid = \"other\"\nwhen = \"true\"\nscore = 20\nreason = \"r\"\n";
        let of_all = "[[examples]]\nname = \"both\"\ntransactions = [{ at = \"0s\", credit = \"5\" }]\nrules = [\"other\", \"r\"]\nscore = 70\nlevel = \"high\"\n";
        let ruleset = with("hour == 13", &format!("{one}score = 70\n{rule}{of_all}")).expect("valid");
        let runs = ruleset.run_examples();
        let [of_rule, of_all] = runs.as_slice() else { panic!("{runs:?}") };
        assert_eq!((of_rule.rule, of_rule.name, of_rule.line), (Some("r"), "", 12));
        assert_eq!((of_all.rule, of_all.name, of_all.line), (None, "both", 21));
        assert!(!of_rule.is_as_expected() && !of_all.is_as_expected());
        assert_eq!((of_rule.actual.fires, of_rule.actual.score), (Some(false), Some(20)));
        assert_eq!(of_all.expected.rules, Some(vec!["r".into(), "other".into()]), "in the order of the file");
        assert_eq!(of_all.actual.rules, Some(vec!["other".into()]));
        assert_eq!((of_all.actual.score, of_all.actual.level), (Some(20), Some(RiskLevel::Low)));
        // A rule that fails does not fire, but that is hardly what an example means.
        let ruleset = with("1 / (hour - 12) > 5", &one.replace("true", "false")).expect("valid");
        let runs = ruleset.run_examples();
        assert!(!runs[0].is_as_expected());
        assert_eq!(runs[0].actual.error.as_deref(), Some("division by zero at character 3 of the condition"));
    }

    #[test]
    fn a_rule_that_is_off_or_in_shadow_has_examples_too() {
        for mode in ["off", "shadow"] {
            let example = "transactions = [{ at = \"0s\", credit = \"5\" }]\nfires = true\nscore = 0\n";
            let text = format!(
                "{RULE}[[rules]]\nid = \"r\"\nwhen = \"true\"\nscore = 50\nreason = \"r\"\nmode = {mode:?}\n[[rules.examples]]\n{example}"
            );
            let ruleset = Ruleset::parse(&text).expect("valid");
            assert!(ruleset.run_examples()[0].is_as_expected(), "{mode}");
        }
    }

    #[test]
    fn an_example_that_cannot_be_meant_is_refused_with_its_position() {
        let one = |rest: &str| format!("transactions = [{{ at = \"0s\", {rest} }}]\nfires = true");
        let cases = [
            (one(""), 13, "needs either `credit` or `debit`"),
            (one("credit = \"1\", debit = \"1\""), 13, "needs either"),
            (one("debit = \"-1\""), 13, "must be more than 0"),
            (one("debit = \"1.001\""), 13, "more decimals"),
            (one("debit = \"1\", counterparti = \"x\""), 13, "did you mean counterparty?"),
            (one("debit = \"1\", counterparty = \"\""), 13, "must not be empty"),
            (one("debit = \"1\", metadata = { a = 1.5 }"), 13, "a whole number"),
            (one("debit = \"1\", times = 3"), 13, "every = \"10s\""),
            (one("debit = \"1\", times = 0, every = \"1s\""), 13, "at least 1"),
            (one("debit = \"1\", every = \"1s\""), 13, "needs `times`"),
            (one("debit = \"1\", times = 10001, every = \"1s\""), 13, "more than 10000 transactions"),
            (one("debit = \"1\"").replace("0s", "soon"), 13, "must be a duration"),
            (one("debit = \"1\"").replace("0s", "101 years"), 13, "must be a duration"),
            (one("debit = \"1\" }, { at = \"-1s\", debit = \"1\""), 13, "must be a duration"),
            (
                one("debit = \"1\" }, { at = \"5s\", debit = \"1\" }, { at = \"4s\", debit = \"1\""),
                13,
                "order of time",
            ),
            ("transactions = []\nfires = true".into(), 13, "is empty"),
            (one("debit = \"1\"").replace("fires = true", ""), 12, "fires: is missing"),
            (one("debit = \"1\"") + "\nrules = [\"r\"]", 15, "is for `[[examples]]`"),
            (one("debit = \"1\"") + "\nscore = 101", 15, "between 0 and 100"),
            (one("debit = \"1\"") + "\nlevel = \"hihg\"", 15, "did you mean high?"),
            (one("debit = \"1\"") + "\ncurrency = \"ERU\"", 15, "not an ISO 4217 code"),
            (one("debit = \"1\"") + "\nstart = 2026-01-05", 15, "with a time zone"),
            (one("debit = \"1\"") + "\naccount_id = \"a b\"", 15, "account_id"),
            (one("debit = \"1\"") + "\naccount_seq = 0", 15, "at least 1"),
            (
                one("debit = \"1\"") + "\n[[examples]]\ntransactions = [{ at = \"0s\", debit = \"1\" }]",
                15,
                "needs `rules`",
            ),
            (
                one("debit = \"1\"")
                    + "\n[[examples]]\ntransactions = [{ at = \"0s\", debit = \"1\" }]\nfires = true",
                17,
                "is for `[[rules.examples]]`",
            ),
            (
                one("debit = \"1\"")
                    + "\n[[examples]]\ntransactions = [{ at = \"0s\", debit = \"1\" }]\nrules = [\"R\"]",
                17,
                "there is no rule R; did you mean r?",
            ),
        ];
        for (example, line, part) in cases {
            let error = with("true", &example).expect_err(&example);
            assert!(error.to_string().contains(part), "{example}\n{error}");
            assert_eq!(error.line, line, "{error}\n{example}");
        }
        let many = "transactions = [{ at = \"0s\", debit = \"1\", times = 10000, every = \"1s\" }]\nfires = true\n[[rules.examples]]\n";
        assert!(
            with("true", &format!("{}{}", many.repeat(600), one("debit = \"1\"")))
                .expect_err("too many")
                .message
                .contains("steps")
        );
    }
}
