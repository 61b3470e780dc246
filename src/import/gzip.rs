//! Reads gzip members one after the other. Some programs pad the file with zeros, which are ignored. Anything else after
//! a member is an error.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

const MAGIC_FIRST_BYTE: u8 = 0x1f;

/// The text of all members.
pub(super) struct GzipInput<R> {
    /// None after the last member.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipInput<R> {
    pub(super) fn new(file: R) -> Self {
        Self { member: Some(GzDecoder::new(file)) }
    }
}

impl<R: BufRead> Read for GzipInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(member) = self.member.take() else { return Ok(0) };
            let mut file = member.into_inner();
            if has_member(&mut file)? {
                self.member = Some(GzDecoder::new(file));
            }
        }
    }
}

/// Skips zeros. Returns whether another member follows.
fn has_member(file: &mut impl BufRead) -> io::Result<bool> {
    let mut is_padded = false;
    loop {
        let bytes = file.fill_buf()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        match bytes.get(zeros) {
            None if bytes.is_empty() => return Ok(false),
            None => is_padded = true,
            Some(&MAGIC_FIRST_BYTE) if zeros == 0 && !is_padded => return Ok(true),
            Some(_) => {
                return Err(io::Error::other(
                    "has bytes after the end of its gzip data; is it damaged, or are two files joined?",
                ));
            }
        }
        file.consume(zeros);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text.as_bytes()).expect("written");
        gzip.finish().expect("finished")
    }

    fn read(bytes: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        GzipInput::new(BufReader::with_capacity(7, bytes)).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn members_and_zeros_are_read_and_other_bytes_are_refused() {
        assert_eq!(read(&[member("a"), member(""), member("b")].concat()).expect("read"), "ab");
        assert_eq!(read(&[member("a"), vec![0; 500]].concat()).expect("read"), "a");
        for end in [b"x".to_vec(), [vec![0; 20], b"x".to_vec()].concat(), [vec![0; 9], member("b")].concat()]
        {
            assert!(read(&[member("a"), end].concat()).is_err());
        }
        let whole = member("abc");
        assert!(read(&whole[..whole.len() - 3]).is_err());
    }
}
