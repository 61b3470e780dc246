//! How a connection to Kafka is protected: TLS by rustls, SASL by name and password. TLS that is asked for never falls
//! back to plain text, and there is no TLS without verification.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::SecretString;

use super::BrokerError;
use crate::config::Kafka;

/// What every connection to the cluster uses.
#[derive(Clone)]
pub(super) struct Security {
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) sasl: Option<Sasl>,
}

/// Whom to authenticate as, and how.
#[derive(Clone)]
pub(super) struct Sasl {
    /// The mechanism by the name that Kafka knows.
    pub(super) mechanism: &'static str,
    pub(super) username: String,
    pub(super) password: SecretString,
}

const PLAIN: &str = "PLAIN";

impl Security {
    /// Reads the files that the configuration names.
    pub(super) fn from_config(settings: &Kafka) -> Result<Self, BrokerError> {
        let tls = settings.tls.then(|| tls_config(settings)).transpose()?;
        let sasl = sasl_config(settings);
        if tls.is_none() && sasl.as_ref().is_some_and(|sasl| sasl.mechanism == PLAIN) {
            tracing::warn!(
                "broker.kafka.sasl_mechanism = \"plain\" without tls: whoever listens reads the password"
            );
        }
        Ok(Self { tls, sasl })
    }
}

fn tls_config(settings: &Kafka) -> Result<Arc<ClientConfig>, BrokerError> {
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

fn sasl_config(settings: &Kafka) -> Option<Sasl> {
    let mechanism = match settings.sasl_mechanism.as_str() {
        "plain" => PLAIN,
        "scram-sha-256" => "SCRAM-SHA-256",
        "scram-sha-512" => "SCRAM-SHA-512",
        _ => return None,
    };
    let (username, password) = (settings.sasl_username.clone(), settings.sasl_password.clone());
    Some(Sasl { mechanism, username, password })
}
