//! A connection to one broker.
//!
//! Requests of fixed versions that every Kafka since 3.0 speaks, one at a time, answers bounded in size; within an answer
//! a broker is believed, as it is with the records themselves. What comes
//! before the first one is in [`super::handshake`]. Deliberately absent: retries, and a time limit for each call, which
//! are the caller's.

use std::{io::ErrorKind, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
        FetchRequest, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest,
        ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
        ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes, encode_request_header_into_buffer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{BrokerError, handshake, security::Security};

const MIB: usize = 1024 * 1024;
/// Before each frame stands how long it is.
const LENGTH_BYTES: usize = 4;
/// A larger answer is not worth keeping its memory for the next one.
const KEPT_BYTES_MAX: usize = MIB / 4;
/// With a client's name of an ordinary length.
const HEADER_BYTES_MAX: usize = 100;

/// A request that is spoken here, in the one version that is spoken.
pub(super) trait Request: Encodable + Sync {
    const KEY: ApiKey;
    const VERSION: i16;
    const ANSWER_BYTES_MAX: usize = 4 * MIB;
    type Answer: Decodable + HeaderVersion;

    /// For how long the broker does not listen, if it said nothing else.
    fn throttled(_answer: &Self::Answer) -> Option<Duration> {
        None
    }
}

impl Request for ProduceRequest {
    const KEY: ApiKey = ApiKey::Produce;
    const VERSION: i16 = 8;
    type Answer = ProduceResponse;
}

impl Request for FetchRequest {
    const KEY: ApiKey = ApiKey::Fetch;
    const VERSION: i16 = 11;
    /// A broker gives one batch at least, however few bytes it is asked for.
    const ANSWER_BYTES_MAX: usize = 128 * MIB;
    type Answer = FetchResponse;

    fn throttled(answer: &FetchResponse) -> Option<Duration> {
        let millis = u64::try_from(answer.throttle_time_ms).unwrap_or(0);
        (millis > 0 && answer.error_code == 0 && answer.responses.is_empty())
            .then(|| Duration::from_millis(millis))
    }
}

impl Request for ListOffsetsRequest {
    const KEY: ApiKey = ApiKey::ListOffsets;
    const VERSION: i16 = 5;
    type Answer = ListOffsetsResponse;
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

impl Request for MetadataRequest {
    const KEY: ApiKey = ApiKey::Metadata;
    const VERSION: i16 = 7;
    type Answer = MetadataResponse;
}

impl Request for DescribeConfigsRequest {
    const KEY: ApiKey = ApiKey::DescribeConfigs;
    const VERSION: i16 = 2;
    type Answer = DescribeConfigsResponse;
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

/// `host:port`, as a broker tells it.
pub(super) fn address(host: &str, port: i32) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What carries the requests: TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to one broker of the cluster.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    address: String,
    client_id: String,
    correlation_id: i32,
    /// For answers; each reader lets it go before the next one comes.
    buffer: BytesMut,
}

impl Wire {
    /// Opens a connection to the first of `addresses` that answers and takes our credentials, within `limit` in all:
    /// one that is silent has its share of it and no more. What is refused tells more than what is silent.
    pub(super) async fn open(
        addresses: &[String],
        security: &Security,
        client_id: &str,
        limit: Duration,
    ) -> Result<Self, BrokerError> {
        let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut why = BrokerError::Unavailable { detail: "no broker address".into() };
        for address in addresses {
            let opened = timeout(share, Self::open_one(address, security, client_id)).await;
            let silent =
                || BrokerError::Unavailable { detail: format!("{address}: no answer within {share:?}") };
            match opened.unwrap_or_else(|_| Err(silent())) {
                Ok(wire) => return Ok(wire),
                Err(error) if why.is_transient() => why = error,
                Err(_) => {}
            }
        }
        Err(why)
    }

    async fn open_one(address: &str, security: &Security, client_id: &str) -> Result<Self, BrokerError> {
        let unavailable =
            |error: std::io::Error| BrokerError::Unavailable { detail: format!("{address}: {error}") };
        let tcp = TcpStream::connect(address).await.map_err(unavailable)?;
        tcp.set_nodelay(true).map_err(unavailable)?;
        let stream: Box<dyn Stream> = match &security.tls {
            None => Box::new(tcp),
            Some(tls) => handshake::encrypt(address, tcp, tls.clone()).await?,
        };
        let mut wire = Self {
            stream,
            address: address.to_owned(),
            client_id: client_id.to_owned(),
            correlation_id: 0,
            buffer: BytesMut::new(),
        };
        if let Some(sasl) = &security.sasl {
            handshake::authenticate(&mut wire, sasl).await?;
        }
        // No topics: whether it talks to us at all. Not every port that wants something else has said so until now.
        wire.call(&MetadataRequest::default().with_topics(Some(Vec::new()))).await?;
        Ok(wire)
    }

    /// `host:port` that it is open to.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> BrokerError {
        BrokerError::Unavailable { detail: format!("{}: {error}", self.address) }
    }

    /// Sends one request and reads its answer.
    pub(super) async fn call<R: Request>(&mut self, request: &R) -> Result<R::Answer, BrokerError> {
        self.correlation_id += 1;
        let frame = self.frame(request).map_err(|error| self.unavailable(&error))?;
        let mut answer = match self.exchange(&frame, R::ANSWER_BYTES_MAX).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.unavailable(&self.told(&error))),
        };
        let header = ResponseHeader::decode(&mut answer, R::Answer::header_version(R::VERSION))
            .map_err(|error| self.unavailable(&error))?;
        if header.correlation_id != self.correlation_id {
            return Err(self.unavailable(&"an answer to another request"));
        }
        R::Answer::decode(&mut answer, R::VERSION).map_err(|error| self.unavailable(&error))
    }

    async fn exchange(&mut self, frame: &[u8], bytes_max: usize) -> std::io::Result<Bytes> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await?;
        let length = self.stream.read_i32().await?;
        let length = usize::try_from(length).ok().filter(|length| *length <= bytes_max);
        let Some(length) = length else { return Err(ErrorKind::InvalidData.into()) };
        if length > KEPT_BYTES_MAX {
            let mut answer = vec![0; length];
            self.stream.read_exact(&mut answer).await?;
            return Ok(answer.into());
        }
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer).await?;
        Ok(self.buffer.split().freeze())
    }

    /// A broker that wants TLS or authentication does not say so: it hangs up on the first request, or answers in TLS.
    fn told(&self, error: &std::io::Error) -> String {
        let is_first = self.correlation_id == 1;
        match error.kind() {
            ErrorKind::InvalidData if is_first => {
                "an answer of impossible length; does this port speak TLS (broker.kafka.tls)?".into()
            }
            ErrorKind::InvalidData => "an answer of impossible length".into(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if is_first => {
                "it hung up on the first request; does this port want TLS (broker.kafka.tls) or authentication \
                 (broker.kafka.sasl_mechanism)?"
                    .into()
            }
            _ => error.to_string(),
        }
    }

    fn frame<R: Request>(&self, request: &R) -> anyhow::Result<BytesMut> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY as i16)
            .with_request_api_version(R::VERSION)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_string(self.client_id.clone())));
        let mut frame =
            BytesMut::with_capacity(LENGTH_BYTES + HEADER_BYTES_MAX + request.compute_size(R::VERSION)?);
        frame.put_bytes(0, LENGTH_BYTES);
        encode_request_header_into_buffer(&mut frame, &header)?;
        request.encode(&mut frame, R::VERSION)?;
        let length = i32::try_from(frame.len() - LENGTH_BYTES)?;
        if let Some(gap) = frame.get_mut(..LENGTH_BYTES) {
            gap.copy_from_slice(&length.to_be_bytes());
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_can_be_connected_to() {
        assert_eq!(address("kafka-1.example", 9092), "kafka-1.example:9092");
        assert_eq!(address("::1", 9092), "[::1]:9092");
    }
}
