//! Finds where a request ends in the bytes of a connection: RFC 9112, sections 6 and 7.1.
//!
//! The result decides when bytes are delivered, never which bytes. After a malformed request, or one without a defined
//! end, all bytes are delivered as they arrive, and the HTTP library refuses the request.

use std::mem::MaybeUninit;

/// The limit of actix-http.
const HEADERS_MAX: usize = 96;
const HEAD_BYTES_MAX: usize = 128 * 1024;

/// The position in the stream of requests of a connection.
#[derive(Debug)]
pub(super) enum Framing {
    /// In a head; holds the bytes of it that were read before.
    Head(Vec<u8>),
    /// In a body; holds the number of bytes that are still to come.
    Body(u64),
    /// In a chunked body.
    Chunked(ChunkedBody),
    /// Unknown for the rest of the connection.
    Unknown,
}

impl Default for Framing {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Framing {
    /// Reads up to the end of the current request and returns how many bytes that took. Returns None, having read all
    /// bytes, if the request does not end in them.
    pub(super) fn request_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut read = 0;
        while let Some(rest) = bytes.get(read..).filter(|rest| !rest.is_empty()) {
            let step = match self {
                Self::Head(before) => head(before, rest),
                Self::Body(left) => body(left, rest),
                Self::Chunked(chunks) => chunks.end(rest),
                Self::Unknown => return None,
            };
            match step {
                FramingStep::Within => return None,
                FramingStep::Next(length, framing) => {
                    read += length;
                    *self = framing;
                }
                FramingStep::End(length) => {
                    *self = Self::default();
                    return Some(read + length);
                }
            }
        }
        None
    }
}

/// The result of reading some bytes.
enum FramingStep {
    /// All bytes were read, and the framing is unchanged.
    Within,
    /// This many bytes were read, and the framing changes.
    Next(usize, Framing),
    /// This many bytes were read, and the request ended.
    End(usize),
}

fn head(before: &mut Vec<u8>, bytes: &[u8]) -> FramingStep {
    let read_before = before.len();
    let head: &[u8] = if before.is_empty() {
        bytes
    } else {
        before.extend_from_slice(bytes);
        before
    };
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut headers) {
        Ok(httparse::Status::Complete(length)) => {
            let length = length - read_before;
            match body_framing(&request) {
                Some(Framing::Body(0)) => FramingStep::End(length),
                framing => FramingStep::Next(length, framing.unwrap_or(Framing::Unknown)),
            }
        }
        Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES_MAX => {
            if before.is_empty() {
                before.extend_from_slice(bytes);
            }
            FramingStep::Within
        }
        _ => FramingStep::Next(bytes.len(), Framing::Unknown),
    }
}

/// Returns how the body is framed. None if it has no defined end or the library refuses the request.
fn body_framing(request: &httparse::Request<'_, '_>) -> Option<Framing> {
    let (mut length, mut is_chunked, mut upgrades) = (None, false, false);
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let says = |value: &str| header.value.trim_ascii().eq_ignore_ascii_case(value.as_bytes());
        if is("content-length") {
            let text = std::str::from_utf8(header.value.trim_ascii()).ok()?;
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let new = text.parse().ok().filter(|_| is_number && length.is_none())?;
            length = Some(new);
        } else if is("transfer-encoding") {
            if is_chunked || !says("chunked") {
                return None;
            }
            is_chunked = true;
        } else if is("upgrade") && says("websocket") {
            upgrades = true;
        }
    }
    let connects = request.method == Some("CONNECT");
    match (length, is_chunked) {
        (Some(_), true) => None,
        (None, true) => Some(Framing::Chunked(ChunkedBody::default())),
        // The bytes that follow would belong to another protocol.
        _ if upgrades => None,
        (None | Some(0), false) if connects => None,
        (length, false) => Some(Framing::Body(length.unwrap_or(0))),
    }
}

fn body(left: &mut u64, bytes: &[u8]) -> FramingStep {
    match usize::try_from(*left) {
        Ok(length) if length <= bytes.len() => FramingStep::End(length),
        _ => {
            *left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            FramingStep::Within
        }
    }
}

/// The position in a chunked body.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChunkedBody {
    Size { size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd,
    Trailer { is_empty: bool },
    TrailerEnd { is_empty: bool },
}

impl Default for ChunkedBody {
    fn default() -> Self {
        Self::Size { size: 0 }
    }
}

impl ChunkedBody {
    fn end(&mut self, bytes: &[u8]) -> FramingStep {
        let mut read = 0;
        while let Some(byte) = bytes.get(read) {
            if let Self::Data { left } = self {
                let there = bytes.len() - read;
                let taken = usize::try_from(*left).map_or(there, |left| left.min(there));
                read += taken;
                *left -= u64::try_from(taken).unwrap_or(0);
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                continue;
            }
            read += 1;
            match self.after(*byte) {
                Some(Self::TrailerEnd { is_empty: true }) if *byte == b'\n' => return FramingStep::End(read),
                Some(next) => *self = next,
                None => return FramingStep::Next(bytes.len(), Framing::Unknown),
            }
        }
        FramingStep::Within
    }

    /// Returns the position after a byte, or None if the byte is not allowed here.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16)?;
                Self::Size { size: size.checked_mul(16)?.checked_add(u64::from(digit))? }
            }
            (Self::Size { size } | Self::Extension { size }, b'\r') => Self::SizeEnd { size },
            (Self::Size { size }, b';' | b' ' | b'\t') | (Self::Extension { size }, _) => {
                Self::Extension { size }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer { is_empty: true },
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::default(),
            (Self::Trailer { is_empty }, b'\r') => Self::TrailerEnd { is_empty },
            (Self::Trailer { .. }, _) => Self::Trailer { is_empty: false },
            (Self::TrailerEnd { is_empty: true }, b'\n') => self,
            (Self::TrailerEnd { is_empty: false }, b'\n') => Self::Trailer { is_empty: true },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use actix_http::h1::{Codec, Message, MessageType};
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio::task::LocalSet;
    use tokio_util::codec::Decoder as _;

    use super::*;

    /// Returns the end of each request in `text`, read in pieces of `piece` bytes.
    fn ends(text: &str, piece: usize) -> Vec<usize> {
        let (mut framing, mut ends, mut read) = (Framing::default(), Vec::new(), 0);
        while read < text.len() {
            let piece = &text.as_bytes()[read..text.len().min(read + piece)];
            match framing.request_end(piece) {
                Some(end) => {
                    read += end;
                    ends.push(read);
                }
                None => read += piece.len(),
            }
        }
        ends
    }

    const REQUESTS: [&str; 7] = [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nGET /",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:  0 \r\n\r\n",
        "HEAD / HTTP/1.0\nHost: x\n\n",
        "\r\nPUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=\"\r\n0\r\n\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1A \r\nabcdefghijklmnopqrstuvwxyz\r\n00\r\nA: b\r\nC:\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];

    proptest! {
        #[test]
        fn the_end_of_each_pipelined_request_is_found(
            chosen in proptest::collection::vec(0..REQUESTS.len(), 1..6), piece in 1_usize..200,
        ) {
            let text: String = chosen.iter().map(|number| REQUESTS[*number]).collect();
            let mut end = 0;
            let expected: Vec<usize> = chosen.iter().map(|number| { end += REQUESTS[*number].len(); end }).collect();
            prop_assert_eq!(ends(&text, piece), expected);
        }

        #[test]
        fn arbitrary_bytes_are_read_to_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framing = Framing::default();
            let mut read = 0;
            while let Some(end) = framing.request_end(&bytes[read..]) {
                prop_assert!(end > 0 && read + end <= bytes.len());
                read += end;
            }
        }
    }

    /// Returns where actix-http finds the end of the first request. None if it refuses the request, waits for more bytes
    /// or treats the request as a stream without an end.
    fn end_for_actix(bytes: &[u8]) -> Option<usize> {
        let mut codec = Codec::default();
        let mut rest = BytesMut::from(bytes);
        let Ok(Some(Message::Item(_))) = codec.decode(&mut rest) else { return None };
        match codec.message_type() {
            MessageType::None => return Some(bytes.len() - rest.len()),
            MessageType::Stream => return None,
            MessageType::Payload => {}
        }
        loop {
            match codec.decode(&mut rest) {
                Ok(Some(Message::Chunk(Some(_)))) => {}
                Ok(Some(Message::Chunk(None))) => return Some(bytes.len() - rest.len()),
                _ => return None,
            }
        }
    }

    const HEADERS: [&str; 13] = [
        "Content-Length: 0",
        "content-length: 3",
        "Content-Length: 003",
        "Content-Length:\t5 ",
        "Content-Length: +3",
        "Transfer-Encoding: chunked",
        "transfer-encoding:  CHUNKED",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Connection: upgrade",
        "Expect: 100-continue",
    ];
    const SIZES: [&str; 8] = ["5", "05", "5;a=b", "5 ", "5 ;a", "5;a=\"b;c\"", "5\t", "6"];
    const TRAILERS: [&str; 5] = ["", "A: b\r\n", "A: b\r\nC:\r\n", "A\r\n", "\n"];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        /// Fails if an upgrade is checked before a chunked body, or a CONNECT before its length.
        #[test]
        fn a_request_ends_where_actix_http_finds_its_end(
            method in prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("CONNECT")],
            version in prop_oneof![4 => Just(1), 1 => Just(0)],
            headers in proptest::sample::subsequence(HEADERS.to_vec(), 0..3),
            sizes in proptest::collection::vec(0..SIZES.len(), 0..3),
            trailer in 0..TRAILERS.len(), line_end in prop_oneof![9 => Just("\r\n"), 1 => Just("\n")],
            piece in 1_usize..120,
        ) {
            let path = if method == "CONNECT" { "x:1" } else { "/" };
            let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
            let chunks: String = sizes.iter().map(|size| format!("{}{line_end}hello\r\n", SIZES[*size])).collect();
            let text = format!(
                "{method} {path} HTTP/1.{version}\r\nHost: x\r\n{headers}\r\n{chunks}0\r\n{}\r\n{}",
                TRAILERS[trailer], REQUESTS[0]
            );
            // The codec of actix-http starts a timer task.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let found = LocalSet::new().block_on(&runtime, async { end_for_actix(text.as_bytes()) });
            if let Some(end) = found {
                let found = ends(&text, piece).first().copied();
                prop_assert_eq!(found, Some(end), "{:?}", text);
            }
        }
    }

    #[test]
    fn a_request_without_one_clear_end_is_left_to_the_library() {
        for head in [
            "GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n",
            "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "\u{0}",
        ] {
            assert_eq!(ends(&format!("{head}{}", REQUESTS[0].repeat(3)), 7), Vec::<usize>::new(), "{head:?}");
        }
    }
}
