//! Measures the text of a condition before it is parsed, so that no condition can exhaust the parser's stack or time.

/// The longest text of a condition in bytes. Room for a list of several thousand texts.
const TEXT_BYTES_MAX: usize = 128 << 10;
/// The deepest nesting of brackets and of the prefixes `!` and `-`.
const NESTING_MAX: usize = 24;
/// The most operators. Each may be a level of the parsed expression.
const OPERATORS_MAX: usize = 250;

/// The most names, values, brackets, commas and operators. The parser takes 2.5 KiB for each.
const TOKENS_MAX: usize = 25_000;

/// Why a condition is refused, and the byte where its text breaks the limit.
pub(super) type TooLarge = (usize, String);

/// Checks the length, the nesting and the number of operators.
pub(super) fn check(text: &str) -> Result<(), TooLarge> {
    if text.len() > TEXT_BYTES_MAX {
        return Err((0, format!("has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len())));
    }
    let mut scan = Scan::default();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let next = match byte {
            b'\'' | b'"' => end_of_text(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'/') => end_of_line(bytes, at),
            _ => at + 1,
        };
        scan.take(*byte, bytes.get(at + 1).copied()).map_err(|message| (at, message))?;
        at = next;
    }
    Ok(())
}

#[derive(Default)]
struct Scan {
    /// The levels that each open bracket has opened: itself and the prefixes before it.
    open: Vec<usize>,
    nesting: usize,
    /// The prefixes whose operand has not begun.
    prefixes: usize,
    operators: usize,
    tokens: usize,
    /// Whether the byte before belongs to a name or a number.
    in_word: bool,
    /// Whether a value has ended, so that `-` is an operator.
    after_value: bool,
}

impl Scan {
    fn take(&mut self, byte: u8, next: Option<u8>) -> Result<(), String> {
        let is_word = byte.is_ascii_alphanumeric() || byte == b'_';
        let continues = byte.is_ascii_whitespace() || (is_word && self.in_word);
        self.tokens += usize::from(!continues);
        self.in_word = is_word;
        match byte {
            b'(' | b'[' | b'{' => {
                self.open.push(self.prefixes + 1);
                self.nesting += self.prefixes + 1;
                self.prefixes = 0;
                self.after_value = false;
            }
            b')' | b']' | b'}' => {
                self.nesting -= self.open.pop().unwrap_or_default();
                self.after_value = true;
            }
            b'!' if next != Some(b'=') => self.prefixes += 1,
            b'-' if !self.after_value => self.prefixes += 1,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' | b'&' | b'|' | b'?' | b'.' => {
                // Operators of two characters are counted at their second one.
                let is_first_half = matches!(
                    (byte, next),
                    (b'&', Some(b'&')) | (b'|', Some(b'|')) | (b'<' | b'>' | b'=' | b'!', Some(b'='))
                );
                self.operators += usize::from(!is_first_half);
                self.after_value = false;
            }
            b',' | b':' => self.after_value = false,
            byte if byte.is_ascii_whitespace() => {}
            _ => {
                self.prefixes = 0;
                self.after_value = true;
            }
        }
        if self.tokens > TOKENS_MAX {
            return Err(format!("has more than {TOKENS_MAX} names, values and operators"));
        }
        if self.nesting + self.prefixes > NESTING_MAX {
            return Err(format!("nests more than {NESTING_MAX} levels deep"));
        }
        if self.operators > OPERATORS_MAX {
            return Err(format!(
                "has more than {OPERATORS_MAX} operators; split it into rules, or use a list with `in`"
            ));
        }
        Ok(())
    }
}

/// Returns the index after the text that begins at `start`, or the end if it is not closed.
fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let quote = bytes.get(start).copied().unwrap_or_default();
    let is_raw = start > 0 && matches!(bytes.get(start - 1), Some(b'r' | b'R'));
    let width = if bytes.get(start..start + 3) == Some(&[quote; 3]) { 3 } else { 1 };
    let mut at = start + width;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'\\' && !is_raw {
            at += 2;
        } else if bytes.get(at..at + width).is_some_and(|end| end.iter().all(|byte| *byte == quote)) {
            return at + width;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn end_of_line(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<String> {
        check(text).err().map(|(_, message)| message)
    }

    #[test]
    fn length_nesting_and_operators_are_limited() {
        let refused = |text: &str, part: &str| {
            let message = refusal(text).unwrap_or_default();
            assert!(message.contains(part), "{message:?} for {text:.60}");
        };
        refused(&format!("'{}'", "x".repeat(TEXT_BYTES_MAX)), "bytes");
        refused(&format!("hour in [{}]", ["1"; 13_000].join(",")), "25000 names");
        refused(&format!("{}1{} > 0", "(".repeat(25), ")".repeat(25)), "24 levels");
        refused(&format!("{}is_reversal", "!".repeat(25)), "24 levels");
        refused(&format!("{}is_reversal{}", "!(".repeat(13), ")".repeat(13)), "24 levels");
        refused(&format!("{}1 > 0", "-".repeat(30)), "24 levels");
        refused(&format!("{} > 0", ["1"; 1_200].join("+")), "250 operators");
        refused(&format!("{} > 0", ["1"; 300].join(" - ")), "250 operators");
        refused(&["a"; 300].join(" && "), "250 operators");
        refused(&["a"; 300].join("."), "250 operators");
    }

    #[test]
    fn ordinary_conditions_pass_and_texts_are_not_measured() {
        let many: Vec<String> = (0..10_000).map(|n| format!("'x-{n:06}'")).collect();
        for text in [
            format!("{}1{} > 0", "(".repeat(20), ")".repeat(20)),
            ["a"; 200].join(" && "),
            format!("counterparty in [{}]", many.join(",")),
            format!("description == '{}'", "(".repeat(100)),
            format!("description == '\\'{}'", "!".repeat(100)),
            format!("description == r'\\' // {}", "(".repeat(100)),
            format!("description == '''it's {}'''", "[".repeat(100)),
            "(a) - (b) != -1 && !(c)".to_owned(),
            ")))]]]".to_owned(),
            "'never closed ((((((((((((((((((((((((((((((((((".to_owned(),
        ] {
            assert_eq!(refusal(&text), None, "{text:.80}");
        }
    }
}
