//! The text of `database.url`: hides its password, and refuses a URL that could show it.
//!
//! Guarantee: the driver takes the first `@` of a URL for the end of the login. A URL with an `@` elsewhere is refused,
//! because the rest of the password would become the name of a host, which messages show.

use super::{ConfigError, secret::DATABASE_URL};

/// Printed in place of a secret.
pub(super) const HIDDEN: &str = "***";

const SCHEMES: [&str; 2] = ["postgres", "postgresql"];

/// Refuses a URL that another program may read differently, and one whose password is [`HIDDEN`]. An empty URL is
/// valid here, because some commands need no database.
pub(super) fn check(url: &str, origin: &str) -> Result<(), ConfigError> {
    let problem = match split_scheme(url) {
        Some((scheme, _)) if !SCHEMES.contains(&scheme) => "does not begin with postgres:// or postgresql://",
        Some((_, rest)) if is_ambiguous(rest) => {
            "has an @ or a ? that is not percent-encoded: in the user name, the password and the parameters, write %40 \
             for @ and %3F for ?"
        }
        _ if has_hidden_password(url) => {
            return Err(ConfigError::HiddenSecret { key: DATABASE_URL, origin: origin.to_owned() });
        }
        _ => return Ok(()),
    };
    Err(ConfigError::DatabaseUrl { origin: origin.to_owned(), problem })
}

/// Hides the passwords in `scheme://user:password@host/…?password=…`. If the text is not such a URL, hides all of it.
pub(super) fn hide(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = split_scheme(url).filter(|(_, rest)| !is_ambiguous(rest)) else {
        return HIDDEN.to_owned();
    };
    let (address, query) =
        rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
    let address = match address.split_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
            None => format!("{login}@{host}"),
        },
        None => address.to_owned(),
    };
    let hide_parameter = |parameter: &str| match password_parameter(parameter) {
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None => parameter.to_owned(),
    };
    match query {
        None => format!("{scheme}://{address}"),
        Some(query) => {
            let query: Vec<String> = query.split('&').map(hide_parameter).collect();
            format!("{scheme}://{address}?{}", query.join("&"))
        }
    }
}

/// Splits a URL behind its scheme. Returns None for the form `host=… password=…`.
fn split_scheme(url: &str) -> Option<(&str, &str)> {
    url.split_once("://").filter(|(scheme, _)| !scheme.contains('='))
}

fn is_ambiguous(rest: &str) -> bool {
    rest.split_once('@').is_some_and(|(login, server)| login.contains('?') || server.contains('@'))
}

/// Returns whether the URL names a user or a password.
pub(super) fn has_login(url: &str) -> bool {
    let Some((_, rest)) = split_scheme(url) else {
        let mut words = url.split(|character: char| character == '=' || character.is_whitespace());
        return words.any(|word| word == "user" || word == "password");
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let names_user =
        |parameter: &str| parameter.starts_with("user=") || password_parameter(parameter).is_some();
    address.contains('@') || query.split('&').any(names_user)
}

fn has_hidden_password(url: &str) -> bool {
    let Some((_, rest)) = split_scheme(url) else { return url == HIDDEN };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let login = address.split_once('@').and_then(|(login, _)| login.split_once(':'));
    login.into_iter().chain(query.split('&').filter_map(password_parameter)).any(|(_, value)| value == HIDDEN)
}

/// Returns name and value of a parameter that holds a password.
fn password_parameter(parameter: &str) -> Option<(&str, &str)> {
    parameter.split_once('=').filter(|(name, _)| name.contains("password"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        for (url, shown) in [
            ("postgres://u:hunter2@db:5432/ledger", "postgres://u:***@db:5432/ledger"),
            ("postgres://u:hun/ter2@db/l?sslmode=require", "postgres://u:***@db/l?sslmode=require"),
            ("postgres://u:hun@ter2@db/l", "***"),
            ("postgres://u:hun?ter2@db/l", "***"),
            ("postgres://u@db/l?password=hunter2&x=1", "postgres://u@db/l?password=***&x=1"),
            ("host=db password=hunter2", "***"),
            ("", ""),
        ] {
            assert_eq!(hide(url), shown);
        }
    }

    #[test]
    fn a_url_that_could_show_its_password_is_refused() {
        for (url, part) in [
            ("postgres://u:hun@ter2@db/l", "%40"),
            ("postgres://u:hun@ter/2@db/l", "%40"),
            ("postgres://u:hun@ter?2@db/l", "%40"),
            ("postgres://u:hun?ter2@db/l", "%3F"),
            ("postgres://db/l?user=u&password=hun@ter2", "%40"),
            ("postgre://u:hunter2@db/l?sslmode=require", "postgres://"),
        ] {
            let error = check(url, "LEDGER_DATABASE__URL").expect_err(url).to_string();
            assert!(error.contains(part) && error.contains("LEDGER_DATABASE__URL"), "{error}");
            assert!(!error.contains("hun") && !error.contains("ter2"), "{error}");
        }
        for url in [
            "",
            "postgres://u:hun%40ter2@db/l",
            "postgresql://db/l?sslmode=require",
            "host=db password=a://b",
        ] {
            check(url, "").expect(url);
        }
    }

    #[test]
    fn a_login_is_found() {
        for url in [
            "postgres://u@db/l",
            "postgres://db/l?user=u",
            "postgres://db/l?password=p",
            "host=h user=u",
            "host=h password = p",
        ] {
            assert!(has_login(url), "{url}");
        }
        for url in [
            "postgres://db:5432/l?sslmode=require",
            "postgres://db1,db2/users",
            "host=h dbname=l",
            "host=h dbname=users",
            "",
        ] {
            assert!(!has_login(url), "{url}");
        }
    }

    #[test]
    fn a_hidden_password_is_refused() {
        for url in ["***", "postgres://u:***@db/l", "postgres://u@db/l?x=1&password=***"] {
            assert!(matches!(check(url, ""), Err(ConfigError::HiddenSecret { .. })), "{url}");
        }
        check("postgres://u:a***@db/***", "").expect("another password");
    }
}
