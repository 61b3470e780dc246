//! Adds the parts of the description that the code has as lists: the problems that each operation may answer, with
//! headers and examples, the types of problems, and the currencies.

use serde_json::{Map, Value, json};

use super::super::problem::{FieldProblem, Problem, ProblemKind};
use crate::domain::{CURRENCIES, Currency};

/// The statuses of problems of every operation.
const EVERYWHERE: [u16; 7] = [400, 414, 421, 429, 431, 500, 503];
/// The statuses of problems of operations that read a body.
const WITH_BODY: [u16; 4] = [408, 413, 415, 422];
const WITH_BODY_IDS: [&str; 4] = ["create_transaction", "create_batch", "reverse_transaction", "put_account"];
const NOT_FOUND_IDS: [&str; 4] = ["find_transaction", "reverse_transaction", "find_account", "find_balance"];

/// Adds the problems and the headers that every answer has.
pub(super) fn complete(description: &mut Value) {
    for operation in operations(description) {
        let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            let headers = response.entry("headers").or_insert_with(|| json!({}));
            headers.as_object_mut().map(|headers| headers.insert("X-Request-Id".into(), request_id()));
        }
        for status in statuses(&id) {
            let component = format!("#/components/responses/Problem{status}");
            responses.insert(status.to_string(), json!({ "$ref": component }));
        }
    }
    let Some(components) = description.get_mut("components").and_then(Value::as_object_mut) else { return };
    let statuses = EVERYWHERE.into_iter().chain(WITH_BODY).chain([404, 405]);
    let responses: Map<_, _> =
        statuses.map(|status| (format!("Problem{status}"), response(status))).collect();
    components.insert("responses".into(), responses.into());
    if let Some(schemas) = components.get_mut("schemas").and_then(Value::as_object_mut) {
        name_types(schemas);
        name_currencies(schemas);
    }
}

/// Lists the accepted currencies in each request.
fn name_currencies(schemas: &mut Map<String, Value>) {
    let codes = CURRENCIES.iter().map(|(code, _)| *code);
    let codes: Vec<&str> = codes.filter(|code| Currency::parse_active(code).is_ok()).collect();
    for shape in ["NewTransaction", "NewBatchItem", "AccountTerms"] {
        let currency = schemas.get_mut(shape).and_then(|shape| shape.pointer_mut("/properties/currency"));
        if let Some(currency) = currency.and_then(Value::as_object_mut) {
            currency.insert("enum".into(), json!(codes));
        }
    }
}

/// Lists the types of problems.
fn name_types(schemas: &mut Map<String, Value>) {
    let types: Vec<String> =
        ProblemKind::ALL.into_iter().map(|kind| format!("urn:ledger:problem:{}", kind.name())).collect();
    let problem_type = schemas.get_mut("Problem").and_then(|schema| schema.pointer_mut("/properties/type"));
    if let Some(problem_type) = problem_type.and_then(Value::as_object_mut) {
        problem_type.insert("enum".into(), json!(types));
    }
}

fn operations(description: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = description.get_mut("paths").and_then(Value::as_object_mut);
    paths.into_iter().flat_map(|paths| {
        paths.values_mut().filter_map(Value::as_object_mut).flat_map(|methods| methods.values_mut())
    })
}

fn statuses(operation_id: &str) -> Vec<u16> {
    let mut statuses = EVERYWHERE.to_vec();
    if WITH_BODY_IDS.contains(&operation_id) {
        statuses.extend(WITH_BODY);
    }
    if NOT_FOUND_IDS.contains(&operation_id) {
        statuses.push(404);
    }
    if operation_id == "find_transaction" {
        // `/transactions/batch` matches the path, and allows POST only.
        statuses.push(405);
    }
    statuses
}

fn request_id() -> Value {
    json!({"description": "The request's X-Request-Id if it was valid, otherwise a new one. It is in the log.", "schema": {"type": "string"}})
}

fn response(status: u16) -> Value {
    let kinds: Vec<ProblemKind> =
        ProblemKind::ALL.into_iter().filter(|kind| kind.status().as_u16() == status).collect();
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
    let examples: Map<_, _> =
        kinds.iter().map(|kind| (kind.name().to_owned(), json!({ "value": example(*kind) }))).collect();
    let mut headers = json!({ "X-Request-Id": request_id() });
    let more = match status {
        405 => Some((
            "Allow",
            json!({"description": "The methods that the path allows", "schema": {"type": "string"}}),
        )),
        429 | 503 => Some((
            "Retry-After",
            json!({"description": "Seconds to wait before a retry with the same idempotency key", "schema": {"type": "integer", "minimum": 1}}),
        )),
        _ => None,
    };
    if let (Some((name, header)), Some(headers)) = (more, headers.as_object_mut()) {
        headers.insert(name.into(), header);
    }
    json!({
        "description": titles.join("; "),
        "headers": headers,
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": examples,
        }},
    })
}

fn example(kind: ProblemKind) -> Value {
    let problem = match kind {
        ProblemKind::Validation => Problem::validation(vec![FieldProblem {
            field: "amount".into(),
            message: "has more than the 2 decimals of EUR".into(),
        }]),
        ProblemKind::IdempotencyKeyReused => {
            Problem::new(kind, "the key was first used for a request with another amount; send a new key")
                .with_errors(vec![FieldProblem {
                    field: "amount".into(),
                    message: "differs from the first request with this key".into(),
                }])
        }
        kind => Problem::new(kind, "the cause in this case, and the remedy"),
    };
    serde_json::to_value(problem.to_json("/transactions")).unwrap_or_default()
}
