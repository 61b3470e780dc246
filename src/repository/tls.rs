//! TLS to PostgreSQL: what the URL's `sslmode` means here, and whom to trust.
//!
//! There are two modes only: plain text (`disable`, or no `sslmode`) and TLS with the certificate's chain *and* host
//! name verified (`verify-full`; `verify-ca` and `require` are taken and are as strict). `prefer` and `allow` are
//! refused, because they may fall back to plain text, and so is a CA file beside a URL that asks for no TLS.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::config::SslMode;

use crate::config::Database;

/// The URL as the driver knows it: of the modes with TLS it has `require` alone, which verifies all with our
/// [`client_config`].
pub(super) fn driver_url(url: &str) -> String {
    let (before, parameters) = split_parameters(url);
    let parameters = parameters
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require");
    format!("{before}{parameters}")
}

/// Plain text or TLS, never the one for want of the other.
pub(super) fn mode(
    url: &str,
    has_ca_file: bool,
    options: &tokio_postgres::Config,
) -> Result<SslMode, String> {
    let says_so = split_parameters(url).1.contains("sslmode");
    match options.get_ssl_mode() {
        SslMode::Prefer if says_so => {
            Err("sslmode=prefer may fall back to plain text; say disable or verify-full".into())
        }
        // The driver's own default; here it is plain text, which nobody can mistake for more.
        SslMode::Prefer | SslMode::Disable => match has_ca_file {
            false => Ok(SslMode::Disable),
            true => Err("database.tls_ca_file is set, but the URL does not ask for TLS; add \
                            sslmode=verify-full to it"
                .into()),
        },
        mode => Ok(mode),
    }
}

/// A URL's parameters begin behind its question mark; the other form of a connection string is nothing but parameters.
fn split_parameters(url: &str) -> (&str, &str) {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    match url.find('?') {
        Some(start) if is_url => url.split_at(start),
        None if is_url => (url, ""),
        _ => ("", url),
    }
}

/// Verifies chain and host name against `database.tls_ca_file`, or the Mozilla roots where none is given. The file
/// is read for each new connection, so a renewed one is taken up without a restart.
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
