//! SASL authentication with a user name and a password.
//!
//! Guarantees: with SCRAM the broker must prove that it knows the password too.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::StrBytes,
};
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    broker::{BrokerError, kafka::connection::Connection},
    config::{Kafka, SaslMechanism},
};

/// The user that the client authenticates as.
pub(super) struct Credentials {
    mechanism: SaslMechanism,
    username: String,
    password: SecretString,
}

impl Credentials {
    /// Returns `None` when the configuration asks for no authentication.
    pub(super) fn from_config(settings: &Kafka) -> Option<Self> {
        let (username, password) = (settings.sasl_username.clone(), settings.sasl_password.clone());
        settings.sasl_mechanism.map(|mechanism| Self { mechanism, username, password })
    }

    /// Authenticates a new connection, before any other request.
    pub(super) async fn authenticate(&self, connection: &mut Connection) -> Result<(), BrokerError> {
        let mechanism = StrBytes::from_static_str(self.mechanism_name());
        let answer = connection.call(&SaslHandshakeRequest::default().with_mechanism(mechanism)).await?;
        if let Some(error) = ResponseError::try_from_code(answer.error_code) {
            let offered: Vec<&str> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
            let offered = if offered.is_empty() { "none".into() } else { offered.join(", ") };
            let reason = format!("{error:?}; this port offers these mechanisms: {offered}");
            return Err(self.failed(connection, reason));
        }
        let mut session = self.session().map_err(|reason| self.failed(connection, reason))?;
        let mut received: Option<Bytes> = None;
        loop {
            let mut message = Vec::new();
            let state = session
                .step(received.as_deref(), &mut message)
                .map_err(|error| self.failed(connection, error.to_string()))?;
            if state.has_sent_message() {
                received = Some(self.exchange(connection, message).await?);
            }
            if state.is_finished() {
                return Ok(());
            }
        }
    }

    async fn exchange(&self, connection: &mut Connection, message: Vec<u8>) -> Result<Bytes, BrokerError> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
        let answer = connection.call(&request).await?;
        match ResponseError::try_from_code(answer.error_code) {
            None => Ok(answer.auth_bytes),
            Some(error) => {
                let message = answer.error_message.map(|text| text.to_string());
                Err(self.failed(connection, message.unwrap_or_else(|| format!("{error:?}"))))
            }
        }
    }

    fn session(&self) -> Result<Session, String> {
        let password = self.password.expose_secret().to_owned();
        let config = SASLConfig::with_credentials(None, self.username.clone(), password)
            .map_err(|error| error.to_string())?;
        let name = Mechname::parse(self.mechanism_name().as_bytes()).map_err(|error| error.to_string())?;
        SASLClient::new(config).start_suggested(&[name]).map_err(|error| error.to_string())
    }

    fn mechanism_name(&self) -> &'static str {
        match self.mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    fn failed(&self, connection: &Connection, reason: String) -> BrokerError {
        let (address, username, mechanism) = (connection.address(), &self.username, self.mechanism_name());
        BrokerError::Refused {
            detail: format!("{address}: authentication as {username:?} by {mechanism} failed: {reason}"),
        }
    }
}
