//! TLS by rustls.
//!
//! Guarantees: the certificate of the broker must be issued for its host by a trusted authority.
//! Deliberately absent: client certificates, and a setting that disables the verification.

use std::{io::ErrorKind, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    broker::{BrokerError, kafka::connection::Stream},
    config::Kafka,
};

/// Trusts `broker.kafka.tls_ca_file`, or the Mozilla roots when it is empty.
pub(super) fn client_config(settings: &Kafka) -> Result<Arc<ClientConfig>, BrokerError> {
    let mut roots = RootCertStore::empty();
    match &settings.tls_ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| BrokerError::Refused {
                detail: format!("cannot read broker.kafka.tls_ca_file {}: {error}", path.display()),
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
        }
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Starts TLS on `tcp` and verifies the certificate of the broker.
pub(super) async fn encrypt(
    address: &str,
    tcp: TcpStream,
    config: Arc<ClientConfig>,
) -> Result<Box<dyn Stream>, BrokerError> {
    let name = ServerName::try_from(host(address).to_owned()).map_err(|error| {
        refused(format!("{address}: no certificate can be issued for this name: {error}"))
    })?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(explain(address, &error)),
    }
}

/// Returns the name or address that the certificate must be issued for.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn refused(detail: String) -> BrokerError {
    BrokerError::Refused { detail }
}

fn explain(address: &str, error: &std::io::Error) -> BrokerError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error @ rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            refused(format!("{address}: {error}; its authority must be in broker.kafka.tls_ca_file"))
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            refused(format!("{address} does not speak TLS, but broker.kafka.tls is true"))
        }
        Some(error) => refused(format!("{address}: {error}")),
        None if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            let detail = format!(
                "{address} closed the connection during the TLS handshake; broker.kafka.tls is true, does this port speak TLS?"
            );
            BrokerError::Unavailable { detail }
        }
        None => BrokerError::Unavailable { detail: format!("{address}: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_part_before_the_port() {
        for (address, expected) in [("kafka-1.example:9093", "kafka-1.example"), ("[::1]:9093", "::1")] {
            assert_eq!(host(address), expected);
            assert!(ServerName::try_from(host(address)).is_ok());
        }
    }
}
