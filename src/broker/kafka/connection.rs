//! A connection to one broker of the cluster: one request at a time, each answer bounded in size.
//!
//! The content of an answer is trusted, as the records themselves are.
//! Deliberately absent: retries and time limits, which belong to the caller.

use std::{collections::HashMap, io::ErrorKind, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiVersionsRequest, RequestHeader, ResponseHeader},
    protocol::{Decodable, HeaderVersion, encode_request_header_into_buffer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::requests::{Request, text};
use crate::broker::BrokerError;

/// Every frame begins with its length.
const LENGTH_BYTES: usize = 4;
/// The buffer of a larger answer is not kept for the next one.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Enough for a client id of ordinary length.
const HEADER_BYTES_MAX: usize = 100;

/// The byte stream that carries the requests: TCP, or TLS over TCP.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection to one broker.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    address: String,
    client_id: String,
    correlation_id: i32,
    /// Memory for answers. A decoded answer releases it before the next one arrives.
    buffer: BytesMut,
    /// The broker reads no request from this connection before this moment.
    throttled_until: Option<Instant>,
    /// The newest version of each request that the broker understands. Empty until the broker is asked.
    newest_versions: HashMap<i16, i16>,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>, address: &str, client_id: &str) -> Self {
        Self {
            stream,
            address: address.to_owned(),
            client_id: client_id.to_owned(),
            correlation_id: 0,
            buffer: BytesMut::new(),
            throttled_until: None,
            newest_versions: HashMap::new(),
        }
    }

    /// Asks which versions of the requests the broker understands.
    pub(super) async fn learn_versions(&mut self) -> Result<(), BrokerError> {
        let answer = self.call(&ApiVersionsRequest::default()).await?;
        self.newest_versions = answer.api_keys.iter().map(|api| (api.api_key, api.max_version)).collect();
        Ok(())
    }

    /// Returns the `host:port` of the broker.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Returns for how long the broker will not read from this connection.
    ///
    /// A broker that enforces a quota answers at once, says for how long it will not read, and stops reading. A request
    /// sent during that time would time out and be repeated, although the broker handles it later: a produce request
    /// would then publish its records twice.
    pub(super) fn throttle_time_left(&self) -> Duration {
        self.throttled_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Sends one request and reads its answer.
    pub(super) async fn call<R: Request>(&mut self, request: &R) -> Result<R::Answer, BrokerError> {
        self.correlation_id += 1;
        let newest = self.newest_versions.get(&(R::KEY as i16)).copied().unwrap_or_default();
        let version = request.version(newest);
        let frame = self.frame(request, version).map_err(|error| self.unavailable(&error))?;
        let mut answer = match self.exchange(&frame, R::ANSWER_BYTES_MAX).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.unavailable(&self.explain(&error))),
        };
        let header = ResponseHeader::decode(&mut answer, R::Answer::header_version(version))
            .map_err(|error| self.unavailable(&error))?;
        if header.correlation_id != self.correlation_id {
            return Err(self.unavailable(&"the answer belongs to another request"));
        }
        let answer = R::Answer::decode(&mut answer, version).map_err(|error| self.unavailable(&error))?;
        self.note_throttling::<R>(&answer);
        Ok(answer)
    }

    fn note_throttling<R: Request>(&mut self, answer: &R::Answer) {
        let throttle_time_ms = u64::try_from(R::throttle_time_ms(answer)).unwrap_or(0);
        let throttle_time = Duration::from_millis(throttle_time_ms);
        self.throttled_until = (!throttle_time.is_zero()).then(|| Instant::now() + throttle_time);
        if !throttle_time.is_zero() {
            tracing::debug!(address = self.address, request = ?R::KEY, ?throttle_time, "throttled by a quota");
            metrics::histogram!("ledger_broker_throttle_seconds", "request" => format!("{:?}", R::KEY))
                .record(throttle_time);
        }
    }

    async fn exchange(&mut self, frame: &[u8], bytes_max: usize) -> std::io::Result<Bytes> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await?;
        let length = self.stream.read_i32().await?;
        let length = usize::try_from(length).ok().filter(|length| *length <= bytes_max);
        let Some(length) = length else { return Err(ErrorKind::InvalidData.into()) };
        if length > BUFFER_BYTES_MAX {
            let mut answer = vec![0; length];
            self.stream.read_exact(&mut answer).await?;
            return Ok(answer.into());
        }
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer).await?;
        Ok(self.buffer.split().freeze())
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> BrokerError {
        BrokerError::Unavailable { detail: format!("{}: {error}", self.address) }
    }

    /// Explains a failed exchange. A broker that expects TLS or authentication does not say so: it closes the
    /// connection at the first request, or answers in TLS.
    fn explain(&self, error: &std::io::Error) -> String {
        let is_first = self.correlation_id == 1;
        match error.kind() {
            ErrorKind::InvalidData if is_first => {
                "the answer has an impossible length; does this port speak TLS (broker.kafka.tls)?".into()
            }
            ErrorKind::InvalidData => "the answer has an impossible length".into(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if is_first => {
                "the broker closed the connection at the first request; does this port expect TLS \
                 (broker.kafka.tls) or authentication (broker.kafka.sasl_mechanism)?"
                    .into()
            }
            _ => error.to_string(),
        }
    }

    fn frame<R: Request>(&self, request: &R, version: i16) -> anyhow::Result<BytesMut> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(text(&self.client_id)));
        let mut frame =
            BytesMut::with_capacity(LENGTH_BYTES + HEADER_BYTES_MAX + request.compute_size(version)?);
        frame.put_bytes(0, LENGTH_BYTES);
        encode_request_header_into_buffer(&mut frame, &header)?;
        request.encode(&mut frame, version)?;
        let length = i32::try_from(frame.len() - LENGTH_BYTES)?;
        if let Some(gap) = frame.get_mut(..LENGTH_BYTES) {
            gap.copy_from_slice(&length.to_be_bytes());
        }
        Ok(frame)
    }
}
