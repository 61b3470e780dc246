//! `GET /openapi.json`, and `GET /docs/`: a page to try the API, unless `serve.docs` is false. All its files are in the
//! binary.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use utoipa_swagger_ui::Config;

use super::{
    openapi::description,
    output,
    problem::{INTERNAL_DETAIL, Problem, ProblemKind},
    query::Parameters,
};

/// The path of the description.
pub const DESCRIPTION: &str = "/openapi.json";
/// The path of the page. It ends in a slash, so that the relative paths of its files work.
pub const PAGE: &str = "/docs/";
/// Browsers reload the page after an hour, so they soon see a new version of the binary.
const CACHE_CONTROL: &str = "max-age=3600";

/// Returns the OpenAPI description.
pub async fn openapi(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    let description = description().map_err(|error| Problem::not_serializable(&error))?;
    output::json(HttpResponse::Ok(), &description)
}

/// Redirects to another path.
pub async fn redirect(request: HttpRequest, target: &'static str) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    Ok(HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, target)).finish())
}

/// Returns a file of the page.
pub async fn file(request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    let config = Arc::new(Config::from(DESCRIPTION).try_it_out_enabled(true));
    let found = utoipa_swagger_ui::serve(&path, config).map_err(|error| {
        tracing::error!(%error, "a file of the documentation page cannot be created");
        Problem::new(ProblemKind::Internal, INTERNAL_DETAIL)
    })?;
    let file = found
        .ok_or_else(|| Problem::new(ProblemKind::NotFound, "the documentation page has no such file"))?;
    let mut response = HttpResponse::Ok();
    response.content_type(file.content_type).insert_header((header::CACHE_CONTROL, CACHE_CONTROL));
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(file.bytes.into_owned()))
}
