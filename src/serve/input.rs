//! Request bodies and the idempotency key, parsed into domain values.
//!
//! The strict parse is fast. Only when it fails is the body parsed again, leniently, to report all wrong fields at once
//! (see [`field_errors`]).

mod field_errors;

use std::{borrow::Cow, sync::Arc};

use actix_web::http::header::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use self::field_errors::{KeyLocation, UniqueObject};
use super::problem::{FieldProblem, Problem, ProblemKind};
use crate::domain::{
    AccountId, Amount, COUNTERPARTY_LENGTH_MAX, Currency, DESCRIPTION_LENGTH_MAX, Direction, IdempotencyKey,
    Metadata, Posting, bounded_text, parse_minor,
};

/// A transaction to post.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTransaction)]
pub struct TransactionIn<'a> {
    /// The account. It opens with its first transaction.
    #[serde(borrow)]
    #[schema(pattern = r"^[A-Za-z0-9._:-]{1,64}$", example = "acct-42")]
    account_id: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = Direction)]
    direction: Cow<'a, str>,
    /// A positive decimal string with at most the decimals that the currency has. JSON numbers are refused, because they
    /// are not exact.
    #[serde(borrow)]
    #[schema(pattern = r"^[0-9]{1,18}(\.[0-9]{1,4})?$", example = "125.50")]
    amount: Cow<'a, str>,
    /// An ISO 4217 code. The account's first transaction fixes it.
    #[serde(borrow)]
    #[schema(example = "EUR")]
    currency: Cow<'a, str>,
    /// The other party of the transaction.
    #[serde(borrow, default)]
    #[schema(min_length = 1, max_length = 128, example = "shop-9")]
    counterparty: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    #[schema(min_length = 1, max_length = 500, example = "order 77")]
    description: Option<Cow<'a, str>>,
    /// A flat object of up to 20 strings, booleans and whole numbers, of at most 2 KiB as JSON.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, MetadataValue>>)]
    metadata: Option<UniqueObject>,
    /// Only in an item of a batch. A single request has the key in its header.
    #[serde(borrow, default)]
    #[schema(ignore)]
    idempotency_key: Option<Cow<'a, str>>,
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `Metadata::from_json` accepts")]
pub enum MetadataValue {
    Text(String),
    Flag(bool),
    Number(i64),
}

/// 1 to 255 visible ASCII characters, the first not a double quote. Unique within the account.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 255, pattern = "^[!#-~][!-~]{0,254}$", example = "order-77")]
#[expect(dead_code, reason = "describes what `IdempotencyKey::parse` accepts")]
pub struct KeyText(String);

/// The schema of an item of a batch: the fields of [`TransactionIn`] and the idempotency key.
pub struct BatchItem;

impl ToSchema for BatchItem {
    fn name() -> Cow<'static, str> {
        "NewBatchItem".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        TransactionIn::schemas(schemas);
    }
}

impl PartialSchema for BatchItem {
    fn schema() -> RefOr<Schema> {
        let mut schema = TransactionIn::schema();
        if let RefOr::T(Schema::Object(item)) = &mut schema {
            item.description = Some("A transaction to post, with its idempotency key.".into());
            item.properties.insert("idempotency_key".into(), KeyText::schema());
            item.required.insert(0, "idempotency_key".into());
        }
        schema
    }
}

/// Parses the body of `POST /transactions`.
pub fn posting(body: &[u8], idempotency_key: IdempotencyKey) -> Result<Arc<Posting>, Problem> {
    let input = serde_json::from_slice::<TransactionIn<'_>>(body);
    let of_single = input.as_ref().ok().filter(|input| input.idempotency_key.is_none());
    match of_single.and_then(|input| validate(input, idempotency_key)) {
        Some(posting) => Ok(Arc::new(posting)),
        None => Err(field_errors::transaction(body, input.err().as_ref(), KeyLocation::Header)),
    }
}

/// Returns the posting, or None if a field has a wrong value.
fn validate(input: &TransactionIn<'_>, idempotency_key: IdempotencyKey) -> Option<Posting> {
    let optional = |text: &Option<Cow<'_, str>>, length_max| {
        text.as_deref().map(|text| bounded_text(text, length_max)).transpose().ok()
    };
    let currency = Currency::parse_active(&input.currency).ok()?;
    let entries = input.metadata.as_ref().map(|UniqueObject(entries)| Metadata::from_json(entries));
    Some(Posting {
        account_id: AccountId::parse(&input.account_id).ok()?,
        idempotency_key,
        direction: Direction::parse(&input.direction).ok()?,
        amount: Amount::parse(&input.amount, currency).ok()?,
        currency,
        counterparty: optional(&input.counterparty, COUNTERPARTY_LENGTH_MAX)?,
        description: optional(&input.description, DESCRIPTION_LENGTH_MAX)?,
        metadata: entries.transpose().ok()?.filter(|metadata| metadata.as_json() != "{}"),
        reverses: None,
        created_at: None,
    })
}

/// Transactions to post, each with its own `idempotency_key`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBatch)]
pub struct BatchIn<'a> {
    /// 1 to 1,000 items. A wrong item is refused alone.
    #[serde(borrow)]
    #[schema(value_type = Vec<BatchItem>, min_items = 1, max_items = 1000)]
    transactions: Vec<&'a RawValue>,
}

/// The largest number of items in a batch.
pub const BATCH_SIZE_MAX: usize = 1000;

/// Parses the body of `POST /transactions/batch`. Returns a posting or a problem for each item.
pub fn batch(body: &[u8]) -> Result<Vec<Result<Arc<Posting>, Problem>>, Problem> {
    let batch: BatchIn<'_> =
        serde_json::from_slice(body).map_err(|error| field_errors::batch(body, &error))?;
    let size = batch.transactions.len();
    if !(1..=BATCH_SIZE_MAX).contains(&size) {
        let message = format!("must have 1 to {BATCH_SIZE_MAX} items, not {size}");
        return Err(Problem::validation(vec![FieldProblem { field: "transactions".into(), message }]));
    }
    Ok(batch.transactions.iter().map(|item| batch_item(item.get())).collect())
}

fn batch_item(text: &str) -> Result<Arc<Posting>, Problem> {
    let input = serde_json::from_str::<TransactionIn<'_>>(text);
    let posting = input.as_ref().ok().and_then(|input| {
        let key = IdempotencyKey::parse(input.idempotency_key.as_deref()?).ok()?;
        validate(input, key)
    });
    posting
        .map(Arc::new)
        .ok_or_else(|| field_errors::transaction(text.as_bytes(), input.err().as_ref(), KeyLocation::Item))
}

/// The settings of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AccountTerms)]
pub struct AccountIn<'a> {
    #[serde(borrow)]
    #[schema(example = "EUR")]
    currency: Cow<'a, str>,
    /// The limit: a debit that would leave a smaller balance is refused. Null or absent for no limit.
    #[serde(borrow, default)]
    #[schema(pattern = r"^-?[0-9]{1,18}(\.[0-9]{1,4})?$", example = "-100.00")]
    min_balance: Option<Cow<'a, str>>,
}

/// A valid request to open an account or to change its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountTerms {
    /// The account.
    pub account_id: AccountId,
    /// The account's currency, which never changes.
    pub currency: Currency,
    /// The limit in minor units, or None for no limit.
    pub min_balance: Option<i64>,
}

/// Parses the path and body of `PUT /accounts/{id}`. The body replaces all settings, so an absent limit means no limit.
pub fn account_terms(account_id: &str, body: &[u8]) -> Result<AccountTerms, Problem> {
    let input = serde_json::from_slice::<AccountIn<'_>>(body);
    let terms = input.as_ref().ok().and_then(|input| {
        let currency = Currency::parse(&input.currency).ok()?;
        let limit = input.min_balance.as_deref().map(|text| parse_minor(text, currency));
        let account_id = AccountId::parse(account_id).ok()?;
        Some(AccountTerms { account_id, currency, min_balance: limit.transpose().ok()? })
    });
    terms.ok_or_else(|| field_errors::account_terms(account_id, body, input.err().as_ref()))
}

/// An empty object: the request has no fields.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewReversal)]
pub struct ReversalIn {}

/// Checks that a body is empty, or an empty object for clients that cannot send an empty body.
pub fn empty(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() { Ok(()) } else { field_errors::empty(body) }
}

/// Parses the `Idempotency-Key` header, which must be sent exactly once.
pub fn idempotency_key(headers: &HeaderMap) -> Result<IdempotencyKey, Problem> {
    let malformed = |message: &str| {
        let field = FieldProblem { field: "Idempotency-Key".into(), message: message.into() };
        Problem::new(ProblemKind::Malformed, format!("the header Idempotency-Key {message}"))
            .with_errors(vec![field])
    };
    let mut values = headers.get_all("idempotency-key");
    let Some(value) = values.next() else { return Err(malformed("is required for every transaction")) };
    if values.next().is_some() {
        return Err(malformed("must be sent once"));
    }
    let text = value.to_str().map_err(|_| malformed("must be visible ASCII"))?;
    IdempotencyKey::parse_header(text).map_err(|error| malformed(&error.to_string()))
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
    fn all_wrong_fields_are_reported_at_once() {
        let problem =
            parse(r#"{"account_id":"a b","direction":"up","amount":"1.234","currency":"EUR","x":1}"#)
                .expect_err("refused");
        assert_eq!(problem.kind, ProblemKind::Validation);
        assert_eq!(fields(&problem), ["account_id", "direction", "amount", "x"]);
        let problem = parse(r#"{"amount":1.5,"currency":null,"metadata":[]}"#).expect_err("refused");
        assert_eq!(fields(&problem), ["account_id", "direction", "currency", "amount", "metadata"]);
        let long = "x".repeat(501);
        let all = format!(
            r#"{{"account_id":"","direction":"","amount":"-1","currency":"XXX","counterparty":"","description":"{long}","metadata":{{"a":1.5}},"idempotency_key":"k"}}"#
        );
        let expected =
            ["account_id", "direction", "currency", "amount", "counterparty", "description", "metadata"];
        assert_eq!(
            fields(&parse(&all).expect_err("refused")),
            [&["idempotency_key"][..], &expected].concat()
        );
        let item = all.replace("\"k\"", "\"\"");
        assert_eq!(
            fields(&batch_item(&item).expect_err("refused")),
            [&["idempotency_key"][..], &expected].concat()
        );
    }

    #[test]
    fn all_wrong_fields_of_an_account_are_reported_at_once() {
        let refused = |id: &str, body: &str| account_terms(id, body.as_bytes()).expect_err("refused");
        let problem = refused("a b", r#"{"currency":"eur","min_balance":1,"limit":2}"#);
        assert_eq!(fields(&problem), ["account_id", "currency", "min_balance", "limit"]);
        assert_eq!(fields(&refused("a", r#"{"currency":"EUR","min_balance":"1.234"}"#)), ["min_balance"]);
        assert_eq!(fields(&refused("a", "{}")), ["currency"]);
        for body in [r#"{"currency":"EUR","currency":"EUR"}"#, "", "[]", "{"] {
            assert_eq!(refused("a", body).kind, ProblemKind::Malformed, "{body}");
        }
        assert!(account_terms("a", br#"{"currency":"EUR","min_balance":null}"#).is_ok());
    }

    #[test]
    fn a_body_that_is_not_a_json_object_is_malformed() {
        let body = r#"{"account_id":"a","direction":"credit","amount":"1","currency":"EUR"}"#;
        assert!(parse(body).is_ok());
        for text in [
            "",
            "null",
            "[]",
            "{",
            &format!("{body}x"),
            &body.replace("}", ",\"amount\":\"2\"}"),
            &body.replace("}", ",\"metadata\":{\"a\":1,\"a\":2}}"),
            &body.replace("}", ",\"x\":1,\"x\":2}"),
            &"[".repeat(200),
        ] {
            assert_eq!(parse(text).expect_err("refused").kind, ProblemKind::Malformed, "{text}");
        }
        assert_eq!(
            posting(&[0xff, 0xfe], IdempotencyKey::parse("k").expect("key")).expect_err("x").kind,
            ProblemKind::Malformed
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
    fn nul_is_refused_in_every_text() {
        for field in ["counterparty", "description"] {
            let body = format!(
                r#"{{"account_id":"a","direction":"credit","amount":"1","currency":"EUR","{field}":"a\u0000"}}"#
            );
            assert_eq!(fields(&parse(&body).expect_err("refused")), [field]);
        }
    }
}
