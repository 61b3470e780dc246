//! `GET /accounts/{id}` and `GET /accounts/{id}/balance`.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{SubsecRound, Utc};

use super::{
    output,
    problem::{Kind, Problem},
    query::{self, Parameters},
    state::ApiState,
    transactions::unprintable,
};
use crate::{domain::AccountId, repository::accounts};

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
    let found =
        state.read(move |mut connection| async move { accounts::find(&mut connection, &id).await }).await?;
    let body = output::account(&found.ok_or_else(missing)?).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
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
    let found = state
        .read(move |mut connection| async move {
            match at {
                None => Ok(accounts::find(&mut connection, &wanted).await?.map(|account| account.state)),
                Some(at) => accounts::state_at(&mut connection, &wanted, at).await,
            }
        })
        .await?;
    let as_of = at.unwrap_or_else(|| Utc::now().trunc_subsecs(6));
    let body = output::balance(&id, &found.ok_or_else(missing)?, as_of).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}
