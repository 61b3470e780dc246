//! `GET /risk-assessments`: newest transaction first, by level, rule, ruleset, account and time.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    cursor, output,
    problem::Problem,
    query::{self, Parameters},
    state::ApiState,
    transactions::unprintable,
};
use crate::repository::{
    PageRequest, PooledConnection,
    assessments::{self, AssessmentFilter},
};

/// A page of assessments.
pub async fn list(state: web::Data<ApiState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let mut filter = AssessmentFilter {
        page: parameters.take_page(),
        level: parameters.take("level", query::assessed_level),
        rule: parameters.take("rule", query::short_text),
        ruleset: parameters.take("ruleset", query::short_text),
    };
    let given = parameters.take("cursor", query::short_text);
    parameters.end()?;
    let filters = as_text(&filter);
    if let Some(given) = given {
        filter.page.before = Some(cursor::decode(&filters, &given, &filter.page)?);
    }
    let read = move |mut connection: PooledConnection| async move {
        assessments::page(&mut connection, &filter).await
    };
    let page = state.read(read).await?;
    let next = page.next.map(|next| cursor::encode(&filters, next));
    let body = output::assessments(&page.rows, next.as_deref()).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// What a cursor is bound to; see [`cursor`] for why the text never changes.
fn as_text(filter: &AssessmentFilter) -> String {
    let AssessmentFilter { page, level, rule, ruleset } = filter;
    let PageRequest { account_id, from, to, limit, .. } = page;
    format!(
        "AssessmentFilter {{ account_id: {account_id:?}, from: {from:?}, to: {to:?}, level: {level:?}, \
         rule: {rule:?}, ruleset: {ruleset:?}, limit: {limit}, before_seq: None, before_id: None }}"
    )
}
