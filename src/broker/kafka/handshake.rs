//! What happens on a connection before the first request: TLS, then SASL. Every way in which that fails has a line that
//! says which setting to look at.
//!
//! Guarantees: nothing is sent in plain text where TLS is asked for; a certificate that is not for this host by one of
//! the trusted authorities ends the attempt; with SCRAM the broker has to prove that it knows the password too.
//! Deliberately absent: client certificates, and switching any check off.

use std::{io::ErrorKind, sync::Arc};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::StrBytes,
};
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session};
use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    BrokerError,
    security::Sasl,
    wire::{Stream, Wire},
};

fn refused(detail: impl Into<String>) -> BrokerError {
    BrokerError::Refused { detail: detail.into() }
}

/// The name or address that the broker's certificate must be for.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// TLS over `tcp`, with the broker's certificate checked.
pub(super) async fn encrypt(
    address: &str,
    tcp: TcpStream,
    tls: Arc<ClientConfig>,
) -> Result<Box<dyn Stream>, BrokerError> {
    let name = ServerName::try_from(host(address).to_owned())
        .map_err(|error| refused(format!("{address} is no name that a certificate can be for: {error}")))?;
    match TlsConnector::from(tls).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(tls_error(address, &error)),
    }
}

fn tls_error(address: &str, error: &std::io::Error) -> BrokerError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error @ rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            refused(format!("{address}: {error}; its authority must be in broker.kafka.tls_ca_file"))
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            refused(format!("{address} does not speak TLS, which broker.kafka.tls asks for"))
        }
        Some(error) => refused(format!("{address}: {error}")),
        None if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            let detail = format!(
                "{address} hung up on TLS, which broker.kafka.tls asks for; does this port speak it?"
            );
            BrokerError::Unavailable { detail }
        }
        None => BrokerError::Unavailable { detail: format!("{address}: {error}") },
    }
}

/// Says who we are, and has it confirmed.
pub(super) async fn authenticate(wire: &mut Wire, sasl: &Sasl) -> Result<(), BrokerError> {
    let Sasl { mechanism, username, password } = sasl;
    let failed = |address: &str, why: String| {
        refused(format!("{address}: authentication as {username:?} by {mechanism} failed: {why}"))
    };
    let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    let answer = wire.call(&handshake).await?;
    if let Some(error) = ResponseError::try_from_code(answer.error_code) {
        let offered: Vec<&str> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
        let offered = if offered.is_empty() { "none".into() } else { offered.join(", ") };
        return Err(failed(wire.address(), format!("{error:?}; mechanisms offered on this port: {offered}")));
    }
    let mut session =
        session(mechanism, username, password.expose_secret()).map_err(|why| failed(wire.address(), why))?;
    let mut received: Option<Bytes> = None;
    loop {
        let mut message = Vec::new();
        let state = session
            .step(received.as_deref(), &mut message)
            .map_err(|error| failed(wire.address(), error.to_string()))?;
        if state.has_sent_message() {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
            let answer = wire.call(&request).await?;
            if let Some(error) = ResponseError::try_from_code(answer.error_code) {
                let said = answer.error_message.map_or_else(|| format!("{error:?}"), |text| text.to_string());
                return Err(failed(wire.address(), said));
            }
            received = Some(answer.auth_bytes);
        }
        if state.is_finished() {
            return Ok(());
        }
    }
}

fn session(mechanism: &str, username: &str, password: &str) -> Result<Session, String> {
    let config = SASLConfig::with_credentials(None, username.to_owned(), password.to_owned())
        .map_err(|error| error.to_string())?;
    let name = Mechname::parse(mechanism.as_bytes()).map_err(|error| error.to_string())?;
    SASLClient::new(config).start_suggested(&[name]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        for (address, expected) in [("kafka-1.example:9093", "kafka-1.example"), ("[::1]:9093", "::1")] {
            assert_eq!(host(address), expected);
            assert!(ServerName::try_from(host(address)).is_ok());
        }
    }
}
