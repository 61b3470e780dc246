//! What clients send, turned into domain values. The strict parse is fast; only when it fails is the body read again
//! leniently, to name every field that is wrong at once.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use actix_web::http::header::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::{FieldProblem, Kind, Problem};
use crate::domain::{
    AccountId, Amount, COUNTERPARTY_LENGTH_MAX, Currency, DESCRIPTION_LENGTH_MAX, Direction, IdempotencyKey,
    Metadata, Posting, bounded_text, parse_minor,
};

/// The body of `POST /transactions`, as a client writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionIn<'a> {
    #[serde(borrow)]
    account_id: Cow<'a, str>,
    #[serde(borrow)]
    direction: Cow<'a, str>,
    #[serde(borrow)]
    amount: Cow<'a, str>,
    #[serde(borrow)]
    currency: Cow<'a, str>,
    #[serde(borrow, default)]
    counterparty: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    description: Option<Cow<'a, str>>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, serde_json::Value>>,
    /// Only in an item of a batch; a single request has it in its header.
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
}

const FIELDS: [&str; 8] = [
    "account_id",
    "direction",
    "amount",
    "currency",
    "counterparty",
    "description",
    "metadata",
    "idempotency_key",
];
const REQUIRED: [&str; 4] = ["account_id", "direction", "amount", "currency"];

/// Collects what is wrong, field by field.
#[derive(Default)]
struct Errors(Vec<FieldProblem>);

impl Errors {
    fn take<T, E: std::fmt::Display>(&mut self, field: &str, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(FieldProblem { field: field.into(), message: error.to_string() });
                None
            }
        }
    }
}

/// Parses and validates the body of one transaction.
pub fn posting(body: &[u8], idempotency_key: IdempotencyKey) -> Result<Arc<Posting>, Problem> {
    match serde_json::from_slice::<TransactionIn<'_>>(body) {
        Ok(input) if input.idempotency_key.is_some() => Err(one_field(
            "idempotency_key",
            "is not a known field here: send it as the header Idempotency-Key",
        )),
        Ok(input) => validate(&input, idempotency_key).map(Arc::new).map_err(Problem::validation),
        Err(error) => Err(diagnose(body, &error)),
    }
}

fn one_field(field: &str, message: impl Into<String>) -> Problem {
    Problem::validation(vec![FieldProblem { field: field.into(), message: message.into() }])
}

fn validate(
    input: &TransactionIn<'_>,
    idempotency_key: IdempotencyKey,
) -> Result<Posting, Vec<FieldProblem>> {
    let mut errors = Errors::default();
    let account_id = errors.take("account_id", AccountId::parse(&input.account_id));
    let direction = errors.take("direction", Direction::parse(&input.direction));
    let currency = errors.take("currency", Currency::parse(&input.currency));
    // Without a currency nobody knows how many decimals are right; the shape can be checked all the same.
    let amount = match currency {
        Some(currency) => errors.take("amount", Amount::parse(&input.amount, currency)),
        None => None,
    };
    let optional = |text: &Option<Cow<'_, str>>, length_max| {
        text.as_deref().map(|text| bounded_text(text, length_max)).transpose()
    };
    let counterparty = errors.take("counterparty", optional(&input.counterparty, COUNTERPARTY_LENGTH_MAX));
    let description = errors.take("description", optional(&input.description, DESCRIPTION_LENGTH_MAX));
    let metadata = errors.take("metadata", input.metadata.as_ref().map(Metadata::from_json).transpose());
    match (account_id, direction, currency, amount, counterparty, description, metadata) {
        (
            Some(account_id),
            Some(direction),
            Some(currency),
            Some(amount),
            Some(counterparty),
            Some(description),
            Some(metadata),
        ) => Ok(Posting {
            account_id,
            idempotency_key,
            direction,
            amount,
            currency,
            counterparty,
            description,
            metadata: metadata.filter(|metadata| metadata.as_json() != "{}"),
            reverses: None,
            created_at: None,
        }),
        _ => Err(errors.0),
    }
}

/// The body of `POST /transactions/batch`, cut into its items without looking into them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchIn<'a> {
    #[serde(borrow)]
    transactions: Vec<&'a RawValue>,
}

/// Most items of a batch.
pub const BATCH_SIZE_MAX: usize = 1000;

/// Parses a batch; each item is right or wrong by itself.
pub fn batch(body: &[u8]) -> Result<Vec<Result<Arc<Posting>, Problem>>, Problem> {
    let batch: BatchIn<'_> = serde_json::from_slice(body).map_err(|error| {
        Problem::new(Kind::Malformed, format!("the body must be {{\"transactions\": [\u{2026}]}}: {error}"))
    })?;
    let size = batch.transactions.len();
    if !(1..=BATCH_SIZE_MAX).contains(&size) {
        return Err(one_field("transactions", format!("must hold 1 to {BATCH_SIZE_MAX} items, not {size}")));
    }
    Ok(batch.transactions.iter().map(|item| batch_item(item.get())).collect())
}

fn batch_item(text: &str) -> Result<Arc<Posting>, Problem> {
    let input: TransactionIn<'_> =
        serde_json::from_str(text).map_err(|error| diagnose(text.as_bytes(), &error))?;
    let Some(key) = &input.idempotency_key else { return Err(one_field("idempotency_key", "is required")) };
    let key =
        IdempotencyKey::parse_bare(key).map_err(|error| one_field("idempotency_key", error.to_string()))?;
    validate(&input, key).map(Arc::new).map_err(Problem::validation)
}

/// Says what is wrong with a body that is no `TransactionIn`: not JSON at all, or JSON with wrong fields.
fn diagnose(body: &[u8], error: &serde_json::Error) -> Problem {
    let malformed = |detail: String| Problem::new(Kind::Malformed, detail);
    if body.is_empty() {
        return malformed("the body is empty; send a JSON object".into());
    }
    if std::str::from_utf8(body).is_err() {
        return malformed("the body is not UTF-8".into());
    }
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return malformed(format!("the body is not valid JSON: {error}"));
    };
    let Some(object) = value.as_object() else {
        return malformed("the body must be a JSON object".into());
    };
    // serde reports a repeated name, which a map has already swallowed.
    if error.to_string().starts_with("duplicate field") {
        return malformed(format!("the body is not valid: {error}"));
    }
    Problem::validation(field_problems(object))
}

fn field_problems(object: &serde_json::Map<String, serde_json::Value>) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: &str| {
        problems.push(FieldProblem { field: field.into(), message: message.into() });
    };
    for field in REQUIRED {
        if !object.contains_key(field) {
            wrong(field, "is required");
        }
    }
    for (field, value) in object {
        match field.as_str() {
            "metadata" if !value.is_object() && !value.is_null() => wrong(field, "must be an object"),
            "metadata" => {}
            "amount" if value.is_number() => {
                wrong(field, "must be a decimal string such as \"125.50\": JSON numbers are not exact");
            }
            "counterparty" | "description" if value.is_null() => {}
            known if FIELDS.contains(&known) && !value.is_string() => wrong(field, "must be a string"),
            known if FIELDS.contains(&known) => {}
            _ => wrong(field, "is not a known field"),
        }
    }
    let text = |field: &str| object.get(field).and_then(serde_json::Value::as_str);
    let mut errors = Errors(problems);
    if let Some(account_id) = text("account_id") {
        errors.take("account_id", AccountId::parse(account_id));
    }
    if let Some(direction) = text("direction") {
        errors.take("direction", Direction::parse(direction));
    }
    if let Some(currency) = text("currency")
        && let Some(currency) = errors.take("currency", Currency::parse(currency))
        && let Some(amount) = text("amount")
    {
        errors.take("amount", Amount::parse(amount, currency));
    }
    errors.0
}

/// What `PUT /accounts/{id}` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountTerms {
    /// Fixed for ever when the account opens.
    pub currency: Currency,
    /// Minor units; None for no limit.
    pub min_balance: Option<i64>,
}

/// Parses the body of `PUT /accounts/{id}`: the whole of what can be set, so an absent limit is no limit.
pub fn account_terms(body: &[u8]) -> Result<AccountTerms, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct AccountIn<'a> {
        #[serde(borrow)]
        currency: Cow<'a, str>,
        #[serde(borrow, default)]
        min_balance: Option<Cow<'a, str>>,
    }
    let input: AccountIn<'_> = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => one_field("currency, min_balance", error.to_string()),
        _ => Problem::new(Kind::Malformed, format!("the body is not valid JSON: {error}")),
    })?;
    let mut errors = Errors::default();
    let currency = errors.take("currency", Currency::parse(&input.currency));
    let min_balance = currency.and_then(|currency| {
        let limit = input.min_balance.as_deref().map(|text| parse_minor(text, currency)).transpose();
        errors.take("min_balance", limit)
    });
    match (currency, min_balance) {
        (Some(currency), Some(min_balance)) => Ok(AccountTerms { currency, min_balance }),
        _ => Err(Problem::validation(errors.0)),
    }
}

/// Reads the `Idempotency-Key` header: there, once, and well formed.
pub fn idempotency_key(headers: &HeaderMap) -> Result<IdempotencyKey, Problem> {
    let malformed = |message: &str| {
        let field = FieldProblem { field: "Idempotency-Key".into(), message: message.into() };
        Problem::new(Kind::Malformed, format!("the header Idempotency-Key {message}"))
            .with_errors(vec![field])
    };
    let mut values = headers.get_all("idempotency-key");
    let Some(value) = values.next() else { return Err(malformed("must be sent with every posting")) };
    if values.next().is_some() {
        return Err(malformed("must be sent once"));
    }
    let text = value.to_str().map_err(|_| malformed("must be visible ASCII"))?;
    IdempotencyKey::parse(text).map_err(|error| malformed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Arc<Posting>, Problem> {
        posting(body.as_bytes(), IdempotencyKey::parse("k").expect("key"))
    }

    fn fields(problem: &Problem) -> Vec<&str> {
        problem.errors.iter().map(|error| error.field.as_str()).collect()
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let problem =
            parse(r#"{"account_id":"a b","direction":"up","amount":"1.234","currency":"EUR","x":1}"#)
                .expect_err("refused");
        assert_eq!(problem.kind, Kind::Validation);
        assert_eq!(fields(&problem), ["x", "account_id", "direction", "amount"]);
        let problem = parse(r#"{"amount":1.5,"currency":null,"metadata":[]}"#).expect_err("refused");
        assert_eq!(fields(&problem), ["account_id", "direction", "amount", "currency", "metadata"]);
    }

    #[test]
    fn what_is_no_json_object_is_malformed() {
        let body = r#"{"account_id":"a","direction":"credit","amount":"1","currency":"EUR"}"#;
        assert!(parse(body).is_ok());
        for text in [
            "",
            "null",
            "[]",
            "{",
            &format!("{body}x"),
            &body.replace("}", ",\"amount\":\"2\"}"),
            &"[".repeat(200),
        ] {
            assert_eq!(parse(text).expect_err("refused").kind, Kind::Malformed, "{text}");
        }
        assert_eq!(
            posting(&[0xff, 0xfe], IdempotencyKey::parse("k").expect("key")).expect_err("x").kind,
            Kind::Malformed
        );
    }

    #[test]
    fn field_order_white_space_and_escapes_do_not_matter() {
        let one = parse(
            r#"{"account_id":"a","direction":"credit","amount":"1.5","currency":"EUR","metadata":{"b":1,"a":"x"}}"#,
        );
        let two = parse(
            "{ \"metadata\" : {\"a\":\"x\", \"b\":1},\n\"currency\":\"EUR\",\"amount\":\"1.50\",\"direction\":\"credit\",\"account_id\":\"\\u0061\"}",
        );
        assert_eq!(one.expect("valid"), two.expect("valid"));
    }

    #[test]
    fn nul_is_refused_wherever_it_hides() {
        for field in ["counterparty", "description"] {
            let body = format!(
                r#"{{"account_id":"a","direction":"credit","amount":"1","currency":"EUR","{field}":"a\u0000"}}"#
            );
            assert_eq!(fields(&parse(&body).expect_err("refused")), [field]);
        }
    }
}
