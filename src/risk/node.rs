//! A condition whose types are checked, ready to be evaluated, and the most steps that an evaluation can take.

use std::sync::Arc;

use super::{
    money::DECIMALS_MAX,
    symbol::{Symbol, Variable},
    text_set::TextSet,
    types::{Arithmetic, Comparison, Function},
};
use crate::domain::METADATA_ENTRIES_MAX;

/// The cost of an operation on texts, compared with one on numbers: texts can be long.
const TEXT_COST: u64 = 10;

/// Money in minor units by the number of decimals of the currency. None: it is not exact there.
pub(super) type MinorUnits = [Option<i64>; DECIMALS_MAX as usize + 1];

/// A checked expression.
#[derive(Debug)]
pub(super) enum Node {
    Integer(i128),
    Text(Box<str>),
    Truth(bool),
    Symbol(Symbol),
    /// A written amount, and its position in the text.
    Money(Box<str>, usize, MinorUnits),
    /// A variable of a loop, by its index.
    Bound(usize),
    /// The entry of metadata with this name.
    Entry(Box<str>),
    /// The entry of metadata whose name is computed.
    EntryNamed(Box<Self>),
    HasEntry(Box<str>),
    Not(Box<Self>),
    Negate(usize, Box<Self>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    /// The condition, and the values if it is true and if it is false.
    Choose(Box<[Self; 3]>),
    /// The number is the position of the operator in the text, for errors.
    Arithmetic(Arithmetic, usize, Box<[Self; 2]>),
    Compare(Comparison, Box<[Self; 2]>),
    In(Box<[Self; 2]>),
    /// Whether a set holds the text. A look-up costs the same, however large the set is.
    InTexts(Box<Self>, Arc<TextSet>),
    List(Vec<Self>),
    Call(Function, Vec<Self>),
    Loop(Box<Loop>),
}

/// A loop over a list or over the names of metadata: `all`, `exists`, `exists_one`, `filter`, `map`. The variable and the
/// accumulator take the next two indexes of [`Node::Bound`].
#[derive(Debug)]
pub(super) struct Loop {
    pub range: Node,
    pub start: Node,
    pub goes_on: Node,
    pub step: Node,
    pub result: Node,
}

impl Node {
    /// Returns how many steps an evaluation takes at most.
    pub fn cost(&self) -> u64 {
        let parts = match self {
            Self::Integer(_) | Self::Truth(_) | Self::Symbol(_) | Self::Money(..) | Self::HasEntry(_) => 0,
            Self::Text(_) | Self::Bound(_) | Self::Entry(_) => 0,
            Self::EntryNamed(name) => name.cost(),
            Self::Not(one) | Self::Negate(_, one) => one.cost(),
            Self::And(two) | Self::Or(two) | Self::Compare(_, two) => of_all(&**two),
            Self::Arithmetic(_, _, two) | Self::In(two) => {
                of_all(&**two).saturating_add(two.iter().map(Self::length).sum())
            }
            Self::Choose(three) => of_all(&**three),
            Self::InTexts(one, _) => one.cost().saturating_add(TEXT_COST),
            Self::List(values) => of_all(values),
            Self::Call(_, arguments) => of_all(arguments).saturating_add(TEXT_COST),
            Self::Loop(one) => one.cost(),
        };
        parts.saturating_add(1)
    }

    /// Returns how many values a list or metadata has at most; 0 for a single value.
    fn length(&self) -> u64 {
        match self {
            Self::List(values) => u64::try_from(values.len()).unwrap_or(u64::MAX),
            Self::Symbol(Symbol::Variable(Variable::Metadata)) => METADATA_ENTRIES_MAX as u64,
            Self::Loop(one) if matches!(one.start, Self::List(_)) => one.range.length(),
            Self::Arithmetic(_, _, two) => two.iter().map(Self::length).fold(0, u64::saturating_add),
            Self::Choose(three) => three.iter().map(Self::length).max().unwrap_or(0),
            _ => 0,
        }
    }
}

impl Loop {
    fn cost(&self) -> u64 {
        let times = self.range.length();
        // A list that the loop builds is copied at each step.
        let copied = if matches!(self.start, Node::List(_)) { times } else { 0 };
        let step = self.goes_on.cost().saturating_add(self.step.cost()).saturating_add(copied);
        times.saturating_mul(step).saturating_add(self.range.cost()).saturating_add(self.result.cost())
    }
}

fn of_all(nodes: &[Node]) -> u64 {
    nodes.iter().map(Node::cost).fold(0, u64::saturating_add)
}
