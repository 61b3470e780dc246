//! Puts the SQLSTATE of a server error where the rest of the repository can read it.
//!
//! Errors must be recognised by their SQLSTATE, because PostgreSQL translates its messages (`lc_messages`, which only
//! a superuser may change). diesel-async 0.9 hides the code: it maps eight codes to a `DatabaseErrorKind` and every
//! other one to `Unknown`, and its error type is private, so it cannot be downcast. What remains is the message.
//!
//! So a [`Stream`] between the server and the driver puts the code in front of the message of each error response, in
//! the form that `psql` prints with `\set VERBOSITY verbose`; [`split`] takes the two apart again:
//!
//! ```text
//! server ──E: C=40P01 M=Verklemmung entdeckt──▶ Stream ──E: C=40P01 M=40P01: Verklemmung entdeckt──▶ driver
//!        ──every other message──────────────────────────────────────────────────────────────────▶
//! ```
//!
//! Messages other than errors are read straight into the driver's buffer. Only their headers are looked at.
//!
//! Deliberately absent: another implementation of diesel-async's connection, or a patched copy of it. Either would be
//! ten times as long. When diesel-async exposes the code, this file can go.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll, ready as ready_or_pending},
};

use futures::{TryFutureExt, future::MapOk};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Socket,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};

const CODE_LENGTH: usize = 5;
const SEPARATOR: &str = ": ";
/// The type byte of an error response.
const ERROR_RESPONSE: u8 = b'E';
/// The type byte and the length that every message begins with.
const HEADER_LENGTH: usize = 5;
const READ_SIZE: usize = 1024;

/// Splits the message of a server error that came through a [`Stream`] into SQLSTATE and text.
pub(super) fn split(message: &str) -> Option<(&str, &str)> {
    let (code, rest) = message.split_at_checked(CODE_LENGTH)?;
    let is_code = code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    is_code.then_some(())?;
    Some((code, rest.strip_prefix(SEPARATOR)?))
}

/// A stream from the server whose error messages begin with their SQLSTATE.
pub(super) struct Stream<S> {
    inner: S,
    channel_binding: fn(&S) -> ChannelBinding,
    scanner: Scanner,
    /// An error response that has not arrived completely.
    held: Vec<u8>,
    /// Bytes for the driver that were read with an error response.
    ready: Vec<u8>,
}

impl<S> Stream<S> {
    /// Wraps a stream that speaks plain text.
    pub(super) fn plain(inner: S) -> Self {
        Self::new(inner, |_| ChannelBinding::none())
    }

    fn new(inner: S, channel_binding: fn(&S) -> ChannelBinding) -> Self {
        Self { inner, channel_binding, scanner: Scanner::default(), held: Vec::new(), ready: Vec::new() }
    }

    /// Moves every complete error response from `held` to `ready`, rewritten, with the messages between them.
    fn release(&mut self) {
        while let Some(length) = message_length(&self.held)
            && self.held.len() >= length
        {
            let rest = self.held.split_off(length);
            self.ready.extend(with_code(&self.held).unwrap_or_else(|| std::mem::take(&mut self.held)));
            self.held.clear();
            let until = self.scanner.find_error(&rest).unwrap_or(rest.len());
            let (passed, held) = rest.split_at_checked(until).unwrap_or((&rest, &[]));
            self.ready.extend_from_slice(passed);
            self.held.extend_from_slice(held);
        }
    }

    fn deliver(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.ready.len().min(buffer.remaining());
        let later = self.ready.split_off(length);
        buffer.put_slice(&self.ready);
        self.ready = later;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                this.deliver(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let before = buffer.filled().len();
                ready_or_pending!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
                let read = buffer.filled().get(before..).unwrap_or_default();
                let Some(start) = this.scanner.find_error(read) else { return Poll::Ready(Ok(())) };
                this.held.extend_from_slice(read.get(start..).unwrap_or_default());
                buffer.set_filled(before + start);
                this.release();
                if start > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut bytes = [0; READ_SIZE];
                let mut read = ReadBuf::new(&mut bytes);
                ready_or_pending!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
                this.held.extend_from_slice(read.filled());
                match read.filled().is_empty() {
                    // The stream ended inside an error response.
                    true => this.ready = std::mem::take(&mut this.held),
                    false => this.release(),
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        (self.channel_binding)(&self.inner)
    }
}

/// Finds error responses in a stream of messages, however it is cut into reads.
#[derive(Default)]
struct Scanner {
    header: Vec<u8>,
    body_left: usize,
}

impl Scanner {
    /// Returns where the next error response begins. The scanner then expects the bytes that follow that response.
    fn find_error(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.body_left > 0 {
                let skipped = self.body_left.min(bytes.len() - at);
                self.body_left -= skipped;
                at += skipped;
                continue;
            }
            let byte = *bytes.get(at)?;
            if self.header.is_empty() && byte == ERROR_RESPONSE {
                return Some(at);
            }
            self.header.push(byte);
            at += 1;
            if let Some(length) = message_length(&self.header) {
                self.body_left = length.saturating_sub(HEADER_LENGTH);
                self.header.clear();
            }
        }
        None
    }
}

/// Returns the length of a message with its type byte, or None if its header is incomplete.
fn message_length(message: &[u8]) -> Option<usize> {
    let length = message.get(1..HEADER_LENGTH)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    Some(usize::try_from(length).ok()?.saturating_add(1).max(HEADER_LENGTH))
}

/// Returns an error response with the code before its message, or None if one of the two fields is missing.
fn with_code(response: &[u8]) -> Option<Vec<u8>> {
    let fields = || response.get(HEADER_LENGTH..).unwrap_or_default().split(|byte| *byte == 0);
    let field = |name: u8| fields().find_map(|field| field.strip_prefix(&[name]));
    let (code, message) = (field(b'C')?, field(b'M')?);
    let mut body = Vec::with_capacity(response.len() + CODE_LENGTH + SEPARATOR.len());
    for field in fields().filter(|field| !field.is_empty()) {
        match field.strip_prefix(b"M") {
            Some(_) => body.extend([b"M", code, SEPARATOR.as_bytes(), message].concat()),
            None => body.extend_from_slice(field),
        }
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + size_of::<u32>()).ok()?;
    Some([&[ERROR_RESPONSE], length.to_be_bytes().as_slice(), &body].concat())
}

/// A TLS connector that does not encrypt: it only wraps the socket in a [`Stream`]. The driver calls no connector for a
/// connection without TLS. So the configuration asks for TLS that begins at once (`sslnegotiation=direct`): the driver
/// then sends nothing before it calls the connector.
#[derive(Clone, Copy)]
pub(super) struct PlainText;

impl MakeTlsConnect<Socket> for PlainText {
    type Stream = Stream<Socket>;
    type TlsConnect = Self;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Self, Infallible> {
        Ok(*self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for PlainText {
    type Stream = Stream<S>;
    type Error = Infallible;
    type Future = Ready<Result<Stream<S>, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(Stream::plain(stream)))
    }
}

/// Connects with TLS by another connector.
pub(super) struct Encrypted<Connector>(pub(super) Connector);

impl<Connector: MakeTlsConnect<Socket>> MakeTlsConnect<Socket> for Encrypted<Connector> {
    type Stream = Stream<Connector::Stream>;
    type TlsConnect = Encrypted<Connector::TlsConnect>;
    type Error = Connector::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        self.0.make_tls_connect(host).map(Encrypted)
    }
}

impl<Connector: TlsConnect<Socket>> TlsConnect<Socket> for Encrypted<Connector> {
    type Stream = Stream<Connector::Stream>;
    type Error = Connector::Error;
    type Future = MapOk<Connector::Future, fn(Connector::Stream) -> Self::Stream>;

    fn connect(self, socket: Socket) -> Self::Future {
        self.0.connect(socket).map_ok(|stream| Stream::new(stream, TlsStream::channel_binding))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], length.to_be_bytes().as_slice(), body].concat()
    }

    fn error(message_text: &str) -> Vec<u8> {
        let fields = format!("SFEHLER\0VERROR\0C40P01\0M{message_text}\0DEin Detail\0\0");
        message(ERROR_RESPONSE, fields.as_bytes())
    }

    /// Reads a stream that arrives in pieces of the given sizes, into a buffer of `buffer_size` bytes.
    async fn read(bytes: &[u8], pieces: &[usize], buffer_size: usize) -> Vec<u8> {
        let mut builder = pieces::Pieces::new(bytes, pieces);
        let mut stream = Stream::plain(&mut builder);
        let mut read = Vec::new();
        let mut buffer = vec![0; buffer_size];
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            if length == 0 {
                return read;
            }
            read.extend_from_slice(&buffer[..length]);
        }
    }

    /// A reader that returns its bytes in pieces of given sizes, and is pending between them.
    mod pieces {
        use super::*;

        pub struct Pieces<'a> {
            left: &'a [u8],
            sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
            is_pending: bool,
        }

        impl<'a> Pieces<'a> {
            pub fn new(bytes: &'a [u8], sizes: &'a [usize]) -> Self {
                Self { left: bytes, sizes: sizes.iter().cycle(), is_pending: false }
            }
        }

        impl AsyncRead for Pieces<'_> {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let this = self.get_mut();
                this.is_pending = !this.is_pending;
                if this.is_pending {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let size = this.sizes.next().unwrap();
                let (piece, left) = this.left.split_at(this.left.len().min(*size).min(buffer.remaining()));
                buffer.put_slice(piece);
                this.left = left;
                Poll::Ready(Ok(()))
            }
        }
    }

    proptest! {
        #[test]
        fn errors_get_their_code_and_all_else_passes_however_the_stream_is_cut(
            kinds in proptest::collection::vec(0..4_u8, 0..8),
            pieces in proptest::collection::vec(1..40_usize, 1..6),
            buffer_size in 1..200_usize,
        ) {
            let mut sent = Vec::new();
            let mut expected = Vec::new();
            for kind in kinds {
                let (from_server, to_driver) = match kind {
                    0 => (error("Verklemmung"), error("40P01: Verklemmung")),
                    1 => (message(b'D', b"EEEEEEEEEEEEEEEEEEEEE"), message(b'D', b"EEEEEEEEEEEEEEEEEEEEE")),
                    2 => (message(b'Z', b"I"), message(b'Z', b"I")),
                    _ => (message(b'2', b""), message(b'2', b"")),
                };
                sent.extend(from_server);
                expected.extend(to_driver);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(read(&sent, &pieces, buffer_size)), expected);
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_an_error_is_passed_on() {
        let cut = &error("Verklemmung")[..20];
        assert_eq!(read(cut, &[7], 50).await, cut);
    }

    #[test]
    fn a_code_is_split_from_the_message() {
        assert_eq!(split("40P01: Verklemmung: ja"), Some(("40P01", "Verklemmung: ja")));
        for other in ["", "error: x", "40P01 x", "connection closed", "ÄÄÄ: x"] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
