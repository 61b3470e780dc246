//! The reason of a rule: a text with `{names}` that are replaced by values. `{{` and `}}` stand for braces.

use super::symbol::{Symbol, Variable};

#[derive(Debug)]
pub(super) struct Reason(Vec<ReasonPart>);

#[derive(Debug)]
enum ReasonPart {
    Text(String),
    Value(Symbol),
    Metadata(String),
}

impl Reason {
    /// Parses the text and resolves its names with `lookup`. The error text is for the analyst.
    pub fn parse(text: &str, lookup: impl Fn(&str) -> Result<Symbol, String>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '{' | '}' if rest.peek() == Some(&character) => {
                    rest.next();
                    plain.push(character);
                }
                '{' => {
                    let name: String = rest.by_ref().take_while(|next| *next != '}').collect();
                    parts.push(ReasonPart::Text(std::mem::take(&mut plain)));
                    parts.push(placeholder(&name, &lookup)?);
                }
                '}' => return Err("a single }; write }} for a brace".into()),
                other => plain.push(other),
            }
        }
        parts.push(ReasonPart::Text(plain));
        Ok(Self(parts))
    }

    /// Returns the text with the values of one transaction. `value` returns the value of a name, and `metadata` the
    /// value of an entry of `metadata`.
    pub fn fill(
        &self,
        value: impl Fn(Symbol) -> String,
        metadata: impl Fn(&str) -> Option<String>,
    ) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                ReasonPart::Text(plain) => text.push_str(plain),
                ReasonPart::Value(symbol) => text.push_str(&value(*symbol)),
                ReasonPart::Metadata(name) => match metadata(name) {
                    Some(entry) => text.push_str(&entry),
                    None => text.push_str("none"),
                },
            }
        }
        text
    }
}

fn placeholder(name: &str, lookup: impl Fn(&str) -> Result<Symbol, String>) -> Result<ReasonPart, String> {
    if let Some(field) = name.strip_prefix("metadata.") {
        return Ok(ReasonPart::Metadata(field.to_owned()));
    }
    match lookup(name)? {
        Symbol::Variable(Variable::Metadata) => {
            Err("name one entry of metadata, such as {metadata.country}".into())
        }
        symbol => Ok(ReasonPart::Value(symbol)),
    }
}
