//! Where a request ends on the wire: RFC 9112, sections 6 and 7.1.
//!
//! Only when bytes are handed over depends on it, never which: where a request is malformed or of a kind that has no end,
//! all bytes are handed over as they come, and the HTTP library refuses it.

use std::mem::MaybeUninit;

/// As many as the HTTP library reads.
const HEADERS_MAX: usize = 96;
const HEAD_BYTES_MAX: usize = 128 * 1024;

/// Follows the bytes of a connection from request to request.
#[derive(Debug)]
pub(super) enum Framing {
    /// Within a head, of which this much came before.
    Head(Vec<u8>),
    /// Within a body of which so many bytes are to come.
    Body(u64),
    /// Within a chunked body.
    Chunks(Chunks),
    /// There is no telling any more.
    Unknown,
}

impl Default for Framing {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Framing {
    /// Follows the next bytes up to where the request in them ends, or to their own end (None).
    pub(super) fn request_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut read = 0;
        while let Some(rest) = bytes.get(read..).filter(|rest| !rest.is_empty()) {
            let step = match self {
                Self::Head(before) => head(before, rest),
                Self::Body(left) => body(left, rest),
                Self::Chunks(chunks) => chunks.end(rest),
                Self::Unknown => return None,
            };
            match step {
                Step::Within => return None,
                Step::Next(length, framing) => {
                    read += length;
                    *self = framing;
                }
                Step::End(length) => {
                    *self = Self::default();
                    return Some(read + length);
                }
            }
        }
        None
    }
}

enum Step {
    /// All of the bytes, and it goes on.
    Within,
    /// So many of them, and then this.
    Next(usize, Framing),
    /// So many of them, and that was the request.
    End(usize),
}

fn head(before: &mut Vec<u8>, bytes: &[u8]) -> Step {
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
            match body_of(&request) {
                Some(Framing::Body(0)) => Step::End(length),
                framing => Step::Next(length, framing.unwrap_or(Framing::Unknown)),
            }
        }
        Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES_MAX => {
            if before.is_empty() {
                before.extend_from_slice(bytes);
            }
            Step::Within
        }
        _ => Step::Next(bytes.len(), Framing::Unknown),
    }
}

/// None: it has no end, or the library will not have it.
fn body_of(request: &httparse::Request<'_, '_>) -> Option<Framing> {
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
        (None, true) => Some(Framing::Chunks(Chunks::default())),
        // All that comes behind it would be another protocol.
        _ if upgrades => None,
        (None | Some(0), false) if connects => None,
        (length, false) => Some(Framing::Body(length.unwrap_or(0))),
    }
}

fn body(left: &mut u64, bytes: &[u8]) -> Step {
    match usize::try_from(*left) {
        Ok(length) if length <= bytes.len() => Step::End(length),
        _ => {
            *left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            Step::Within
        }
    }
}

/// Where in a chunked body the next byte is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chunks {
    Size { size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd,
    Trailer { is_empty: bool },
    TrailerEnd { is_empty: bool },
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size { size: 0 }
    }
}

impl Chunks {
    fn end(&mut self, bytes: &[u8]) -> Step {
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
                Some(Self::TrailerEnd { is_empty: true }) if *byte == b'\n' => return Step::End(read),
                Some(next) => *self = next,
                None => return Step::Next(bytes.len(), Framing::Unknown),
            }
        }
        Step::Within
    }

    /// None where a byte must not be.
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

    /// Where the requests end that follow each other in `text`, if it comes in pieces of that size.
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
        fn requests_end_where_they_were_put_together(
            chosen in proptest::collection::vec(0..REQUESTS.len(), 1..6), piece in 1_usize..200,
        ) {
            let text: String = chosen.iter().map(|number| REQUESTS[*number]).collect();
            let mut end = 0;
            let expected: Vec<usize> = chosen.iter().map(|number| { end += REQUESTS[*number].len(); end }).collect();
            prop_assert_eq!(ends(&text, piece), expected);
        }

        #[test]
        fn whatever_comes_is_followed_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framing = Framing::default();
            let mut read = 0;
            while let Some(end) = framing.request_end(&bytes[read..]) {
                prop_assert!(end > 0 && read + end <= bytes.len());
                read += end;
            }
        }
    }

    /// Where the library finds the end of the first request; None where it refuses it, waits for more of it or takes it
    /// for a stream without an end.
    fn end_for_the_library(bytes: &[u8]) -> Option<usize> {
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
        /// Seen to fail where an upgrade was taken before a chunked body, and a CONNECT before its length.
        #[test]
        fn a_request_ends_where_the_library_finds_its_end(
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
            // The library starts a clock beside its codec.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let found = LocalSet::new().block_on(&runtime, async { end_for_the_library(text.as_bytes()) });
            if let Some(end) = found {
                let found = ends(&text, piece).first().copied();
                prop_assert_eq!(found, Some(end), "{:?}", text);
            }
        }
    }

    #[test]
    fn what_has_no_end_or_two_is_left_to_the_library() {
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
