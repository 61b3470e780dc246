//! What clients send, turned into domain values. The strict parse is fast; only when it fails is the body read again
//! leniently, to name every field that is wrong at once.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use actix_web::http::header::HeaderMap;
use serde::Deserialize;

use super::problem::{FieldProblem, Kind, Problem};
use crate::domain::{
    AccountId, Amount, COUNTERPARTY_LENGTH_MAX, Currency, DESCRIPTION_LENGTH_MAX, Direction, IdempotencyKey,
    Metadata, Posting, bounded_text,
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
}

const FIELDS: [&str; 7] =
    ["account_id", "direction", "amount", "currency", "counterparty", "description", "metadata"];
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
        Ok(input) => validate(&input, idempotency_key).map(Arc::new).map_err(Problem::validation),
        Err(error) => Err(diagnose(body, &error)),
    }
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

/// Reads the `Idempotency-Key` header: there, once, and well formed.
pub fn idempotency_key(headers: &HeaderMap) -> Result<IdempotencyKey, Problem> {
    let malformed = |message: &str| {
        let field = FieldProblem { field: "Idempotency-Key".into(), message: message.into() };
        Problem::new(Kind::Malformed, format!("the header Idempotency-Key {message}"))
            .with_errors(vec![field])
    };
    let mut values = headers.get_all("idempotency-key");
    let Some(value) = values.next() else { return Err(malformed("is required")) };
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
