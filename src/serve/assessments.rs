//! `GET /risk-assessments`: newest transaction first, by level, rule, ruleset, account and time.

use actix_web::{HttpRequest, HttpResponse, web};
use uuid::Uuid;

use super::{
    cursor, output,
    problem::Problem,
    query::{self, Parameters},
    state::ApiState,
    transactions::unprintable,
};
use crate::repository::{
    PooledConnection,
    assessment_pages::{self, AssessmentFilter, AssessmentPosition},
};

/// A page of assessments.
pub async fn list(state: web::Data<ApiState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let mut filter = AssessmentFilter {
        account_id: parameters.take("account_id", query::account_id),
        from: parameters.take("from", query::moment),
        to: parameters.take("to", query::moment),
        level: parameters.take("level", query::assessed_level),
        rule: parameters.take("rule", query::short_text),
        ruleset: parameters.take("ruleset", query::short_text),
        limit: parameters.take("limit", query::limit).unwrap_or(query::LIMIT_DEFAULT),
        before_seq: None,
        before_id: None,
    };
    let given = parameters.take("cursor", query::short_text);
    parameters.end()?;
    let filters = format!("{filter:?}");
    if let Some(given) = given {
        match &filter.account_id {
            Some(_) => filter.before_seq = Some(i64::from_be_bytes(cursor::decode(&filters, &given)?)),
            None => filter.before_id = Some(Uuid::from_bytes(cursor::decode(&filters, &given)?)),
        }
    }
    let by_account = filter.account_id.is_some();
    let read = move |mut connection: PooledConnection| async move {
        assessment_pages::page(&mut connection, &filter).await
    };
    let page = state.read(read).await?;
    let next = page.next.map(|next| cursor::encode(&filters, &position(next, by_account)));
    let body = output::assessments(&page.rows, next.as_deref()).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

fn position(position: AssessmentPosition, by_account: bool) -> Vec<u8> {
    match by_account {
        true => position.account_seq.to_be_bytes().to_vec(),
        false => position.transaction_id.as_bytes().to_vec(),
    }
}
