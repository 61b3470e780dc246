//! TLS to PostgreSQL: the meaning of the URL's `sslmode`, and the trusted certificates.
//!
//! There are two modes: plain text (`disable`, or no `sslmode`), and TLS that verifies certificate chain *and* host name
//! (`verify-full`; `verify-ca` and `require` are accepted and are as strict). `prefer` and `allow` are refused, because
//! they may fall back to plain text. A CA file with a URL that does not ask for TLS is refused too.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::config::SslMode;

use crate::config::Database;

/// Returns the URL with the modes of the driver. The driver's only mode that enforces TLS is `require`. With our
/// [`client_config`] that mode verifies chain and host name.
pub(super) fn driver_url(url: &str) -> String {
    let (before, parameters) = split_parameters(url);
    let parameters = parameters
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require");
    format!("{before}{parameters}")
}

/// Returns plain text or TLS. Neither is a fallback of the other.
pub(super) fn mode(
    url: &str,
    has_ca_file: bool,
    options: &tokio_postgres::Config,
) -> Result<SslMode, String> {
    let says_so = split_parameters(url).1.contains("sslmode");
    match options.get_ssl_mode() {
        SslMode::Prefer if says_so => {
            Err("sslmode=prefer may fall back to plain text; use disable or verify-full".into())
        }
        // The driver's default for a URL without `sslmode`. Here it means plain text.
        SslMode::Prefer | SslMode::Disable => match has_ca_file {
            false => Ok(SslMode::Disable),
            true => Err("database.tls_ca_file is set, but the URL does not ask for TLS; add \
                            sslmode=verify-full to it"
                .into()),
        },
        mode => Ok(mode),
    }
}

/// Splits a connection string before its parameters. In a URL they follow the question mark; the other form consists of
/// parameters only.
fn split_parameters(url: &str) -> (&str, &str) {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    match url.find('?') {
        Some(start) if is_url => url.split_at(start),
        None if is_url => (url, ""),
        _ => ("", url),
    }
}

/// Returns a TLS configuration that verifies chain and host name against `database.tls_ca_file`, or against the Mozilla
/// roots by default. The file is read for each new connection, so a renewed one needs no restart.
pub(super) fn client_config(database: &Database) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &database.tls_ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| {
                format!("cannot read database.tls_ca_file {}: {error}", path.display())
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"it holds no certificate"));
            }
        }
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_parameters_of_a_url_are_rewritten() {
        let url = "postgres://u:sslmode=verify-full@h/d?x=1&sslmode=verify-full";
        assert_eq!(driver_url(url), "postgres://u:sslmode=verify-full@h/d?x=1&sslmode=require");
        assert_eq!(driver_url("host=h sslmode=verify-ca"), "host=h sslmode=require");
        assert_eq!(driver_url("postgres://h/d"), "postgres://h/d");
    }
}
