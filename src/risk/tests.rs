//! The guarantees of the rules, with the shipped file and with small ones.

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::domain::{Currency, Direction};

const LEVELS: &str = "[levels]\nmedium = 40\nhigh = 70\n";
const START: i64 = 1_767_225_600;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(START + seconds, 0).expect("in range")
}

fn euro() -> Currency {
    Currency::parse("EUR").expect("known")
}

/// One transaction of a made-up account.
#[derive(Debug, Clone)]
struct Row {
    seconds: i64,
    amount: i64,
    counterparty: Option<&'static str>,
    metadata: Option<Map<String, Value>>,
}

fn row(seconds: i64, amount: i64) -> Row {
    Row { seconds, amount, counterparty: None, metadata: None }
}

fn subject<'a>(account_seq: i64, row: &'a Row) -> Subject<'a> {
    Subject {
        account_id: "acct-1",
        account_seq,
        amount: row.amount,
        currency: euro(),
        balance_after: 0,
        created_at: at(row.seconds),
        counterparty: row.counterparty,
        description: None,
        metadata: row.metadata.as_ref(),
        is_reversal: false,
    }
}

/// Scores the rows one after the other with a history that is kept in memory.
fn score_all(ruleset: &Ruleset, rows: &[Row]) -> Vec<Assessment> {
    let mut history = AccountHistory::new(ruleset);
    (1..)
        .zip(rows)
        .map(|(seq, row)| ruleset.score(&mut history, &subject(seq, row)).expect("scored"))
        .collect()
}

/// Returns the row as the database returns it.
fn stored(ruleset: &Ruleset, account_seq: i64, row: &Row) -> HistoryRow {
    let metadata = row.metadata.as_ref().map(|map| Value::Object(map.clone()).to_string());
    ruleset.history_row(account_seq, at(row.seconds), row.amount, row.counterparty, metadata.as_deref())
}

fn fired(assessment: &Assessment) -> Vec<&str> {
    assessment.reasons.iter().map(|reason| reason.rule.as_str()).collect()
}

fn last(ruleset: &Ruleset, rows: &[Row]) -> Assessment {
    score_all(ruleset, rows).pop().expect("at least one row")
}

fn shipped() -> Ruleset {
    Ruleset::parse(SHIPPED_RULES).expect("the shipped file is valid")
}

fn with(body: &str) -> Result<Ruleset, RuleFileError> {
    Ruleset::parse(&format!("{LEVELS}{body}"))
}

fn refused(body: &str) -> RuleFileError {
    with(body).expect_err("refused")
}

fn rule(when: &str) -> String {
    format!("[[rules]]\nid = \"r\"\nwhen = {when:?}\nscore = 50\nreason = \"r\"\n")
}

#[test]
fn an_ordinary_payment_is_low_and_has_no_reasons() {
    let assessment = last(&shipped(), &[row(40_000, -1_250)]);
    assert_eq!((assessment.risk_score, assessment.risk_level), (0, RiskLevel::Low));
    assert!(assessment.reasons.is_empty() && assessment.shadow_reasons.is_empty());
    assert_eq!(assessment.ruleset.len(), 12);
}

#[test]
fn each_shipped_rule_fires_on_its_case() {
    let ruleset = shipped();
    let series = |count: i64, gap: i64, amount: i64| (0..count).map(move |n| row(n * gap, amount));
    let mut cases: Vec<(&str, Vec<Row>)> = vec![
        ("large_amount", vec![row(0, -1_000_000)]),
        ("very_large_amount", vec![row(0, 5_000_000)]),
        ("large_for_the_account", series(5, 86_400, -1_000).chain([row(500_000, -50_000)]).collect()),
        ("velocity_count", series(21, 1, -100).collect()),
        ("velocity_sum", series(6, 60, -950_050).collect()),
        ("rapid_in_and_out", vec![row(0, 1_000_000), row(60, -950_000)]),
        ("dormant_account_wakes", vec![row(0, 100), row(91 * 86_400, -60_000)]),
        ("round_amounts_in_series", series(5, 600, -60_000).collect()),
        ("structuring", series(3, 86_400, 950_000).collect()),
        ("new_account", vec![row(0, -1_000_000)]),
    ];
    let named = |n: i64, row: Row| Row {
        counterparty: Some(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"][usize::try_from(n).unwrap()]),
        ..row
    };
    cases.push(("many_counterparties", (0..10).map(|n| named(n, row(n, -100))).collect()));
    let from = |entry: &str, value: &str, row: Row| Row {
        metadata: json!({entry: value}).as_object().cloned(),
        ..row
    };
    for (name, entry) in [("unusual_country", "country"), ("unusual_channel", "channel")] {
        let mut rows: Vec<Row> = series(6, 3_600, -100).map(|row| from(entry, "usual", row)).collect();
        assert!(!fired(&last(&ruleset, &rows)).contains(&name));
        rows.push(from(entry, "other", row(30_000, -100)));
        cases.push((name, rows));
    }
    for (name, rows) in &cases {
        let assessment = last(&ruleset, rows);
        assert!(fired(&assessment).contains(name), "{name} did not fire: {assessment:?}");
    }
    let live = ruleset.summaries().filter(|rule| rule.mode == Mode::Live).count();
    assert_eq!(live, cases.len(), "every live rule has a case");
}

/// Returns the amount of the shipped rules in the currency, as a reason shows it.
fn shipped_amount(name: &str, code: &str) -> String {
    let currency = Currency::parse(code).expect("known");
    let text =
        SHIPPED_RULES.replace("reason = \"{direction} of {amount} reaches the large", "reason = \"{AMOUNT}|");
    let ruleset = Ruleset::parse(&text.replace("{AMOUNT}", &format!("{{{name}}}"))).expect("valid");
    let row = row(0, crate::domain::AMOUNT_MINOR_MAX);
    let subject = Subject { currency, ..subject(1, &row) };
    let assessment = ruleset.score(&mut AccountHistory::new(&ruleset), &subject).expect("scored");
    assessment.reasons[0].reason.split('|').next().expect("text").to_owned()
}

/// Without the scale, `large` was 10,000 units of every currency that was not listed.
#[test]
fn the_shipped_amounts_are_worth_about_the_same_in_every_currency() {
    for (name, code, expected) in [
        ("large", "EUR", "10000.00 EUR"),
        ("large", "USD", "10000.00 USD"),
        ("large", "CZK", "200000.00 CZK"),
        ("large", "JPY", "2000000 JPY"),
        ("large", "UZS", "100000000.00 UZS"),
        ("large", "KWD", "5000.000 KWD"),
        ("round_unit", "CZK", "2000.00 CZK"),
        ("reporting_limit", "JPY", "2000000 JPY"),
        ("reporting_limit", "CZK", "200000.00 CZK"),
    ] {
        assert_eq!(shipped_amount(name, code), expected, "{name}");
    }
    let ruleset = shipped();
    let row = row(0, 6_000_000);
    let sum = Subject { currency: Currency::parse("UZS").expect("known"), ..subject(1, &row) };
    let assessment = ruleset.score(&mut AccountHistory::new(&ruleset), &sum).expect("scored");
    assert_eq!(fired(&assessment), [""; 0], "60,000 UZS are about 4 euros");
    let file: toml::Table = SHIPPED_RULES.parse().expect("TOML");
    let number = |name: &str, key: &str| -> u64 {
        file["amounts"][name][key].as_str().expect("a text").parse().expect("a number")
    };
    let limits = file["amounts"]["reporting_limit"].as_table().expect("a table");
    assert_eq!(file["amounts"]["just_below"].as_table().expect("a table").len(), limits.len());
    for key in limits.keys() {
        assert_eq!(number("just_below", key) * 10, number("reporting_limit", key) * 9, "{key}");
    }
}

/// A pattern is what an analyst looks for. The other rules are signs that are common in innocent accounts.
#[test]
fn each_shipped_pattern_reaches_medium_alone() {
    const SIGNS: [&str; 4] = ["unusual_country", "unusual_channel", "new_account", "night_debit"];
    for rule in shipped().summaries().filter(|rule| !SIGNS.contains(&rule.id)) {
        assert!(rule.score >= 40, "{} has {}", rule.id, rule.score);
    }
}

#[test]
fn no_shipped_rule_fires_on_a_reversal() {
    let ruleset = shipped();
    let mut history = AccountHistory::new(&ruleset);
    let payment = row(0, -6_000_000);
    assert_eq!(
        ruleset.score(&mut history, &subject(1, &payment)).expect("scored").risk_level,
        RiskLevel::High
    );
    let back = row(60, 6_000_000);
    let reversal = Subject { is_reversal: true, ..subject(2, &back) };
    assert_eq!(ruleset.score(&mut history, &reversal).expect("scored").reasons, []);
}

#[test]
fn a_scale_converts_the_defaults_and_must_cover_every_currency() {
    let file = |scale: &str, large: &str| {
        format!("[scale]\n{scale}\n[amounts.large]\n{large}\n{}", rule("amount == large"))
    };
    let is_large = |body: &str, code: &str, minor: i64| {
        let ruleset = with(body).unwrap_or_else(|error| panic!("{body}: {error}"));
        let row = row(0, minor);
        let subject = Subject { currency: Currency::parse(code).expect("known"), ..subject(1, &row) };
        ruleset.score(&mut AccountHistory::new(&ruleset), &subject).expect("scored").risk_score == 50
    };
    let scaled = file("default = \"1\"\nCZK = \"20\"\nKWD = \"0.125\"", "default = \"100\"\nJPY = \"7\"");
    for (code, minor) in [("EUR", 10_000), ("CZK", 200_000), ("KWD", 12_500), ("JPY", 7)] {
        assert!(is_large(&scaled, code, minor), "{code}");
    }
    for (scale, large, part) in [
        ("EUR = \"1\"", "default = \"1\"", "lists no factor for 157 currencies, such as AED, AFN"),
        ("default = \"1\"\nEURO = \"1\"", "default = \"1\"", "did you mean EUR?"),
        ("default = \"0\"", "default = \"1\"", "more than 0"),
        ("default = \"-1\"", "default = \"1\"", "more than 0"),
        ("default = \"1e3\"", "default = \"1\"", "not a plain decimal number"),
        ("default = \"1\"\nJPY = \"0.5\"", "default = \"1\"", "amounts.large.JPY: \"1\" times 0.5"),
        (
            "default = \"99999999999999999999\"",
            "default = \"999999999999999999999\"",
            "larger than any amount",
        ),
    ] {
        let error = refused(&file(scale, large));
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_shadow_rule_is_reported_and_does_not_count() {
    let assessment = last(&shipped(), &[row(3_600, -60_000)]);
    assert_eq!((assessment.risk_score, fired(&assessment).len()), (0, 0));
    assert_eq!(assessment.shadow_reasons[0].rule, "night_debit");
    assert_eq!(assessment.shadow_reasons[0].reason, "debit of 600.00 EUR at 1:00 UTC");
}

#[test]
fn scores_add_up_to_a_hundred_and_levels_follow_the_file() {
    let two = "[[rules]]\nid = \"a\"\nwhen = \"amount >= money('1.00')\"\nscore = 60\nreason = \"a\"\n[[rules]]\nid = \"b\"\nwhen = \"amount >= money('2.00')\"\nscore = 60\nreason = \"b\"\n";
    let ruleset = with(two).expect("valid");
    let levels: Vec<_> = [99, 100, 200]
        .map(|amount| last(&ruleset, &[row(0, amount)]))
        .iter()
        .map(|a| (a.risk_score, a.risk_level))
        .collect();
    assert_eq!(levels, [(0, RiskLevel::Low), (60, RiskLevel::Medium), (100, RiskLevel::High)]);
}

#[test]
fn reasons_show_what_was_observed() {
    let body = "[features.seen]\naggregate = \"sum\"\nwindow = \"1h\"\n[[rules]]\nid = \"r\"\nwhen = \"true\"\nscore = 1\nreason = \"{{{direction}}} {amount} of {seen} on {account_id}/{account_seq}, {metadata.city}, {counterparty}\"\n";
    let ruleset = with(body).expect("valid");
    let mut second = row(10, -12_550);
    second.metadata = json!({"city": "Köln"}).as_object().cloned();
    let assessment = last(&ruleset, &[row(0, 100), second]);
    assert_eq!(assessment.reasons[0].reason, "{debit} 125.50 EUR of 126.50 EUR on acct-1/2, Köln, none");
}

#[test]
fn money_is_exact_in_the_currency_of_the_transaction() {
    let ruleset = with(&rule("amount == money('10.00')")).expect("valid");
    for (code, minor) in [("JPY", 10), ("EUR", 1_000), ("BHD", 10_000), ("CLF", 100_000)] {
        for (difference, expected) in [(-1, false), (0, true), (1, false)] {
            let row = row(0, minor + difference);
            let subject = Subject { currency: Currency::parse(code).unwrap(), ..subject(1, &row) };
            let mut history = AccountHistory::new(&ruleset);
            let assessment = ruleset.score(&mut history, &subject).expect("scored");
            assert_eq!(!assessment.reasons.is_empty(), expected, "{code} {difference}");
        }
    }
}

#[test]
fn the_version_is_the_content_without_comments_and_order() {
    let version = |text: &str| Ruleset::parse(text).expect("valid").version();
    let plain = version("[levels]\nmedium = 40\nhigh = 70\n");
    assert_eq!(version("# hello\n[levels]\n  high = 70 # x\nmedium = 40\n"), plain);
    assert_ne!(version("[levels]\nmedium = 41\nhigh = 70\n"), plain);
}

#[test]
fn a_misspelt_name_is_refused_with_line_field_and_the_nearest_name() {
    let cases = [
        ("[features.f]\nagregate = \"count\"\nwindow = \"1h\"\n", 5, "did you mean aggregate?"),
        ("[features.f]\naggregate = \"cuont\"\nwindow = \"1h\"\n", 5, "did you mean count?"),
        (&*rule("amuont > 5"), 6, "did you mean amount?"),
        (&*rule("monie('1') > 5"), 6, "did you mean money?"),
        (
            "[[rules]]\nid = \"r\"\nwhen = \"true\"\nscore = 5\nreason = \"{amonut}\"\n",
            8,
            "did you mean amount?",
        ),
        (
            "[features.f]\naggregate = \"count\"\nwindow = \"1h\"\nfilter = { direction = \"out\" }\n",
            7,
            "debit",
        ),
        ("[features.f]\naggregate = \"count\"\n", 4, "window: is missing"),
        ("[features.amount]\naggregate = \"count\"\nwindow = \"1h\"\n", 4, "taken"),
        ("[amounts.a]\ndefault = \"9.99\"\n", 5, "more decimals"),
        ("[amounts.a]\ndefault = \"9\"\nEURO = \"1\"\n", 6, "ISO 4217"),
    ];
    for (body, line, part) in cases {
        let error = refused(body);
        assert_eq!(error.line, line, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

const NAMES: &str = "[amounts.large]\ndefault = \"10000\"\n[features.debits]\naggregate = \"count\"\nwindow = \"1h\"\n\
    [features.spent]\naggregate = \"sum\"\nwindow = \"1h\"\n[features.idle]\naggregate = \"seconds_since_last\"\n";

/// Each of them passed when rules were tried on a few made-up transactions, or was refused without a position.
#[test]
fn a_condition_that_cannot_be_meant_is_refused_with_its_position_and_the_remedy() {
    let cases = [
        ("amount > 10.5", 10, "float"),
        ("amount > 10000", 8, "write money('10000') for 10000 units"),
        ("signed_amount + 1 > money('1')", 15, "write money('1')"),
        ("amount % 100 == 0", 8, "write money('100')"),
        ("amount * amount > large", 8, "cannot compute with these: amount is money, amount is money"),
        ("amount > metadata.limit", 8, "metadata.limit is an entry of metadata"),
        ("debits >= large", 8, "debits is a number, large is money; compare money with money"),
        ("debits > idle", 8, "compare seconds with seconds"),
        ("spent > idle", 7, "spent is money, idle is a number of seconds"),
        ("hour == '5'", 6, "write 5 without quotes"),
        ("amount == '5'", 8, "write money('5')"),
        ("hour == 24", 9, "hour is 0 to 23, never 24"),
        ("weekday in [6, 0]", 16, "weekday is 1 (Monday) to 7 (Sunday), never 0"),
        ("direction == 'Debit'", 14, "direction is 'credit' or 'debit', never 'Debit'; did you mean debit?"),
        ("currency == 'ERU'", 13, "there is no currency 'ERU'; did you mean EUR?"),
        ("currency in ['EUR', 'US']", 21, "there is no currency 'US'"),
        ("is_reversal && (hour > 3 || (account_seq > 1 && amount > 5))", 56, "amount is money"),
        ("is_reversal ? hour > 3 : amount > 5", 33, "amount is money"),
        ("(is_reversal ? 1 : 'a') == 1", 14, "the two results differ"),
        ("hour in [1, 'a']", 13, "'a' is a text, the values before it are a number"),
        ("hour in ['a']", 9, "of which each value is a text"),
        ("is_reversal > false", 13, "only be compared with == and !="),
        ("metadata > 5", 1, "all of metadata, where a single value is needed"),
        ("amount.x == 1", 7, "only metadata has"),
        ("metadata.a == null", 15, "!has(metadata.NAME)"),
        ("metadata.all(k, v, true)", 13, "there is no function all()"),
        ("hour.all(k, true)", 1, "runs over a list or over metadata"),
        ("amount", 1, "amount is money, where true or false is needed"),
        ("counterparty.matches('a.*')", 21, "there is no function matches()"),
        ("size(amount) > 1", 6, "size() takes a text, a list or metadata"),
        ("string(amount) == '1'", 8, "other than money"),
        ("amount > money('ten')", 15, "not a plain decimal number"),
        ("amount > money('9.99')", 15, "put `currency == 'EUR' &&` before it"),
        ("currency == 'EUR' || amount > money('9.99')", 36, "not exact in JPY"),
        ("metadata.a + metadata.b", 12, "where true or false is needed"),
        ("-metadata.a == 'x'", 13, "cannot compare these"),
        ("lower(counterparty) == 'Shop'", 24, "lower() never gives 'Shop'; write 'shop'"),
        ("lower(counterparty) in ['shop', 'Ä']", 33, "lower() never gives 'Ä'; write 'ä'"),
        ("lower(amount) == 'x'", 7, "lower() takes a text"),
        ("amount > money(counterparty)", 16, "an amount in quotes"),
        ("100 / 0 > hour", 7, "division by zero"),
        ("hour > large_enough", 8, "there is no large_enough"),
        ("amount >", 9, "Syntax"),
    ];
    for (when, column, part) in cases {
        let error = refused(&format!("{NAMES}{}", rule(when)));
        assert!(error.to_string().contains(part), "{when}: {error}");
        assert!(error.field.starts_with("rules.r."), "{error}");
        assert_eq!((error.line, error.column), (16, column + 8), "{when}: {error}\n{}", error.excerpt());
    }
}

#[test]
fn units_that_fit_are_accepted() {
    let cases = [
        "amount * 10 >= spent && amount / 10 >= spent / debits && amount / spent >= 2",
        "spent - amount < large || amount % large == 0 || signed_amount < 0 || -signed_amount > large",
        "idle > 90 * 86400 || idle / 60 > 5 || idle % 60 == 0 || idle == -1 || 2 * idle > 5",
        "currency == 'EUR' && amount >= money('9.99')",
        "currency in ['EUR', 'USD'] ? amount >= money('9.99') : false",
        "direction == 'debit' && direction in ['debit'] && currency != 'EUR'",
        "type(metadata.n) == int && metadata.n > 5 && metadata['a-b'] == 'x' && 'k' in metadata",
        "metadata.flag || !metadata.flag || metadata[counterparty] == currency",
        "string(hour) + ':' + description == '5:x' && int(metadata.n) + 1 < size(description)",
        "['DE', 'FR'].exists(place, metadata.c == place) && metadata.all(k, k.startsWith('x') && metadata[k] != '')",
        "metadata.a + metadata.b == 'xy' || metadata.a + metadata.b > 5 || metadata.a + metadata.b + 1 > 5",
        "lower(counterparty) == 'shop' && lower(metadata.c) in ['de', 'fr'] && lower(description).contains('x')",
        "['a', 'b'].filter(x, x != 'a').map(x, x + '!').exists_one(x, x == 'b!') && size(metadata) > 0",
    ];
    for when in cases {
        let built = with(&format!("{NAMES}{}", rule(when)));
        assert!(built.is_ok(), "{when}: {:?}", built.err());
    }
}

/// Returns whether the condition is true for a transaction with this metadata, or the error.
fn truth(when: &str, metadata: Option<Value>) -> Result<bool, String> {
    let ruleset = with(&rule(when)).expect(when);
    let row = Row { metadata: metadata.and_then(|value| value.as_object().cloned()), ..row(0, 500) };
    let assessment = ruleset.score(&mut AccountHistory::new(&ruleset), &subject(1, &row)).expect("scored");
    match assessment.rule_errors.into_iter().next() {
        Some(error) => Err(error.error),
        None => Ok(assessment.risk_score == 50),
    }
}

/// Seen to fail when a missing entry was an error of the rule.
#[test]
fn an_entry_that_is_missing_or_of_another_type_is_null_and_comparisons_with_it_are_false() {
    let absent = [None, Some(json!({})), Some(json!({"other": "DE"}))];
    let conditions = [
        "metadata.x == 'DE'",
        "metadata.x != 'DE'",
        "metadata.x > 5",
        "metadata.x + 1 > 5",
        "-metadata.x <= 5",
        "5 / metadata.x > 0",
        "metadata.x == metadata.x",
        "metadata.x in ['DE', 'FR']",
        "metadata.x in [1, 2]",
        "metadata.x.startsWith('D')",
        "size(metadata.x) >= 0",
        "int(metadata.x) < 5 || int(metadata.x) >= 5",
        "metadata.x",
        "metadata.x || metadata.x",
        "has(metadata.x)",
        "'x' in metadata",
        "type(metadata.x) == string",
        "['DE'].exists(place, place == metadata.x)",
    ];
    for when in conditions {
        for metadata in &absent {
            assert_eq!(truth(when, metadata.clone()), Ok(false), "{when} with {metadata:?}");
        }
    }
    for metadata in &absent {
        assert_eq!(truth("!(metadata.x == 'DE') && !has(metadata.x)", metadata.clone()), Ok(true));
    }
    let of = |when: &str, value: Value| truth(when, Some(json!({"x": value})));
    for (when, value, expected) in [
        ("metadata.x == 'DE'", json!("DE"), true),
        ("metadata.x != 'DE'", json!("FR"), true),
        ("metadata.x == 'DE'", json!(7), false),
        ("metadata.x != 'DE'", json!(7), false),
        ("metadata.x > 5", json!(7), true),
        ("metadata.x > 5", json!("7"), false),
        ("int(metadata.x) > 5", json!("7"), true),
        ("int(metadata.x) > 5", json!("seven"), false),
        ("metadata.x", json!(true), true),
        ("!metadata.x", json!(false), true),
        ("metadata.x", json!("true"), false),
        ("metadata.x in ['DE', 'FR']", json!("FR"), true),
        ("metadata.x in [1, 2]", json!(2), true),
        ("type(metadata.x) == int", json!(2), true),
        ("string(metadata.x) == 'true'", json!(true), true),
        ("metadata.all(k, metadata[k] == 'DE')", json!("DE"), true),
        ("metadata.x + metadata.x == 'DEDE'", json!("DE"), true),
        ("metadata.x + metadata.x == 8", json!(4), true),
        ("lower(metadata.x) == 'straße ärger σσ'", json!("StraßE ÄRGER ΣΣ"), true),
        ("lower(metadata.x) in ['de', 'fr']", json!("FR"), true),
        ("lower(metadata.x) == '7'", json!(7), false),
        ("['FR', 'DE'].filter(c, c == metadata.x).map(c, size(c)).exists_one(n, n == 2)", json!("DE"), true),
    ] {
        assert_eq!(of(when, value.clone()), Ok(expected), "{when} with {value}");
    }
}

#[test]
fn numbers_have_room_for_products_of_amounts_and_what_fails_is_an_error() {
    let product =
        |times: usize| format!("{} > 0", ["9223372036854775807"; 9][..times].join(" * account_seq * "));
    assert_eq!(truth(&product(2), None), Ok(true));
    assert!(truth(&product(3), None).expect_err("too large").contains("too large"));
    assert_eq!(
        truth("1 / (account_seq - 1) > 0", None),
        Err("division by zero at character 3 of the condition".into())
    );
    assert_eq!(
        truth("7 % (account_seq - 1) > 0", None),
        Err("division by zero at character 3 of the condition".into())
    );
    // An operand that fails does not matter if the other one decides.
    assert_eq!(truth("1 / (account_seq - 1) > 0 || true", None), Ok(true));
    assert_eq!(truth("1 / (account_seq - 1) > 0 && false", None), Ok(false));
}

/// Seen to fail when the sum was limited after each rule: the order of the rules then decided.
#[test]
fn scores_may_be_negative_and_the_sum_stays_within_0_and_100() {
    let scored = |scores: &[i16]| {
        let rules = scores.iter().enumerate().map(|(index, score)| {
            rule("true")
                .replace("\"r\"\nwhen", &format!("\"r{index}\"\nwhen"))
                .replace("50", &score.to_string())
        });
        let ruleset = with(&rules.collect::<String>()).expect("valid");
        last(&ruleset, &[row(0, 100)])
    };
    for (scores, sum) in [
        (&[80, 80, -70][..], 90),
        (&[-70, 80, 80], 90),
        (&[80, -70, 80], 90),
        (&[40, -100], 0),
        (&[-100, 40], 0),
        (&[100, 100], 100),
    ] {
        let assessment = scored(scores);
        assert_eq!(assessment.risk_score, sum, "{scores:?}");
        assert_eq!(assessment.reasons.iter().map(|reason| reason.score).collect::<Vec<_>>(), scores);
    }
    for score in [-101, 101] {
        let error = refused(&rule("true").replace("50", &score.to_string()));
        assert!(error.message.contains("between -100 and 100"), "{error}");
    }
}

#[test]
fn a_rule_has_tags_a_description_and_a_source() {
    let noted = rule("true")
        + "tags = [\"mule\", \"layering\"]\ndescription = \"What it finds\"\nsource = \"FATF, 2022\"\n";
    let ruleset = with(&noted).expect("valid");
    let notes = ruleset.summaries().next().expect("one").notes.clone();
    assert_eq!(notes.tags, ["mule", "layering"]);
    assert_eq!(
        (notes.description.as_deref(), notes.source.as_deref()),
        (Some("What it finds"), Some("FATF, 2022"))
    );
    for (line, part) in [
        ("tags = [\"\"]", "tags: must not be empty"),
        ("description = \"\"", "description: must not be empty"),
        ("tag = [\"a\"]", "did you mean tags?"),
    ] {
        let error = refused(&format!("{}{line}\n", rule("true"))).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_text_that_a_condition_builds_has_at_most_8_kib() {
    let doubled = |times: usize| {
        truth(&format!("['0123456789']{}.exists(x, size(x) > 5000)", ".map(x, x + x)".repeat(times)), None)
    };
    assert_eq!(doubled(8), Ok(false));
    assert_eq!(doubled(9), Ok(true));
    assert!(doubled(10).expect_err("10 KiB").contains("too large"));
    assert!(doubled(20).expect_err("10 MiB").contains("too large"));
}

/// Each of them overflowed the stack, ran for minutes or cost milliseconds an event.
#[test]
fn a_condition_without_bounds_is_refused_and_a_long_list_is_looked_up_at_once() {
    let nested = |depth: usize, range: &str| {
        let open: String = (0..depth).map(|n| format!("{range}.all(v{n}, ")).collect();
        format!("{open}v0 == v0{}", ")".repeat(depth))
    };
    let long_list = format!("[{}]", (0..300).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let cases = [
        (format!("{} > 0", ["1"; 1_200].join("+")), "more than 250 operators"),
        (nested(7, "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"), "nests comprehensions 7 deep"),
        (nested(3, "metadata"), "nests comprehensions 3 deep"),
        (nested(2, &long_list), "steps an event"),
        (format!("{long_list}.map(n, n + 1).exists(n, n == hour)"), "steps an event"),
        (format!("{}is_reversal{}", "!(".repeat(80), ")".repeat(80)), "24 levels"),
    ];
    for (when, part) in cases {
        let error = refused(&rule(&when));
        assert!(error.message.contains(part), "{when:.60}: {}", error.message);
    }
    assert!(with(&rule(&nested(2, "metadata"))).is_ok());
    let many: Vec<String> = (0..5_000).map(|n| format!("'x-{n:06}'")).collect();
    assert!(with(&rule(&format!("counterparty in [{}]", many.join(",")))).is_ok());
    let heavy = rule("metadata.all(a, metadata.all(b, a != b || metadata[a] == metadata[b]))");
    let all: String = (0..100).map(|n| heavy.replace("\"r\"\nwhen", &format!("\"r{n}\"\nwhen"))).collect();
    assert!(refused(&all).message.contains("the rules up to here take up to"));
}

const LISTED: &str =
    "[lists.sanctioned]\nfile = \"sanctioned.csv\"\n[lists.known]\nvalues = [\"shop-1\", \"shop-2\"]\n";

/// Parses rules that use the two lists of [`LISTED`].
fn with_lists(when: &str, file: &str) -> Result<Ruleset, RuleFileError> {
    let text = format!("{LEVELS}{LISTED}{}", rule(when));
    Ruleset::parse_with(&text, &|name| match name {
        "sanctioned.csv" => Ok(file.into()),
        other => Err(format!("cannot read {other}")),
    })
}

#[test]
fn a_named_list_is_looked_up_byte_by_byte() {
    let cases = [
        ("counterparty in lists.known", true),
        ("counterparty in lists.sanctioned", false),
        ("!(counterparty in lists.sanctioned) && counterparty in lists.known", true),
        ("account_id in lists.sanctioned", true),
        ("has(metadata.iban) && metadata.iban in lists.sanctioned", false),
        ("['shop-7', 'x'].exists(party, party in lists.sanctioned)", false),
        ("['Ärger GmbH, Köln'].exists(party, party in lists.sanctioned)", true),
    ];
    let file = "acct-1,\"since 2020\"\nSHOP-1\n\"Ärger GmbH, Köln\"\nshop-\n";
    let row = Row { counterparty: Some("shop-1"), ..row(0, 100) };
    for (when, expected) in cases {
        let ruleset = with_lists(when, file).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(ruleset.list_sizes(), [("known".into(), 2), ("sanctioned".into(), 4)]);
        let assessment = last(&ruleset, std::slice::from_ref(&row));
        assert_eq!(!assessment.reasons.is_empty(), expected, "{when}");
    }
}

#[test]
fn the_content_of_a_list_file_is_part_of_the_version() {
    let version = |file: &str| with_lists("counterparty in lists.sanctioned", file).expect("valid").version();
    assert_eq!(version("a\nb\n"), version("a\nb\n"));
    assert_ne!(version("a\nb\n"), version("a\nc\n"));
}

#[test]
fn a_list_that_cannot_be_read_whole_or_is_misused_refuses_the_rules() {
    let file = |list: &str| format!("[lists.l]\n{list}\n{}", rule("counterparty in lists.l"));
    let cases = [
        (file("file = \"missing.csv\""), "cannot be read"),
        (file(""), "needs either `file`"),
        (file("values = [\"a\"]\nfile = \"b.csv\""), "needs either `file`"),
        (file("values = [\"a\", \"\"]"), "the value is empty"),
        (file("vaules = [\"a\"]"), "did you mean values?"),
        (
            format!("[lists.known]\nvalues = [\"a\"]\n{}", rule("counterparty in lists.knwon")),
            "did you mean known?",
        ),
        (
            file("values = [\"shop\", \"Shop-1\"]").replace("counterparty in", "lower(counterparty) in"),
            "lower() never gives 'Shop-1' of this list",
        ),
        (file("values = [\"a\"]").replace("counterparty in", "amount in"), "a list holds texts"),
        (
            file("values = [\"a\"]").replace("counterparty in lists.l", "size(lists.l) > 1"),
            "counterparty in lists.NAME",
        ),
        (rule("counterparty in lists"), "counterparty in lists.NAME"),
    ];
    for (body, part) in cases {
        let error = refused(&body);
        assert!(error.to_string().contains(part), "{body}\n{error}");
    }
    let csv_cases =
        [("a\n\"\"\n", "line 2: the value is empty"), ("name,iban\nx\n", "line 2: the value is empty")];
    let column = LISTED.replace("sanctioned.csv\"", "sanctioned.csv\"\ncolumn = \"iban\"");
    for (content, part) in csv_cases {
        let text = format!("{LEVELS}{}", if content.contains("iban") { &column } else { LISTED });
        let error = Ruleset::parse_with(&text, &|_| Ok(content.into())).expect_err("refused");
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = Ruleset::parse_with(&format!("{LEVELS}{column}"), &|_| Ok("name,ibna\nx,y\n".into()));
    assert!(error.expect_err("refused").to_string().contains("did you mean ibna?"));
}

#[test]
fn a_rule_that_fails_is_noted_and_the_other_rules_count() {
    let fragile = "description != 'boom' || 1 / (account_seq - account_seq) > 0";
    let second = rule("true").replace("\"r\"", "\"sound\"");
    for (mode, score) in [("live", 50), ("shadow", 0)] {
        let first = format!("{}mode = {mode:?}\n", rule(fragile));
        let ruleset = with(&format!("{first}{second}")).expect("valid");
        let row = row(0, 1);
        let mut history = AccountHistory::new(&ruleset);
        let sound = ruleset.score(&mut history, &subject(1, &row)).expect("scored");
        assert_eq!((sound.risk_score, sound.rule_errors.len()), (50 + score, 0), "{sound:?}");
        let boom = Subject { description: Some("boom"), ..subject(2, &row) };
        let assessment = ruleset.score(&mut history, &boom).expect("scored");
        assert_eq!((assessment.risk_score, fired(&assessment)), (50, vec!["sound"]), "{assessment:?}");
        assert_eq!(assessment.shadow_reasons, []);
        let [error] = assessment.rule_errors.as_slice() else { panic!("{assessment:?}") };
        assert_eq!((error.rule.as_str(), error.mode.as_str()), ("r", mode));
        assert!(error.error.to_lowercase().contains("division by zero"), "{error:?}");
        assert!(matches!(ruleset.score(&mut history, &boom), Err(NotNext { account_seq: 2, last: 2 })));
    }
}

/// Returns rules that show every kind of feature in the reason of a rule that always fires.
fn revealing(history_rows: i64) -> Ruleset {
    let text = format!(
        "history_rows = {history_rows}\n{LEVELS}[amounts.some]\ndefault = \"10\"\n\
         [features.a]\naggregate = \"count\"\nwindow = \"100s\"\n\
         [features.b]\naggregate = \"sum\"\nof = \"signed_amount\"\nwindow = \"50s\"\ninclude_event = false\n\
         [features.c]\naggregate = \"min\"\nwindow = \"70s\"\nfilter = {{ direction = \"debit\" }}\n\
         [features.d]\naggregate = \"max\"\nof = \"signed_amount\"\nwindow = \"70s\"\ninclude_event = false\n\
         [features.e]\naggregate = \"distinct\"\nof = \"counterparty\"\nwindow = \"90s\"\n\
         [features.f]\naggregate = \"distinct\"\nof = \"metadata.c\"\nwindow = \"40s\"\n\
         [features.g]\naggregate = \"seconds_since_last\"\nfilter = {{ amount_at_least = \"some\" }}\n\
         [features.h]\naggregate = \"count\"\nwindow = \"30s\"\nfilter = {{ amount_below = \"some\", amount_multiple_of = \"5\" }}\n\
         [features.i]\naggregate = \"distinct\"\nof = \"counterparty\"\nwindow = \"30s\"\ninclude_event = false\n\
         [features.j]\naggregate = \"distinct\"\nof = \"counterparty\"\nwindow = \"90s\"\nfilter = {{ direction = \"debit\" }}\n\
         [features.k]\naggregate = \"sum\"\nwindow = \"100s\"\nfilter = {{ direction = \"debit\" }}\n\
         [features.l]\naggregate = \"min\"\nof = \"signed_amount\"\nwindow = \"30s\"\ninclude_event = false\n\
         [[rules]]\nid = \"r\"\nwhen = \"true\"\nscore = 0\n\
         reason = \"{{a}}|{{b}}|{{c}}|{{d}}|{{e}}|{{f}}|{{g}}|{{h}}|{{i}}|{{j}}|{{k}}|{{l}}\"\n"
    );
    Ruleset::parse(&text).expect("valid")
}

/// Computes the reason of [`revealing`] from all rows in the simplest way.
fn expected_reason(rows: &[Row], index: usize, history_rows: usize) -> String {
    let event = &rows[index];
    let visible = &rows[(index + 1).saturating_sub(history_rows)..=index];
    let inside = |width: i64, with_event: bool| {
        let kept = if with_event { visible } else { &visible[..visible.len() - 1] };
        kept.iter().filter(move |row| row.seconds > event.seconds - width)
    };
    let debit = |row: &&Row| row.amount < 0;
    let money = |minor: i64| format!("{} EUR", crate::domain::format_minor(minor, euro()));
    let distinct = |values: Vec<String>| values.into_iter().collect::<std::collections::BTreeSet<_>>().len();
    let party = |row: &Row| row.counterparty.map(String::from);
    let parties = inside(90, true).filter_map(party).collect();
    let parties_before = inside(30, false).filter_map(party).collect();
    let parties_paid = inside(90, true).filter(debit).filter_map(party).collect();
    let places =
        inside(40, true).filter_map(|row| Some(row.metadata.as_ref()?.get("c")?.to_string())).collect();
    let earlier = &visible[..visible.len() - 1];
    let since = earlier.iter().rev().find(|row| row.amount.abs() >= 1_000);
    let small = inside(30, true).filter(|row| row.amount.abs() < 1_000 && row.amount % 500 == 0);
    format!(
        "{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
        inside(100, true).count(),
        money(inside(50, false).map(|row| row.amount).sum()),
        money(inside(70, true).filter(debit).map(|row| -row.amount).min().unwrap_or(0)),
        money(inside(70, false).map(|row| row.amount).max().unwrap_or(0)),
        distinct(parties),
        distinct(places),
        since.map_or("never".into(), |row| {
            let silence = u64::try_from(event.seconds - row.seconds).unwrap();
            humantime::format_duration(std::time::Duration::from_secs(silence)).to_string()
        }),
        small.count(),
        distinct(parties_before),
        distinct(parties_paid),
        money(inside(100, true).filter(debit).map(|row| -row.amount).sum()),
        money(inside(30, false).map(|row| row.amount).min().unwrap_or(0)),
    )
}

/// Scores rows with these numbers and returns the last reason.
fn last_reason(ruleset: &Ruleset, history: &mut AccountHistory, rows: &[(i64, Row)]) -> String {
    let score = |(account_seq, row): &(i64, Row)| ruleset.score(history, &subject(*account_seq, row));
    let assessment =
        rows.iter().map(score).reduce(|_, later| later).expect("at least one row").expect("scored");
    assessment.reasons[0].reason.clone()
}

#[test]
fn rows_that_the_ledger_lacks_count_nowhere_but_use_up_history_rows() {
    let ruleset = revealing(3);
    let rows = [1, 2, 5, 6].map(|account_seq| (account_seq, row(account_seq, -700)));
    let mut history = AccountHistory::new(&ruleset);
    let kept = last_reason(&ruleset, &mut history, &rows);
    assert_eq!(kept, last_reason(&ruleset, &mut AccountHistory::new(&ruleset), &rows[2..]));
    assert!(kept.starts_with("2|-7.00 EUR|"), "the rows 5 and 6: {kept}");
    let mut loaded = AccountHistory::new(&ruleset);
    rows[..3].iter().for_each(|(account_seq, row)| loaded.add_earlier(stored(&ruleset, *account_seq, row)));
    assert_eq!(last_reason(&ruleset, &mut loaded, &rows[3..]), kept);
}

/// The memory of an account decides how many accounts fit, and so how often histories are read.
#[test]
fn an_account_with_500_rows_takes_less_than_ten_kibibytes() {
    let ruleset = shipped();
    let metadata = json!({"country": "DE", "channel": "web"}).as_object().cloned();
    let parties: Vec<&'static str> = vec!["shop-1", "shop-2", "shop-3", "shop-4", "shop-5"];
    let at_hour = |hour: i64| Row {
        counterparty: parties.get(usize::try_from(hour % 5).expect("small")).copied(),
        metadata: metadata.clone(),
        ..row(hour * 3_600, -100 - hour)
    };
    let mut history = AccountHistory::new(&ruleset);
    for seq in 1..=1_000 {
        ruleset.score(&mut history, &subject(seq, &at_hour(seq))).expect("scored");
    }
    assert!((8_000..10_240).contains(&history.bytes()), "{}", history.bytes());
    // Rows outside every window are dropped, although `history_rows` would allow them.
    ruleset.score(&mut history, &subject(1_001, &at_hour(1_000 + 90 * 24))).expect("scored");
    assert!(history.bytes() < 1_000, "{}", history.bytes());
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let one = (
        0_i64..30,
        prop::sample::select(vec![1_i64, 500, 999, 1_000, 70_000]),
        any::<bool>(),
        0_usize..4,
        0_i64..4,
    );
    prop::collection::vec(one, 1..60).prop_map(|steps| {
        let mut seconds = 0;
        let make = |(gap, size, debit, party, place): (i64, i64, bool, usize, i64)| {
            seconds += gap;
            Row {
                seconds,
                amount: if debit { -size } else { size },
                counterparty: [None, Some("a"), Some("b"), Some("c")][party],
                metadata: (place > 0).then(|| json!({"c": place}).as_object().cloned()).flatten(),
            }
        };
        steps.into_iter().map(make).collect()
    })
}

proptest! {
    // Seen to fail with `<` instead of `<=` in the condition for rows to leave a window.
    #[test]
    fn windows_kept_in_memory_equal_the_simple_computation(rows in any_rows(), history_rows in 1_usize..40) {
        let ruleset = revealing(i64::try_from(history_rows).unwrap());
        for (index, assessment) in score_all(&ruleset, &rows).iter().enumerate() {
            prop_assert_eq!(&assessment.reasons[0].reason, &expected_reason(&rows, index, history_rows));
        }
    }

    #[test]
    fn a_history_loaded_in_any_order_equals_one_kept_in_memory(
        (rows, order) in any_rows().prop_flat_map(|rows| {
            let indexes: Vec<usize> = (0..rows.len() - 1).collect();
            (Just(rows), Just(indexes).prop_shuffle())
        }),
        history_rows in 1_i64..40,
    ) {
        let ruleset = revealing(history_rows);
        let mut history = AccountHistory::new(&ruleset);
        for i in &order {
            history.add_earlier(stored(&ruleset, i64::try_from(*i).unwrap() + 1, &rows[*i]));
        }
        let event = rows.last().expect("one");
        let loaded = ruleset.score(&mut history, &subject(i64::try_from(rows.len()).unwrap(), event)).expect("scored");
        prop_assert_eq!(&loaded, &last(&ruleset, &rows));
        prop_assert_eq!(&loaded, &last(&ruleset, &rows), "and again");
    }

    #[test]
    fn rows_outside_the_windows_change_nothing(older in any_rows(), newer in any_rows()) {
        let ruleset = revealing(1_000);
        let gap = older.last().map_or(0, |row| row.seconds) + 101;
        // The amount passes the filter of `seconds_since_last`. That feature has no window here, so it does not look
        // further back.
        let mut moved = vec![Row { amount: 70_000, ..newer[0].clone() }];
        moved.extend(newer);
        let shift = |row: &Row| Row { seconds: row.seconds + gap, ..row.clone() };
        let alone = score_all(&ruleset, &moved.iter().map(shift).collect::<Vec<_>>());
        let both: Vec<Row> = older.iter().cloned().chain(moved.iter().map(shift)).collect();
        let after = score_all(&ruleset, &both);
        for (one, other) in alone.iter().zip(&after[older.len()..]).skip(1) {
            prop_assert_eq!(&one.reasons[0].reason, &other.reasons[0].reason);
        }
    }

    #[test]
    fn any_text_is_accepted_or_refused_without_a_panic(text in ".{0,200}") {
        let _ = Ruleset::parse(&text);
        let _ = with(&rule(&text));
    }
}

#[test]
fn direction_is_the_sign_of_the_amount() {
    assert_eq!(subject(1, &row(0, -1)).direction(), Direction::Debit);
}

/// docs/rules.md names every variable, function and field, and its examples are valid.
#[test]
fn the_guide_names_everything_and_its_examples_are_valid() {
    let guide = include_str!("../../docs/rules.md");
    for (name, _) in symbol::VARIABLES {
        assert!(guide.contains(&format!("`{name}`")), "{name} is not in docs/rules.md");
    }
    for name in types::CALLS.iter().map(|(name, ..)| *name).chain([check::MONEY]) {
        assert!(guide.contains(&format!("{name}(")), "{name}() is not in docs/rules.md");
    }
    let words = [
        "count",
        "sum",
        "min",
        "max",
        "distinct",
        "seconds_since_last",
        "include_event",
        "window",
        "of",
        "account_seq",
        "start",
        "balance",
        "times",
        "every",
        "fires",
    ];
    for word in words {
        assert!(guide.contains(&format!("`{word}`")), "{word} is not in docs/rules.md");
    }
    let examples: Vec<&str> =
        guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        let ruleset = Ruleset::parse_with(example, &|_| Ok("iban\nDE89370400440532013000\n".into()))
            .unwrap_or_else(|error| panic!("{error} in:\n{example}"));
        let runs = ruleset.run_examples();
        assert!(runs.iter().all(ExampleRun::is_as_expected), "{runs:#?}");
    }
}
