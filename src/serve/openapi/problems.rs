//! What the code knows better than a written description: each problem that an operation may answer, with its type,
//! headers and an example, and the currencies, from the same lists that the answers are made from.

use serde_json::{Map, Value, json};

use super::super::problem::{FieldProblem, Problem, ProblemKind};
use crate::domain::CURRENCIES;

/// Problems of every operation.
const EVERYWHERE: [u16; 6] = [400, 414, 429, 431, 500, 503];
/// Problems of those that read a body.
const WITH_BODY: [u16; 4] = [408, 413, 415, 422];
const WITH_BODY_IDS: [&str; 4] = ["create_transaction", "create_batch", "reverse_transaction", "put_account"];
const NOT_FOUND_IDS: [&str; 4] = ["find_transaction", "reverse_transaction", "find_account", "find_balance"];

/// Adds problems, and the headers that are on every answer.
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

/// Wherever a currency is sent, the description lists those that are taken.
fn name_currencies(schemas: &mut Map<String, Value>) {
    let codes: Vec<&str> = CURRENCIES.iter().map(|(code, _)| *code).collect();
    for shape in ["NewTransaction", "NewBatchItem", "AccountTerms"] {
        let currency = schemas.get_mut(shape).and_then(|shape| shape.pointer_mut("/properties/currency"));
        if let Some(currency) = currency.and_then(Value::as_object_mut) {
            currency.insert("enum".into(), json!(codes));
        }
    }
}

/// The description lists the types of problems.
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
        // `batch` is no id: it takes POST.
        statuses.push(405);
    }
    statuses
}

fn request_id() -> Value {
    json!({"description": "The request's own, if it was short and plain, or a new one; it is in the log", "schema": {"type": "string"}})
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
            json!({"description": "The methods that there are", "schema": {"type": "string"}}),
        )),
        429 | 503 => Some((
            "Retry-After",
            json!({"description": "Seconds to wait before the same request, with the same key", "schema": {"type": "integer", "minimum": 1}}),
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
        ProblemKind::IdempotencyKeyReused => Problem::new(kind, "the first request had another amount")
            .with_errors(vec![FieldProblem {
                field: "amount".into(),
                message: "differs from the request that this key was first used for".into(),
            }]),
        kind => Problem::new(kind, "what happened this time, for a person"),
    };
    serde_json::to_value(problem.to_json("/transactions")).unwrap_or_default()
}
