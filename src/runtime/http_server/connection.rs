//! A TCP connection that delivers one request at a time to the HTTP library; `http_server.rs` says why.
//!
//! - The bytes of a later request are held back until the request before it is answered. A request that arrives alone,
//!   the usual case, is passed through without a copy.
//! - Bytes after a request that asked to close the connection are never delivered.
//! - While a request is being answered, the connection is still read, up to `HELD_BYTES_MAX`, so that a client that
//!   disconnects is noticed.
//! - A request may be answered before its body has arrived. The rest of the body must then arrive in time.
//! - A connection that must make room for another one ends between two requests. A request that arrives too late for that
//!   is not delivered, so it is not executed.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use super::{
    answers::{AnswerTracker, NextBytes},
    framing::Framing,
    open_connections::{Activity, OpenConnection},
};

/// Bytes of later requests that a connection holds back. The rest stays in the buffers of the client.
const HELD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4 * 1024;

/// A client's connection.
pub(super) struct ClientConnection<S = TcpStream> {
    stream: S,
    activity: Arc<Activity>,
    answers: AnswerTracker,
    framing: Framing,
    /// Bytes of later requests.
    held: BytesMut,
    /// The client has closed its side.
    is_ended: bool,
    body_timeout: Duration,
    /// When the rest of an answered request must have arrived.
    body_deadline: Option<Pin<Box<Sleep>>>,
    _open: OpenConnection,
}

impl<S: AsyncRead + Unpin> ClientConnection<S> {
    /// Wraps a stream that nothing was read from yet. The rest of an answered request must arrive within
    /// `body_timeout`; otherwise the connection ends.
    pub(super) fn new(stream: S, open: OpenConnection, body_timeout: Duration) -> Self {
        let activity = open.activity();
        Self {
            stream,
            answers: AnswerTracker::new(Arc::clone(&activity)),
            activity,
            framing: Framing::default(),
            held: BytesMut::new(),
            is_ended: false,
            body_timeout,
            body_deadline: None,
            _open: open,
        }
    }

    /// Returns the tracker that the requests of this connection share with it.
    pub(super) fn answers(&self) -> AnswerTracker {
        self.answers.clone()
    }

    /// Reads ahead while a request is being answered, and delivers nothing but the end of the stream.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.answers.register_waker(context);
        while !self.is_ended && self.held.len() < HELD_BYTES_MAX {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            match read.filled() {
                [] => self.is_ended = true,
                bytes => {
                    self.held.extend_from_slice(bytes);
                    self.answers.set_holds_bytes(true);
                }
            }
        }
        if self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Discards all further bytes, and waits until the client closes the connection.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.clear();
        while !self.is_ended {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            self.is_ended = read.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }

    /// Delivers the end of the stream, whatever the client has sent.
    fn poll_end(&mut self) -> Poll<io::Result<()>> {
        self.held.clear();
        self.is_ended = true;
        Poll::Ready(Ok(()))
    }

    /// Delivers the next bytes of the current request, and none of a later one.
    fn poll_request(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_shed() {
            return self.poll_end();
        }
        let before = buffer.filled().len();
        let end = if self.held.is_empty() {
            if !self.is_ended && Pin::new(&mut self.stream).poll_read(context, buffer)?.is_pending() {
                self.answers.register_waker(context);
                ready!(self.activity.poll_shed(context));
                return self.poll_end();
            }
            let new = buffer.filled().get(before..).unwrap_or_default();
            let end = self.framing.request_end(new);
            if let Some(end) = end {
                self.held.extend_from_slice(new.get(end..).unwrap_or_default());
                buffer.set_filled(before + end);
            }
            end
        } else {
            let all = self.held.len().min(buffer.remaining());
            let new = self.held.get(..all).unwrap_or_default();
            let end = self.framing.request_end(new);
            let taken = end.unwrap_or(all);
            buffer.put_slice(new.get(..taken).unwrap_or_default());
            self.held.advance(taken);
            end
        };
        self.answers.set_holds_bytes(!self.held.is_empty());
        if end.is_some() {
            self.answers.count_delivered();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientConnection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        match connection.answers.next() {
            NextBytes::Nothing => connection.poll_ahead(context),
            NextBytes::End => connection.poll_discard(context),
            NextBytes::Request => {
                connection.body_deadline = None;
                connection.poll_request(context, buffer)
            }
            NextBytes::RestOfRequest => {
                let timeout = connection.body_timeout;
                let deadline =
                    connection.body_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                if deadline.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                connection.poll_request(context, buffer)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientConnection<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        let written = Pin::new(&mut connection.stream).poll_write(context, bytes);
        // A client that does not read its answer must not keep a connection open that makes room for another one.
        if written.is_pending() && connection.activity.is_shed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use actix_web::http::ConnectionType;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::{
        super::open_connections::{ConnectionLimits, OpenConnections},
        *,
    };

    const PEER: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const BODY_TIMEOUT: Duration = Duration::from_millis(300);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    fn connection(capacity: usize) -> (DuplexStream, ClientConnection<DuplexStream>) {
        connection_of(&one_at_a_time(), capacity)
    }

    fn one_at_a_time() -> Arc<OpenConnections> {
        OpenConnections::new("test", ConnectionLimits { all: 1, per_peer: 1 })
    }

    fn connection_of(
        all: &Arc<OpenConnections>,
        capacity: usize,
    ) -> (DuplexStream, ClientConnection<DuplexStream>) {
        let (client, server) = duplex(capacity);
        (client, ClientConnection::new(server, all.admit(PEER).expect("admitted"), BODY_TIMEOUT))
    }

    async fn read(connection: &mut ClientConnection<DuplexStream>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HELD_BYTES_MAX);
        connection.read_buf(&mut bytes).await.expect("bytes");
        bytes
    }

    /// Returns whether there is nothing to read at the moment.
    async fn is_pending(connection: &mut ClientConnection<DuplexStream>) -> bool {
        let mut buffer = [0; 16];
        poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut buffer);
            Poll::Ready(Pin::new(&mut *connection).poll_read(context, &mut buffer).is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn the_next_request_is_delivered_when_the_one_before_it_is_answered() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(&GET.repeat(3)).await.expect("written");
        let answers = connection.answers();
        for _ in 0..2 {
            assert_eq!(read(&mut connection).await, GET);
            let pending = answers.begin(ConnectionType::KeepAlive);
            assert!(is_pending(&mut connection).await);
            drop(pending);
        }
        // The end of the stream follows the bytes that were held back.
        drop(client);
        assert_eq!(read(&mut connection).await, GET);
        drop(answers.begin(ConnectionType::KeepAlive));
        assert_eq!(read(&mut connection).await, b"");
    }

    /// Fails if an answer does not wake the reading task.
    #[tokio::test]
    async fn an_answer_wakes_the_task_that_waits_for_the_next_request() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(&GET.repeat(2)).await.expect("written");
        let answers = connection.answers();
        assert_eq!(read(&mut connection).await, GET);
        let before = tokio::time::Instant::now();
        let next = tokio::time::timeout(10 * BODY_TIMEOUT, read(&mut connection));
        let (next, ()) = tokio::join!(next, async {
            // `join!` alternates which branch it polls first. The other branch must have been polled before the answer.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            drop(answers.begin(ConnectionType::KeepAlive));
        });
        // The timer alone would wake the task later.
        assert!(before.elapsed() < 5 * BODY_TIMEOUT);
        assert_eq!(next.expect("woken"), GET);
    }

    #[tokio::test]
    async fn after_a_request_that_closes_only_the_end_is_delivered() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(&GET.repeat(2)).await.expect("written");
        let answers = connection.answers();
        assert_eq!(read(&mut connection).await, GET);
        drop(answers.begin(ConnectionType::Close));
        assert!(is_pending(&mut connection).await);
        client.write_all(GET).await.expect("written");
        assert!(is_pending(&mut connection).await);
        drop(client);
        assert_eq!(read(&mut connection).await, b"");
    }

    #[tokio::test]
    async fn a_client_that_disconnects_is_noticed_while_its_request_is_answered() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(GET).await.expect("written");
        assert_eq!(read(&mut connection).await, GET);
        assert!(is_pending(&mut connection).await);
        drop(client);
        assert_eq!(read(&mut connection).await, b"");
    }

    /// Fails if the connection does not wake the reading task, or delivers the request that came too late.
    #[tokio::test]
    async fn a_connection_that_makes_room_ends_between_two_requests() {
        let all = one_at_a_time();
        let (mut client, mut first) = connection_of(&all, 4096);
        client.write_all(GET).await.expect("written");
        assert_eq!(read(&mut first).await, GET);
        let answering = first.answers().begin(ConnectionType::KeepAlive);
        assert!(all.admit(PEER).is_none(), "no connection is idle");
        drop(answering);
        let end = tokio::time::timeout(10 * BODY_TIMEOUT, read(&mut first));
        let (end, second) = tokio::join!(end, async {
            // `join!` alternates which branch it polls first. The other branch must have been polled before.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            all.admit(PEER)
        });
        assert_eq!(end.expect("woken"), b"");
        assert!(second.is_some());
        client.write_all(GET).await.expect("written");
        assert_eq!(read(&mut first).await, b"");
    }

    #[tokio::test]
    async fn the_bytes_read_ahead_are_bounded() {
        let (mut client, mut connection) = connection(1 << 20);
        client.write_all(&GET.repeat(20_000)).await.expect("written");
        assert_eq!(read(&mut connection).await, GET);
        assert!(is_pending(&mut connection).await && is_pending(&mut connection).await);
        assert!((HELD_BYTES_MAX..HELD_BYTES_MAX + READ_BYTES).contains(&connection.held.len()));
    }

    /// A request that is refused because of its head is answered before its body arrives.
    #[tokio::test]
    async fn a_body_may_arrive_after_the_answer() {
        let (mut client, mut connection) = connection(4096);
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        client.write_all(head).await.expect("written");
        assert_eq!(read(&mut connection).await, head);
        drop(connection.answers().begin(ConnectionType::KeepAlive));
        client.write_all(&[b"abc", GET].concat()).await.expect("written");
        assert_eq!(read(&mut connection).await, b"abc");
        assert_eq!(read(&mut connection).await, GET);
        assert!(is_pending(&mut connection).await);
    }

    /// The library waits for the rest of the body before it closes the connection.
    #[tokio::test]
    async fn the_rest_of_a_body_is_delivered_after_an_answer_that_closes() {
        let (mut client, mut connection) = connection(4096);
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(head).await.expect("written");
        assert_eq!(read(&mut connection).await, head);
        drop(connection.answers().begin(ConnectionType::Close));
        client.write_all(&[b"0\r\n\r\n", GET].concat()).await.expect("written");
        assert_eq!(read(&mut connection).await, b"0\r\n\r\n");
        assert!(is_pending(&mut connection).await);
    }

    /// Fails if an answer does not wake the reading task when no bytes are held back.
    #[tokio::test]
    async fn the_rest_of_a_body_must_arrive_in_time() {
        let (mut client, mut connection) = connection(4096);
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        client.write_all(head).await.expect("written");
        assert_eq!(read(&mut connection).await, head);
        client.write_all(b"a").await.expect("written");
        assert_eq!(read(&mut connection).await, b"a");
        // Nothing but the answer makes the task poll the connection again.
        let answers = connection.answers();
        let before = tokio::time::Instant::now();
        let end = tokio::time::timeout(10 * BODY_TIMEOUT, read(&mut connection));
        let (end, ()) = tokio::join!(end, async {
            // `join!` alternates which branch it polls first. The other branch must have been polled before the answer.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            drop(answers.begin(ConnectionType::KeepAlive));
        });
        assert_eq!(end.expect("ended in time"), b"");
        assert!(before.elapsed() >= BODY_TIMEOUT);
    }
}
