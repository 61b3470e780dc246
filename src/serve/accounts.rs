//! `GET /accounts`, `GET` and `PUT /accounts/{id}`, and `GET /accounts/{id}/balance`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    body,
    cursor::CursorScope,
    input::{self, AccountIn},
    output::{self, AccountOut, AccountPageOut, BalanceOut},
    problem::{FieldProblem, Problem, ProblemKind},
    query::{self, Parameters},
    state::ApiState,
};
use crate::{
    domain::AccountId,
    repository::{
        PooledConnection,
        accounts::{self, AccountPageRequest},
    },
};

fn missing() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "this account does not exist; it opens with its first transaction or with PUT",
    )
}

fn account_id(path: &str) -> Result<AccountId, Problem> {
    AccountId::parse(path).map_err(|_| missing())
}

/// List accounts by id
#[utoipa::path(
    get, path = "/accounts", tag = "accounts",
    params(
        ("prefix" = Option<String>, Query, description = "Only accounts whose ids begin with this", pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "The page size. Default: 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page of the same query", max_length = 128)
    ),
    responses((status = 200, description = "A page", body = AccountPageOut))
)]
pub async fn list_accounts(
    state: web::Data<ApiState>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let cursors = CursorScope::new("accounts", &parameters);
    let mut wanted = AccountPageRequest {
        prefix: parameters.take("prefix", query::account_prefix).unwrap_or_default(),
        limit: parameters.take_limit(),
        after: None,
    };
    let given = parameters.take("cursor", query::short_text);
    parameters.finish()?;
    if let Some(given) = given {
        wanted.after = Some(cursors.decode_account(&given)?);
    }
    let page = state
        .read(move |mut connection| async move { accounts::page(&mut connection, &wanted).await })
        .await?;
    let last = page.accounts.last().filter(|_| page.has_more);
    let next = last.map(|last| cursors.encode_account(&last.account_id));
    output::json(HttpResponse::Ok(), &AccountPageOut::new(&page.accounts, next))
}

/// Read an account
#[utoipa::path(
    get, path = "/accounts/{id}", tag = "accounts",
    params(("id" = String, Path, description = "The account's id", example = "acct-42", pattern = r"^[A-Za-z0-9._:-]{1,64}$")),
    responses((status = 200, description = "The account", body = AccountOut))
)]
pub async fn find_account(
    state: web::Data<ApiState>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    let id = account_id(&path)?;
    let found = state.account(id).await?;
    output::json(HttpResponse::Ok(), &AccountOut::new(&found.ok_or_else(missing)?))
}

/// Open an account, or change its limit
///
/// Idempotent. The body replaces all settings of the account. The currency never changes.
#[utoipa::path(
    put, path = "/accounts/{id}", tag = "accounts",
    params(("id" = String, Path, description = "The account's id", example = "acct-42", pattern = r"^[A-Za-z0-9._:-]{1,64}$")),
    request_body(content = AccountIn, content_type = "application/json"),
    responses(
        (status = 200, description = "The account existed, and its limit is set", body = AccountOut), (status = 201, description = "The account is opened", body = AccountOut)
    )
)]
pub async fn put_account(
    state: web::Data<ApiState>,
    request: HttpRequest,
    payload: web::Payload,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    let body = body::json(&request, payload, &state).await?;
    let terms = input::account_terms(&path, &body)?;
    let currency = terms.currency;
    // An account that holds a currency that has ended keeps its limit; none is opened.
    if let Err(ended) = currency.check_active()
        && state.account(terms.account_id.clone()).await?.is_none()
    {
        let field = FieldProblem { field: "currency".into(), message: ended.to_string() };
        return Err(Problem::validation(vec![field]));
    }
    let change = move |mut connection: PooledConnection| async move {
        accounts::open_or_limit(&mut connection, &terms.account_id, currency, terms.min_balance).await
    };
    let (opened, account) = state.read(change).await?;
    if account.state.currency != currency {
        let detail = format!("the account holds {}, and its currency never changes", account.state.currency);
        return Err(Problem::new(ProblemKind::CurrencyMismatch, detail));
    }
    let response = if opened { HttpResponse::Created() } else { HttpResponse::Ok() };
    output::json(response, &AccountOut::new(&account))
}

/// Read a balance, now or in the past
#[utoipa::path(
    get, path = "/accounts/{id}/balance", tag = "accounts",
    params(
        ("id" = String, Path, description = "The account's id", example = "acct-42", pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("at" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "The moment. Default: now")
    ),
    responses((status = 200, description = "The balance", body = BalanceOut))
)]
pub async fn find_balance(
    state: web::Data<ApiState>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let at = parameters.take("at", query::moment);
    parameters.finish()?;
    let id = account_id(&path)?;
    let wanted = id.clone();
    // Taken before the read, from the clock that dates transactions, so that no transaction that this instance posts
    // after the read is older than `as_of`.
    let asked_at = state.clock.now();
    let found = match at {
        None => state.account(wanted).await?.map(|account| account.state),
        Some(at) => {
            let past = move |mut connection: PooledConnection| async move {
                accounts::state_at(&mut connection, &wanted, at).await
            };
            state.read(past).await?
        }
    };
    let state = found.ok_or_else(missing)?;
    let known_until = state.last_created_at.map_or(asked_at, |last| last.max(asked_at));
    // A moment in the future is clamped to now.
    let as_of = at.map_or(known_until, |at| at.min(known_until));
    output::json(HttpResponse::Ok(), &BalanceOut::new(&id, &state, as_of))
}
