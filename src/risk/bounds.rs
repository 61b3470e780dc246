//! Measures the text of a condition before it is parsed, so that no condition can exhaust the parser's stack or time.

/// The longest text of a condition in bytes. Room for a list of several thousand texts.
const TEXT_BYTES_MAX: usize = 128 << 10;
/// The deepest nesting of brackets and of the prefixes `!` and `-`.
const NESTING_MAX: usize = 24;
/// The most operators, `in` and indexes included. Each may be a level of the parsed expression.
const OPERATORS_MAX: usize = 250;
/// The most names, values, brackets, commas and operators. The parser takes 2.5 KiB for each.
const TOKENS_MAX: usize = 25_000;

/// Why a condition is refused, and the byte where its text breaks the limit.
pub(super) type TooLarge = (usize, String);

/// Checks the length, the nesting and the number of operators. Refuses what the parser's lexer would skip or cut
/// differently, such as a text that is not closed: the parser could find more there than was measured.
pub(super) fn check(text: &str) -> Result<(), TooLarge> {
    if text.len() > TEXT_BYTES_MAX {
        return Err((0, format!("has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len())));
    }
    let mut scan = Scan::default();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_token(bytes, at).map_err(|message| (at, message.to_owned()))?;
        scan.take(bytes.get(at..end).unwrap_or_default()).map_err(|message| (at, message))?;
        at = end;
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
    /// Whether a value has ended, so that `-` is an operator and `[` an index.
    after_value: bool,
}

impl Scan {
    fn take(&mut self, token: &[u8]) -> Result<(), String> {
        let is_blank = token.iter().all(u8::is_ascii_whitespace);
        self.tokens += usize::from(!is_blank);
        match token {
            [b'(' | b'[' | b'{'] => {
                // Each index is a level of the parsed expression, as an operator is.
                self.operators += usize::from(token == b"[" && self.after_value);
                self.open.push(self.prefixes + 1);
                self.nesting += self.prefixes + 1;
                self.prefixes = 0;
                self.after_value = false;
            }
            [b')' | b']' | b'}'] => {
                self.nesting -= self.open.pop().unwrap_or_default();
                self.after_value = true;
            }
            [b'!'] => self.prefixes += 1,
            [b'-'] if !self.after_value => self.prefixes += 1,
            _ if is_operator(token) => {
                self.operators += 1;
                self.after_value = false;
            }
            [b',' | b':'] => self.after_value = false,
            [b'/', b'/', ..] => {}
            _ if is_blank => {}
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

/// Returns whether the token may be a level of the parsed expression. The lexer ends a number before `in`.
fn is_operator(token: &[u8]) -> bool {
    matches!(
        token,
        [b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'?' | b'.']
            | [b'<' | b'>' | b'=' | b'!', b'=']
            | [b'&', b'&']
            | [b'|', b'|']
            | [b'i', b'n']
            | [b'0'..=b'9', .., b'i', b'n']
    )
}

/// Returns the index after the token that begins at `start`, or why the lexer would not read it as one.
fn end_of_token(bytes: &[u8], start: usize) -> Result<usize, &'static str> {
    let rest = bytes.get(start..).unwrap_or_default();
    let length = match rest {
        [b'\'' | b'"', ..] => return end_of_text(bytes, start),
        [b'/', b'/', ..] => return Ok(end_of_line(bytes, start)),
        [b'&', b'&', ..] | [b'|', b'|', ..] | [b'<' | b'>' | b'=' | b'!', b'=', ..] => 2,
        [b'&' | b'|' | b'=', ..] => return Err("a single & | or = is no operator; write && || or =="),
        [b'`', ..] => return Err("names in backticks are not used in rules"),
        [byte, ..] if is_word(*byte) => rest.iter().take_while(|byte| is_word(**byte)).count(),
        _ => 1,
    };
    Ok(start + length)
}

/// Returns the index after the text that begins at `start`, or why the lexer would read another text.
fn end_of_text(bytes: &[u8], start: usize) -> Result<usize, &'static str> {
    let quote = bytes.get(start).copied().unwrap_or_default();
    let is_raw = is_raw(bytes.get(..start).unwrap_or_default())?;
    let width = if bytes.get(start..start + 3) == Some(&[quote; 3]) { 3 } else { 1 };
    let mut at = start + width;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'\\' && !is_raw {
            at +=
                escape_length(bytes, at).ok_or("a text has an unknown escape; write \\\\ for a backslash")?;
        } else if bytes.get(at..at + width).is_some_and(|end| end.iter().all(|byte| *byte == quote)) {
            return Ok(at + width);
        } else if width == 1 && matches!(byte, b'\n' | b'\r') {
            return Err("the text that begins here is not closed on its line");
        } else {
            at += 1;
        }
    }
    Err("the text that begins here is not closed")
}

/// Returns whether the text after these bytes is raw, so that a backslash stands for itself.
fn is_raw(before: &[u8]) -> Result<bool, &'static str> {
    let length = before.iter().rev().take_while(|byte| is_word(**byte)).count();
    match before.get(before.len() - length..).unwrap_or_default() {
        [b'r' | b'R'] | [b'b' | b'B', b'r' | b'R'] => Ok(true),
        [.., b'r' | b'R'] => Err("an operator is missing before this text"),
        _ => Ok(false),
    }
}

/// Returns the length of the escape sequence at `at`, if CEL knows it.
fn escape_length(bytes: &[u8], at: usize) -> Option<usize> {
    let kind = *bytes.get(at + 1)?;
    let length = match kind {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => 2,
        b'0'..=b'3' | b'x' | b'X' => 4,
        b'u' => 6,
        b'U' => 10,
        _ => return None,
    };
    let is_digit = |digit: &u8| match kind {
        b'0'..=b'3' => matches!(digit, b'0'..=b'7'),
        _ => digit.is_ascii_hexdigit(),
    };
    bytes.get(at + 2..at + length)?.iter().all(is_digit).then_some(length)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
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
        refused(&["hour"; 300].join(" in "), "250 operators");
        refused(&"1in ".repeat(300), "250 operators");
        refused(&format!("metadata{} == 1", "['a']".repeat(300)), "250 operators");
        refused(&format!("hour > 0 // (\n{}", "+ 1".repeat(300)), "250 operators");
    }

    /// In each of them, the lexer reads operators where this file would read a text, a comment or a name.
    #[test]
    fn text_that_the_lexer_reads_differently_is_refused() {
        for (text, part) in [
            ("'\n+ 1 + 1'", "not closed on its line"),
            ("1 + '''\n+ 1 + 1", "not closed"),
            ("'never closed (((", "not closed"),
            ("'\\q + 1 + 1'", "unknown escape"),
            ("'\\u12 + 1 + 1'", "unknown escape"),
            ("'\\08 + 1 + 1'", "unknown escape"),
            ("xr'\\' '+ 1 + 1", "an operator is missing"),
            ("metadata.`//` + 1 + 1", "backticks"),
            ("1 =// + 1 + 1", "a single"),
            ("1 &'+ 1 + 1'", "a single"),
        ] {
            assert!(refusal(text).is_some_and(|message| message.contains(part)), "{text}");
        }
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
            format!("{}1{} > 0", "[1][0] - ".repeat(50), " in [1]".repeat(50)),
            r"description == br'\' + R'\' + '\x41\u00e9\101\`\?'".to_owned(),
        ] {
            assert_eq!(refusal(&text), None, "{text:.80}");
        }
    }
}
