//! `GET /risk-assessments`: assessments by level, rule, rule set, account and time, newest transaction first.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    cursor::CursorScope,
    output::{self, AssessedRow, AssessmentPageOut},
    problem::Problem,
    query::{self, Parameters},
    state::ApiState,
};
use crate::{
    domain::RiskLevel,
    repository::{
        Connection, PooledConnection, RepositoryError,
        assessments::{self, AssessmentFilter, StoredAssessment},
        transactions,
    },
};

/// List risk assessments, newest transaction first
#[utoipa::path(
    get, path = "/risk-assessments", tag = "risk",
    params(
        ("account_id" = Option<String>, Query, description = "Only assessments of this account", pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only assessments of transactions created at or after this moment"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only assessments of transactions created before this moment, which must not be before `from`"),
        ("level" = Option<RiskLevel>, Query, description = "Only assessments with this level"),
        ("rule" = Option<String>, Query, min_length = 1, max_length = 128, description = "Only assessments in which this live rule fired"),
        ("ruleset" = Option<String>, Query, min_length = 1, max_length = 128, description = "Only assessments by the rule set with this content hash"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "The page size. Default: 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page of the same query", max_length = 128)
    ),
    responses((status = 200, description = "A page", body = AssessmentPageOut))
)]
pub async fn list_assessments(
    state: web::Data<ApiState>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let cursors = CursorScope::new("risk-assessments", &parameters);
    let mut filter = AssessmentFilter {
        page: parameters.take_page(),
        level: parameters.take("level", query::risk_level),
        rule: parameters.take("rule", query::short_text),
        ruleset: parameters.take("ruleset", query::short_text),
    };
    let given = parameters.take("cursor", query::short_text);
    parameters.finish()?;
    if let Some(given) = given {
        filter.page.before = Some(cursors.decode(&given, &filter.page)?);
    }
    let read = move |mut connection: PooledConnection| async move {
        let page = assessments::page(&mut connection, &filter).await?;
        Ok((with_transactions(&mut connection, page.rows).await?, page.next))
    };
    let (rows, next) = state.read(read).await?;
    let next = next.map(|next| cursors.encode(next));
    output::json(HttpResponse::Ok(), &AssessmentPageOut::new(&rows, next)?)
}

async fn with_transactions(
    connection: &mut Connection,
    rows: Vec<StoredAssessment>,
) -> Result<Vec<AssessedRow>, RepositoryError> {
    let account_ids: Vec<&str> = rows.iter().map(|row| row.account_id.as_str()).collect();
    let account_seqs: Vec<i64> = rows.iter().map(|row| row.account_seq).collect();
    let transactions = transactions::find_all(connection, &account_ids, &account_seqs).await?;
    let pairs = rows.into_iter().zip(transactions);
    Ok(pairs.map(|(assessment, transaction)| AssessedRow { assessment, transaction }).collect())
}
