//! Texts that are made of cells: `"{Date} {Time}"`, `"{Currency|upper}"`, `"paypal:{Currency}"`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// A text with cells in braces, by heading. `{{` is a brace. Cells are trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Cell { heading: String, changes: Vec<Change> },
}

/// A change of a cell's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Upper,
    Lower,
    /// Keeps only ASCII letters and digits.
    Alphanumeric,
}

impl Change {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "upper" => Some(Self::Upper),
            "lower" => Some(Self::Lower),
            "alphanumeric" => Some(Self::Alphanumeric),
            _ => None,
        }
    }

    fn of(self, text: &str) -> String {
        match self {
            Self::Upper => text.to_uppercase(),
            Self::Lower => text.to_lowercase(),
            Self::Alphanumeric => text.chars().filter(char::is_ascii_alphanumeric).collect(),
        }
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let (cell, after) = after
                .split_once('}')
                .ok_or("has a \"{\" without a \"}\"; write {Heading}, or {{ for a brace")?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(cell_part(cell)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// Returns the headings that the template names.
    pub(super) fn headings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Cell { heading, .. } => Some(heading.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Returns the text if it has no cell.
    pub(super) fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the text for one row. `cell` returns the trimmed cell of a heading.
    pub(super) fn render<'a>(&self, cell: &impl Fn(&str) -> &'a str) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Cell { heading, changes } if changes.is_empty() => text.push_str(cell(heading)),
                Part::Cell { heading, changes } => {
                    let changed =
                        changes.iter().fold(cell(heading).to_owned(), |text, change| change.of(&text));
                    text.push_str(&changed);
                }
            }
        }
        text
    }
}

fn cell_part(cell: &str) -> Result<Part, String> {
    let mut heading = cell;
    let mut changes = Vec::new();
    while let Some((before, name)) = heading.rsplit_once('|') {
        // A heading may have a bar itself.
        let Some(change) = Change::parse(name.trim()) else { break };
        changes.insert(0, change);
        heading = before;
    }
    match heading.trim() {
        "" => Err("has {} without a heading".to_owned()),
        heading => Ok(Part::Cell { heading: heading.to_owned(), changes }),
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A text of a transaction: one template, several that are joined, or one for each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    One(Template),
    Joined(Vec<Template>),
    ByDirection { credit: Template, debit: Template },
}

impl Text {
    pub(super) fn headings(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::One(template) => Box::new(template.headings()),
            Self::Joined(templates) => Box::new(templates.iter().flat_map(Template::headings)),
            Self::ByDirection { credit, debit } => Box::new(credit.headings().chain(debit.headings())),
        }
    }

    /// Returns the text for one row. Empty parts are not joined.
    pub(super) fn render<'a>(&self, is_credit: bool, join: &str, cell: &impl Fn(&str) -> &'a str) -> String {
        match self {
            Self::One(template) => template.render(cell),
            Self::ByDirection { credit, .. } if is_credit => credit.render(cell),
            Self::ByDirection { debit, .. } => debit.render(cell),
            Self::Joined(templates) => {
                let parts = templates.iter().map(|template| template.render(cell));
                parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(join)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByDirection {
    credit: Template,
    debit: Template,
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a text, a list of texts, or { credit = \"…\", debit = \"…\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Template::parse(text).map(Text::One).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Text, A::Error> {
        let mut templates = Vec::new();
        while let Some(template) = texts.next_element()? {
            templates.push(template);
        }
        Ok(Text::Joined(templates))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
        let ByDirection { credit, debit } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Text::ByDirection { credit, debit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> String {
        let cell = |heading: &str| match heading {
            "No." => "409'",
            "a|b" => "Bar",
            _ => "",
        };
        Template::parse(template).expect("valid").render(&cell)
    }

    #[test]
    fn cells_are_changed_and_put_into_the_text() {
        assert_eq!(render("x:{No.|alphanumeric}-{a|b|upper}"), "x:409-BAR");
        assert_eq!(render("{a|b}{absent}{{y"), "Bar{y");
        assert_eq!(Template::parse("main").expect("valid").constant(), Some("main"));
        for wrong in ["{", "a {b", "{}", "{|upper}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
