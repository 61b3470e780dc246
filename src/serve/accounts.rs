//! `GET` and `PUT /accounts/{id}`, and `GET /accounts/{id}/balance`.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{SubsecRound, Utc};

use super::{
    body, input, output,
    problem::{Kind, Problem},
    query::{self, Parameters},
    state::ApiState,
    transactions::unprintable,
};
use crate::{
    domain::AccountId,
    repository::{PooledConnection, accounts},
};

fn missing() -> Problem {
    Problem::new(Kind::NotFound, "nobody opened this account; it opens with its first transaction")
}

fn account_id(path: &str) -> Result<AccountId, Problem> {
    AccountId::parse(path).map_err(|_| missing())
}

/// One account.
pub async fn find(
    state: web::Data<ApiState>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    let id = account_id(&path)?;
    let found = state.account(id).await?;
    let body = output::account(&found.ok_or_else(missing)?).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// Opens an account ahead of its first transaction, or changes its limit. The currency never changes.
pub async fn put(
    state: web::Data<ApiState>,
    request: HttpRequest,
    payload: web::Payload,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    let body = body::json(&request, payload, &state).await?;
    let terms = input::account_terms(&path, &body)?;
    let currency = terms.currency;
    let change = move |mut connection: PooledConnection| async move {
        accounts::open_or_limit(&mut connection, &terms.account_id, currency, terms.min_balance).await
    };
    let (opened, account) = state.read(change).await?;
    if account.state.currency != currency {
        let detail = format!("the account holds {}, which never changes", account.state.currency);
        return Err(Problem::new(Kind::CurrencyMismatch, detail));
    }
    let mut response = if opened { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(response.content_type("application/json").body(output::account(&account).map_err(unprintable)?))
}

/// The balance now, or as it was `at` a moment.
pub async fn balance(
    state: web::Data<ApiState>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let at = parameters.take("at", query::moment);
    parameters.end()?;
    let id = account_id(&path)?;
    let wanted = id.clone();
    // Before the reading: what is posted after it is not counted and must not be older than this.
    let asked_at = Utc::now().trunc_subsecs(6);
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
    // Of the future nobody knows more than of now.
    let as_of = at.map_or(known_until, |at| at.min(known_until));
    let body = output::balance(&id, &state, as_of).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}
