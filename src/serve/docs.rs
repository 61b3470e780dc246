//! `GET /openapi.json`, and `GET /docs/`: a page to try the API, with all of its assets out of the binary.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use utoipa_swagger_ui::Config;

use super::{
    openapi::description,
    output,
    problem::{Problem, ProblemKind},
    query::Parameters,
};

const DESCRIPTION: &str = "/openapi.json";
/// Whoever tries the API reads the page more than once; a new version of the binary is seen within the hour.
const CACHE_CONTROL: &str = "max-age=3600";

/// The description, as a client generator or the page asks for it.
pub async fn openapi(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    let description = description().map_err(|error| Problem::not_printable(&error))?;
    output::json(HttpResponse::Ok(), &description)
}

/// The page's own address ends in a slash, so that its files are found beside it.
pub async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    Ok(HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, "/docs/")).finish())
}

/// A file of the page.
pub async fn file(request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    let config = Arc::new(Config::from(DESCRIPTION).try_it_out_enabled(true));
    let found = utoipa_swagger_ui::serve(&path, config).map_err(|error| {
        tracing::error!(%error, "the page cannot be made");
        Problem::new(ProblemKind::Internal, "this is a bug; the server's log tells more")
    })?;
    let file = found.ok_or_else(|| Problem::new(ProblemKind::NotFound, "the page has no such file"))?;
    let mut response = HttpResponse::Ok();
    response.content_type(file.content_type).insert_header((header::CACHE_CONTROL, CACHE_CONTROL));
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(file.bytes.into_owned()))
}
