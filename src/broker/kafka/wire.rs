//! One short connection for what rskafka cannot say: topics with settings, and a group's positions.
//!
//! Requests of fixed, widely supported versions, one at a time, answers bounded in size. Deliberately absent: SCRAM
//! (such clusters get topics without settings and no mirrored positions), retries and time limits, which are the caller's.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        OffsetCommitRequest, OffsetCommitResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes, encode_request_header_into_buffer},
};
use rskafka::client::SaslConfig;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{BrokerError, security::Security};

const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A request that is spoken here, in the one version that is spoken.
pub(super) trait Request: Encodable {
    const KEY: ApiKey;
    const VERSION: i16;
    type Answer: Decodable + HeaderVersion;
}

impl Request for SaslHandshakeRequest {
    const KEY: ApiKey = ApiKey::SaslHandshake;
    const VERSION: i16 = 1;
    type Answer = SaslHandshakeResponse;
}

impl Request for SaslAuthenticateRequest {
    const KEY: ApiKey = ApiKey::SaslAuthenticate;
    const VERSION: i16 = 1;
    type Answer = SaslAuthenticateResponse;
}

impl Request for CreateTopicsRequest {
    const KEY: ApiKey = ApiKey::CreateTopics;
    const VERSION: i16 = 5;
    type Answer = CreateTopicsResponse;
}

impl Request for FindCoordinatorRequest {
    const KEY: ApiKey = ApiKey::FindCoordinator;
    const VERSION: i16 = 4;
    type Answer = FindCoordinatorResponse;
}

impl Request for OffsetCommitRequest {
    const KEY: ApiKey = ApiKey::OffsetCommit;
    const VERSION: i16 = 8;
    type Answer = OffsetCommitResponse;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to one broker of the cluster.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    client_id: String,
    correlation_id: i32,
}

fn unavailable(error: &dyn std::fmt::Display) -> BrokerError {
    BrokerError::Unavailable { detail: error.to_string() }
}

impl Wire {
    /// Whether these settings can be spoken here.
    pub(super) fn speaks(security: &Security) -> bool {
        matches!(security.sasl, None | Some(SaslConfig::Plain(_)))
    }

    /// Opens a connection to the first of `addresses` that answers.
    pub(super) async fn open(
        addresses: &[String],
        security: &Security,
        client_id: &str,
    ) -> Result<Self, BrokerError> {
        let mut last = BrokerError::Unavailable { detail: "no broker address".into() };
        for address in addresses {
            match Self::open_one(address, security, client_id).await {
                Ok(wire) => return Ok(wire),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn open_one(address: &str, security: &Security, client_id: &str) -> Result<Self, BrokerError> {
        let failed = |error: &dyn std::fmt::Display| unavailable(&format!("{address}: {error}"));
        let tcp = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        let stream: Box<dyn Stream> = match &security.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
                let connector = TlsConnector::from(tls.clone());
                Box::new(connector.connect(name, tcp).await.map_err(|error| failed(&error))?)
            }
        };
        let mut wire = Self { stream, client_id: client_id.to_owned(), correlation_id: 0 };
        if let Some(SaslConfig::Plain(credentials)) = &security.sasl {
            wire.authenticate(&credentials.username, &credentials.password).await?;
        }
        Ok(wire)
    }

    async fn authenticate(&mut self, username: &str, password: &str) -> Result<(), BrokerError> {
        let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        let answer = self.call(&handshake).await?;
        if answer.error_code != 0 {
            return Err(BrokerError::Refused { detail: "the broker does not offer SASL PLAIN".into() });
        }
        let token = format!("\0{username}\0{password}");
        let authenticate = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
        let answer = self.call(&authenticate).await?;
        match answer.error_code {
            0 => Ok(()),
            code => {
                Err(BrokerError::Refused { detail: format!("SASL authentication failed (error {code})") })
            }
        }
    }

    /// Sends one request and reads its answer.
    pub(super) async fn call<R: Request>(&mut self, request: &R) -> Result<R::Answer, BrokerError> {
        self.correlation_id += 1;
        let frame = self.frame(request).map_err(|error| unavailable(&error))?;
        self.stream.write_all(&frame).await.map_err(|error| unavailable(&error))?;
        self.stream.flush().await.map_err(|error| unavailable(&error))?;
        let length = self.stream.read_i32().await.map_err(|error| unavailable(&error))?;
        let length = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
        let length = length.ok_or_else(|| unavailable(&"an answer of impossible length"))?;
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await.map_err(|error| unavailable(&error))?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, R::Answer::header_version(R::VERSION))
            .map_err(|error| unavailable(&error))?;
        if header.correlation_id != self.correlation_id {
            return Err(unavailable(&"an answer to another request"));
        }
        R::Answer::decode(&mut answer, R::VERSION).map_err(|error| unavailable(&error))
    }

    fn frame<R: Request>(&self, request: &R) -> anyhow::Result<Bytes> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY as i16)
            .with_request_api_version(R::VERSION)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_string(self.client_id.clone())));
        let mut body = BytesMut::new();
        encode_request_header_into_buffer(&mut body, &header)?;
        request.encode(&mut body, R::VERSION)?;
        let mut frame = BytesMut::with_capacity(body.len() + 4);
        frame.put_i32(i32::try_from(body.len())?);
        frame.put(body);
        Ok(frame.freeze())
    }
}
