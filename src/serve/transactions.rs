//! `POST /transactions`, `GET /transactions/{id}`, `GET /transactions`.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use uuid::Uuid;

use super::{
    body,
    cursor::CursorScope,
    input::{self, TransactionIn},
    observe::trace_context,
    output::{self, AssessedTransactionOut, Included, ListedRow, TransactionOut, TransactionPageOut},
    problem::{INTERNAL_DETAIL, Problem, ProblemKind},
    query::{self, Parameters},
    state::ApiState,
};
use crate::{
    domain::{Decision, Direction, IdempotencyKey, RiskState, Transaction},
    posting::Request,
    repository::{
        Connection, Page, RepositoryError,
        assessments::{self, StoredAssessment},
        transactions::{self, TransactionFilter},
    },
};

/// The header of a replay.
const REPLAYED: &str = "Idempotent-Replayed";

/// Post a transaction
///
/// Idempotent for ever: the same request with the same key is answered 200 with exactly the first answer's body.
#[utoipa::path(
    post, path = "/transactions", tag = "transactions",
    params(("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters as a string of RFC 8941, or bare if they are unambiguous. Unique within the account",
            min_length = 1, max_length = 512, pattern = r#"^([!#-')-+\--9<->A-\[\]-~][!#-+\--:<-\[\]-~]{0,254}|"(\\\\|[!#-\[\]-~])(\\["\\]|[!#-\[\]-~]){0,254}")$"#)),
    request_body(content = TransactionIn, content_type = "application/json"),
    responses(
        (status = 201, description = "Posted and on disk", body = TransactionOut, headers(("Location" = String, description = "The path of the transaction"))),
        (status = 200, description = "Posted before; the body is that of the first answer", body = TransactionOut, headers(("Idempotent-Replayed" = String, description = "`true`")))
    )
)]
pub async fn create_transaction(
    state: web::Data<ApiState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    let body = body::json(&request, payload, &state).await?;
    let idempotency_key = input::idempotency_key(request.headers())?;
    let posting = input::posting(&body, idempotency_key)?;
    let decision = state.post(Request { posting, traceparent: trace_context(&request) }).await?;
    answer(&decision)
}

/// Returns the answer to a posting: 201 with the new transaction, 200 with the earlier one, or the problem.
pub fn answer(decision: &Decision) -> Result<HttpResponse, Problem> {
    match decision {
        Decision::Create(row) => {
            let mut response = HttpResponse::Created();
            response.insert_header((header::LOCATION, format!("/transactions/{}", row.id)));
            output::json(response, &TransactionOut::new(row)?)
        }
        Decision::Replay(row) => {
            let mut response = HttpResponse::Ok();
            response.insert_header((REPLAYED, "true"));
            output::json(response, &TransactionOut::new(row)?)
        }
        refused => Err(Problem::from_decision(refused)
            .unwrap_or_else(|| Problem::new(ProblemKind::Internal, INTERNAL_DETAIL))),
    }
}

/// Read a transaction and its assessment
#[utoipa::path(
    get, path = "/transactions/{id}", tag = "transactions",
    params(("id" = uuid::Uuid, Path, description = "The transaction's id, in lower case",
            pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")),
    responses((status = 200, description = "The transaction", body = AssessedTransactionOut))
)]
pub async fn find_transaction(
    state: web::Data<ApiState>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    let (row, risk) = find_row(&state, path_id(&path)?).await?;
    output::json(HttpResponse::Ok(), &AssessedTransactionOut::new(&row, risk.as_ref())?)
}

fn missing() -> Problem {
    Problem::new(ProblemKind::NotFound, "no transaction has this id")
}

/// Parses the id in a path. Only the canonical spelling is accepted, so that a transaction has one path.
pub fn path_id(path: &str) -> Result<Uuid, Problem> {
    path.parse::<Uuid>().ok().filter(|id| id.hyphenated().to_string() == path).ok_or_else(missing)
}

/// Returns a transaction and its assessment, or 404.
pub async fn find_row(
    state: &ApiState,
    id: Uuid,
) -> Result<(Transaction, Option<StoredAssessment>), Problem> {
    let found = state
        .read(move |mut connection| async move {
            let Some(row) = transactions::find(&mut connection, id).await? else { return Ok(None) };
            let risk = assessments::find(&mut connection, &row.posting.account_id, row.account_seq).await?;
            Ok(Some((row, risk)))
        })
        .await?;
    found.ok_or_else(missing)
}

/// List transactions, newest first
#[utoipa::path(
    get, path = "/transactions", tag = "transactions",
    params(
        ("account_id" = Option<String>, Query, description = "Only transactions of this account", pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only transactions created at or after this moment"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only transactions created before this moment, which must not be before `from`"),
        ("direction" = Option<Direction>, Query, description = "Only credits or only debits"),
        ("min_amount" = Option<String>, Query, max_length = 24, pattern = r"^[0-9]+(\.[0-9]+)?$",
         description = "The smallest amount, in the unit of the currency"),
        ("max_amount" = Option<String>, Query, max_length = 24, pattern = r"^[0-9]+(\.[0-9]+)?$",
         description = "The largest amount, in the unit of the currency; not less than `min_amount`"),
        ("risk_level" = Option<RiskState>, Query, description = "Only transactions with this risk level, or `pending` for those that are not assessed yet"),
        ("idempotency_key" = Option<String>, Query, min_length = 1, max_length = 255, pattern = "^[!#-~][!-~]{0,254}$",
         description = "Only the transaction of `account_id` with this key, a plain string. Not together with another filter"),
        ("include" = Option<Included>, Query, description = "`risk` adds the assessment to each transaction"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "The page size. Default: 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page of the same query", max_length = 128)
    ),
    responses((status = 200, description = "A page", body = TransactionPageOut))
)]
pub async fn list_transactions(
    state: web::Data<ApiState>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let cursors = CursorScope::new("transactions", &parameters);
    let mut filter = TransactionFilter {
        page: parameters.take_page(),
        direction: parameters.take("direction", query::direction),
        min_amount: parameters.take("min_amount", query::decimal),
        max_amount: parameters.take("max_amount", query::decimal),
        risk_level: parameters.take("risk_level", query::risk_state),
    };
    parameters.check_order(("min_amount", &filter.min_amount), ("max_amount", &filter.max_amount));
    let key = parameters.take("idempotency_key", query::idempotency_key);
    let with_risk = parameters.take("include", query::include_risk).is_some();
    let given = parameters.take("cursor", query::short_text);
    if key.is_some() {
        check_look_up(&mut parameters, &filter, given.is_some());
    }
    parameters.finish()?;
    if let Some(given) = given {
        filter.page.before = Some(cursors.decode(&given, &filter.page)?);
    }
    let (rows, next) = state
        .read(move |mut connection| async move {
            let page = read_page(&mut connection, &filter, key).await?;
            let rows = if with_risk {
                with_risks(&mut connection, page.rows).await?
            } else {
                without_risks(page.rows)
            };
            Ok((rows, page.next))
        })
        .await?;
    let next = next.map(|next| cursors.encode(next));
    output::json(HttpResponse::Ok(), &TransactionPageOut::new(&rows, next)?)
}

/// A look-up by key needs the account, and ignores nothing: another filter is refused.
fn check_look_up(parameters: &mut Parameters, filter: &TransactionFilter, has_cursor: bool) {
    let TransactionFilter { page, direction, min_amount, max_amount, risk_level } = filter;
    let others = [
        ("from", page.from.is_some()),
        ("to", page.to.is_some()),
        ("direction", direction.is_some()),
        ("min_amount", min_amount.is_some()),
        ("max_amount", max_amount.is_some()),
        ("risk_level", risk_level.is_some()),
        ("cursor", has_cursor),
    ];
    parameters.check_look_up("idempotency_key", ("account_id", page.account_id.is_some()), &others);
}

async fn read_page(
    connection: &mut Connection,
    filter: &TransactionFilter,
    key: Option<IdempotencyKey>,
) -> Result<Page<Transaction>, RepositoryError> {
    match (key, &filter.page.account_id) {
        (Some(key), Some(account_id)) => {
            let found = transactions::find_by_key(connection, account_id, &key).await?;
            Ok(Page { rows: found.into_iter().collect(), next: None })
        }
        _ => transactions::page(connection, filter).await,
    }
}

fn without_risks(rows: Vec<Transaction>) -> Vec<ListedRow> {
    rows.into_iter().map(|transaction| ListedRow { transaction, risk: None }).collect()
}

async fn with_risks(
    connection: &mut Connection,
    rows: Vec<Transaction>,
) -> Result<Vec<ListedRow>, RepositoryError> {
    let account_ids: Vec<&str> = rows.iter().map(|row| row.posting.account_id.as_str()).collect();
    let account_seqs: Vec<i64> = rows.iter().map(|row| row.account_seq).collect();
    let risks = assessments::find_all(connection, &account_ids, &account_seqs).await?;
    let listed = rows.into_iter().zip(risks);
    Ok(listed.map(|(transaction, risk)| ListedRow { transaction, risk: Some(risk) }).collect())
}
