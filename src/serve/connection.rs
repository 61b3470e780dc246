//! A TCP connection that hands the HTTP library one request at a time.
//!
//! The library decodes the next pipelined request while the one before it is being answered, and writes the answer by what
//! it decoded last: a GET before a HEAD would be answered without its body, and an answer would close the connection for
//! a request that asked to keep it. So the bytes behind a request wait here until it is answered ([`Turn`]), and those
//! behind one that asked to close are never handed over. A request by itself, which is nearly every one, passes through
//! without a copy.
//!
//! While a request waits to be answered the connection is still read, up to a bound: a client that went away is noticed.
//! A body that is still to come when its request is answered has to come in time.

mod framing;

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_web::http::ConnectionType;
use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use self::framing::Framing;

/// Of requests that wait for the one before them; the client's own buffers hold the rest.
const HELD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4 * 1024;

/// Whose turn it is on a connection. Each request takes it while it is answered.
#[derive(Clone, Default)]
pub struct Turn(Rc<TurnState>);

#[derive(Default)]
struct TurnState {
    /// Requests that were handed over whole.
    handed_over: Cell<u64>,
    answered: Cell<u64>,
    /// An answered request asked to close the connection.
    closes: Cell<bool>,
    holds: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    /// For the request that is answered next; dropped when its answer is there, and before it is written.
    pub fn take(&self, asked: ConnectionType) -> Answering {
        Answering { turn: self.clone(), closes: asked == ConnectionType::Close }
    }

    /// Whom to wake when a request is answered.
    fn remember(&self, context: &Context<'_>) {
        let mut waker = self.0.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

/// A request is being answered.
pub struct Answering {
    turn: Turn,
    closes: bool,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let state = &self.turn.0;
        state.answered.update(|answered| answered + 1);
        if self.closes {
            state.closes.set(true);
        }
        // There is a next request, or the time for the rest of this one begins.
        if (state.holds.get() || state.handed_over.get() < state.answered.get())
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
    }
}

/// A connection of `serve`.
pub struct Connection<S = TcpStream> {
    stream: S,
    turn: Turn,
    framing: Framing,
    /// Bytes behind the request whose turn it is.
    held: BytesMut,
    /// The client sends no more.
    is_ended: bool,
    body_timeout: Duration,
    /// Until when the rest of an answered request may come.
    body_deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> Connection<S> {
    /// Around a stream of which nothing is read yet. The rest of a request that is answered already is waited for as
    /// long as `body_timeout`; then the connection is taken for ended.
    pub fn new(stream: S, body_timeout: Duration) -> Self {
        Self {
            stream,
            turn: Turn::default(),
            framing: Framing::default(),
            held: BytesMut::new(),
            is_ended: false,
            body_timeout,
            body_deadline: None,
        }
    }

    /// For the requests of this connection.
    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Reads while it is not the next request's turn.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn.remember(context);
        while !self.is_ended && self.held.len() < HELD_BYTES_MAX {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            match read.filled() {
                [] => self.is_ended = true,
                bytes => {
                    self.held.extend_from_slice(bytes);
                    self.turn.0.holds.set(true);
                }
            }
        }
        if self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// What comes behind the last request is not looked at; only that the client closes, too.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.clear();
        while !self.is_ended {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            self.is_ended = read.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }

    /// The next bytes of the request whose turn it is, and none behind it.
    fn poll_request(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let end = if self.held.is_empty() {
            if !self.is_ended && Pin::new(&mut self.stream).poll_read(context, buffer)?.is_pending() {
                self.turn.remember(context);
                return Poll::Pending;
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
        self.turn.0.holds.set(!self.held.is_empty());
        self.turn.0.handed_over.update(|handed_over| handed_over + u64::from(end.is_some()));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        let turn = &connection.turn.0;
        match turn.handed_over.get().cmp(&turn.answered.get()) {
            Ordering::Greater => connection.poll_ahead(context),
            Ordering::Equal if turn.closes.get() => connection.poll_end(context),
            Ordering::Equal => {
                connection.body_deadline = None;
                connection.poll_request(context, buffer)
            }
            Ordering::Less => {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
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

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const BODY_TIMEOUT: Duration = Duration::from_millis(300);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    fn connection(capacity: usize) -> (DuplexStream, Connection<DuplexStream>) {
        let (client, server) = duplex(capacity);
        (client, Connection::new(server, BODY_TIMEOUT))
    }

    async fn read(connection: &mut Connection<DuplexStream>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HELD_BYTES_MAX);
        connection.read_buf(&mut bytes).await.expect("bytes");
        bytes
    }

    /// Whether there is nothing to read for now.
    async fn waits(connection: &mut Connection<DuplexStream>) -> bool {
        let mut buffer = [0; 16];
        poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut buffer);
            Poll::Ready(Pin::new(&mut *connection).poll_read(context, &mut buffer).is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn the_next_request_comes_when_the_one_before_it_is_answered() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(&GET.repeat(3)).await.expect("written");
        let turn = connection.turn();
        for _ in 0..2 {
            assert_eq!(read(&mut connection).await, GET);
            let answering = turn.take(ConnectionType::KeepAlive);
            assert!(waits(&mut connection).await);
            drop(answering);
        }
        // The end of the stream comes behind what was held.
        drop(client);
        assert_eq!(read(&mut connection).await, GET);
        drop(turn.take(ConnectionType::KeepAlive));
        assert_eq!(read(&mut connection).await, b"");
    }

    /// Seen to fail when planted: an answer that wakes nobody.
    #[tokio::test]
    async fn an_answer_wakes_whoever_waits_for_the_next_request() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(&GET.repeat(2)).await.expect("written");
        let turn = connection.turn();
        assert_eq!(read(&mut connection).await, GET);
        let before = tokio::time::Instant::now();
        let next = tokio::time::timeout(10 * BODY_TIMEOUT, read(&mut connection));
        let (next, ()) = tokio::join!(next, async {
            // The branches take turns in being first: the other one must be before the answer.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            drop(turn.take(ConnectionType::KeepAlive));
        });
        // The timer would look once more itself.
        assert!(before.elapsed() < 5 * BODY_TIMEOUT);
        assert_eq!(next.expect("woken"), GET);
    }

    #[tokio::test]
    async fn behind_a_close_there_is_only_the_end() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(&GET.repeat(2)).await.expect("written");
        let turn = connection.turn();
        assert_eq!(read(&mut connection).await, GET);
        drop(turn.take(ConnectionType::Close));
        assert!(waits(&mut connection).await);
        client.write_all(GET).await.expect("written");
        assert!(waits(&mut connection).await);
        drop(client);
        assert_eq!(read(&mut connection).await, b"");
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_noticed_while_its_request_is_answered() {
        let (mut client, mut connection) = connection(4096);
        client.write_all(GET).await.expect("written");
        assert_eq!(read(&mut connection).await, GET);
        assert!(waits(&mut connection).await);
        drop(client);
        assert_eq!(read(&mut connection).await, b"");
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_bounded() {
        let (mut client, mut connection) = connection(1 << 20);
        client.write_all(&GET.repeat(20_000)).await.expect("written");
        assert_eq!(read(&mut connection).await, GET);
        assert!(waits(&mut connection).await && waits(&mut connection).await);
        assert!((HELD_BYTES_MAX..HELD_BYTES_MAX + READ_BYTES).contains(&connection.held.len()));
    }

    /// Answered before its body is there, as a request that is refused by its head.
    #[tokio::test]
    async fn a_body_may_come_after_the_answer() {
        let (mut client, mut connection) = connection(4096);
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        client.write_all(head).await.expect("written");
        assert_eq!(read(&mut connection).await, head);
        drop(connection.turn().take(ConnectionType::KeepAlive));
        client.write_all(&[b"abc", GET].concat()).await.expect("written");
        assert_eq!(read(&mut connection).await, b"abc");
        assert_eq!(read(&mut connection).await, GET);
        assert!(waits(&mut connection).await);
    }

    /// The library waits for it before it closes.
    #[tokio::test]
    async fn the_rest_of_a_body_comes_behind_an_answer_that_closes() {
        let (mut client, mut connection) = connection(4096);
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(head).await.expect("written");
        assert_eq!(read(&mut connection).await, head);
        drop(connection.turn().take(ConnectionType::Close));
        client.write_all(&[b"0\r\n\r\n", GET].concat()).await.expect("written");
        assert_eq!(read(&mut connection).await, b"0\r\n\r\n");
        assert!(waits(&mut connection).await);
    }

    /// Seen to fail when planted: an answer that wakes nobody where nothing is held.
    #[tokio::test]
    async fn the_rest_of_a_body_must_come_in_time() {
        let (mut client, mut connection) = connection(4096);
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        client.write_all(head).await.expect("written");
        assert_eq!(read(&mut connection).await, head);
        client.write_all(b"a").await.expect("written");
        assert_eq!(read(&mut connection).await, b"a");
        // It is not asked for again by itself once the request is answered.
        let turn = connection.turn();
        let before = tokio::time::Instant::now();
        let end = tokio::time::timeout(10 * BODY_TIMEOUT, read(&mut connection));
        let (end, ()) = tokio::join!(end, async {
            // The branches take turns in being first: the other one must be before the answer.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            drop(turn.take(ConnectionType::KeepAlive));
        });
        assert_eq!(end.expect("ended in time"), b"");
        assert!(before.elapsed() >= BODY_TIMEOUT);
    }
}
