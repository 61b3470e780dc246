//! Evaluates a checked condition for one transaction.
//!
//! Guarantees:
//! - The number of steps is limited by [`Node::cost`], which is checked when the rules are built.
//! - A value that is missing or has another type than the operator needs is null, arithmetic with null is null, and a
//!   comparison with null is false. Only entries of metadata can be null.
//! - An evaluation fails only on a division by zero, a number of more than 128 bits, a built text that is too long, or
//!   an amount that is not exact in the currency. It fails the same way each time. [`super::currencies`] leaves the last
//!   reason only where an operand before it fails, so it is never reported.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    node::{Loop, MinorUnits, Node},
    observation::Observation,
    types::{Arithmetic, Comparison, Function},
    value::{Value, lower},
};

/// The longest text that `+` may build, in bytes. All texts of a transaction together are shorter. Without this limit a
/// chain of `map(x, x + x)`, which takes few steps, would double a text until the memory is full.
const BUILT_TEXT_BYTES_MAX: usize = 8 << 10;

/// Why a condition has no result. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EvaluationError {
    #[error("division by zero at character {0} of the condition")]
    DivisionByZero(usize),
    #[error("the result of the operator at character {0} of the condition is too large")]
    TooLarge(usize),
    #[error("money('{amount}') is not exact in {currency}")]
    NotExact { amount: String, currency: &'static str },
}

/// One evaluation.
pub(super) struct Evaluation<'a> {
    observation: &'a Observation<'a>,
    /// The variables and accumulators of the loops that are running.
    bound: Vec<Value<'a>>,
}

type Result<'a> = std::result::Result<Value<'a>, EvaluationError>;

impl<'a> Evaluation<'a> {
    pub fn new(observation: &'a Observation<'a>) -> Self {
        Self { observation, bound: Vec::new() }
    }

    /// Returns the value of a node.
    pub fn value(&mut self, node: &'a Node) -> Result<'a> {
        Ok(match node {
            Node::Integer(number) => Value::Integer(*number),
            Node::Text(text) => Value::text(text),
            Node::Truth(truth) => Value::Truth(*truth),
            Node::Symbol(symbol) => self.observation.value_of(*symbol),
            Node::Money(text, _, minor_units) => return self.money(text, minor_units),
            Node::Bound(index) => self.bound.get(*index).cloned().unwrap_or(Value::Null),
            Node::Entry(name) => self.observation.entry(name),
            Node::EntryNamed(name) => match self.value(name)? {
                Value::Text(name) => self.observation.entry(&name),
                _ => Value::Null,
            },
            Node::HasEntry(name) => Value::Truth(self.observation.has_entry(name)),
            Node::Not(one) => Value::Truth(!self.is_true(one)?),
            Node::Negate(at, one) => match self.value(one)? {
                Value::Integer(number) => {
                    Value::Integer(number.checked_neg().ok_or(EvaluationError::TooLarge(*at))?)
                }
                _ => Value::Null,
            },
            Node::And(two) => Value::Truth(self.both(two, false)?),
            Node::Or(two) => Value::Truth(self.both(two, true)?),
            Node::Choose(three) => {
                let [condition, yes, no] = &**three;
                return if self.is_true(condition)? { self.value(yes) } else { self.value(no) };
            }
            Node::Arithmetic(operator, at, two) => {
                let [left, right] = &**two;
                let (left, right) = (self.value(left)?, self.value(right)?);
                return arithmetic(left, *operator, right, *at);
            }
            Node::Compare(comparison, two) => {
                let [left, right] = &**two;
                let (left, right) = (self.value(left)?, self.value(right)?);
                Value::Truth(order(&left, &right).is_some_and(|order| comparison.holds(order)))
            }
            Node::In(two) => {
                let [one, range] = &**two;
                let one = self.value(one)?;
                Value::Truth(self.range(range)?.iter().any(|each| order(&one, each) == Some(Ordering::Equal)))
            }
            Node::InTexts(one, texts) => match self.value(one)? {
                Value::Text(text) => Value::Truth(texts.contains(&text)),
                _ => Value::Truth(false),
            },
            Node::List(nodes) => {
                Value::List(nodes.iter().map(|node| self.value(node)).collect::<std::result::Result<_, _>>()?)
            }
            Node::Call(function, arguments) => return self.call(*function, arguments),
            Node::Loop(one) => return self.run(one),
        })
    }

    fn is_true(&mut self, node: &'a Node) -> std::result::Result<bool, EvaluationError> {
        Ok(self.value(node)?.is_true())
    }

    /// Returns the result of `&&`, which `decider` = false decides alone, or of `||`, which true decides alone. An operand
    /// that fails does not matter if the other one decides.
    fn both(&mut self, two: &'a [Node; 2], decider: bool) -> std::result::Result<bool, EvaluationError> {
        let [left, right] = two;
        match self.is_true(left) {
            Ok(truth) if truth == decider => Ok(decider),
            Ok(_) => self.is_true(right),
            Err(error) => match self.is_true(right) {
                Ok(truth) if truth == decider => Ok(decider),
                _ => Err(error),
            },
        }
    }

    fn money(&self, text: &str, minor_units: &MinorUnits) -> Result<'a> {
        let currency = self.observation.subject.currency;
        match minor_units.get(usize::from(currency.decimals())) {
            Some(Some(minor)) => Ok(Value::Integer((*minor).into())),
            _ => Err(EvaluationError::NotExact { amount: text.to_owned(), currency: currency.code() }),
        }
    }

    /// Returns the values of a list, or the names of metadata.
    fn range(&mut self, node: &'a Node) -> std::result::Result<Vec<Value<'a>>, EvaluationError> {
        Ok(match self.value(node)? {
            Value::List(values) => values,
            Value::Metadata => self.observation.entry_names().map(Value::text).collect(),
            _ => Vec::new(),
        })
    }

    fn run(&mut self, one: &'a Loop) -> Result<'a> {
        let range = self.range(&one.range)?;
        let start = self.value(&one.start)?;
        let index = self.bound.len();
        self.bound.extend([Value::Null, start]);
        for value in range {
            self.set(index, value);
            if !self.is_true(&one.goes_on)? {
                break;
            }
            let step = self.value(&one.step)?;
            self.set(index + 1, step);
        }
        let result = self.value(&one.result);
        self.bound.truncate(index);
        result
    }

    fn set(&mut self, index: usize, value: Value<'a>) {
        if let Some(bound) = self.bound.get_mut(index) {
            *bound = value;
        }
    }

    fn call(&mut self, function: Function, arguments: &'a [Node]) -> Result<'a> {
        let mut values = arguments.iter().map(|argument| self.value(argument));
        let first = values.next().transpose()?.unwrap_or(Value::Null);
        let second = values.next().transpose()?.unwrap_or(Value::Null);
        let integer = |size: usize| Value::Integer(i128::try_from(size).unwrap_or(i128::MAX));
        Ok(match (function, first, second) {
            (Function::Size, Value::Text(text), _) => integer(text.chars().count()),
            (Function::Size, Value::List(values), _) => integer(values.len()),
            (Function::Size, Value::Metadata, _) => integer(self.observation.entry_names().count()),
            (Function::Contains, Value::Text(text), Value::Text(part)) => Value::Truth(text.contains(&*part)),
            (Function::StartsWith, Value::Text(text), Value::Text(part)) => {
                Value::Truth(text.starts_with(&*part))
            }
            (Function::EndsWith, Value::Text(text), Value::Text(part)) => {
                Value::Truth(text.ends_with(&*part))
            }
            (Function::Lower, Value::Text(text), _) => Value::Text(lower(&text).into()),
            (Function::Int, Value::Integer(number), _) => Value::Integer(number),
            (Function::Int, Value::Text(text), _) => {
                text.parse::<i64>().map_or(Value::Null, |number| Value::Integer(number.into()))
            }
            (Function::String, Value::Text(text), _) => Value::Text(text),
            (Function::String, Value::Integer(number), _) => Value::Text(number.to_string().into()),
            (Function::String, Value::Truth(truth), _) => Value::Text(truth.to_string().into()),
            (Function::Type, value, _) => Value::Text(Cow::Borrowed(value.type_name())),
            _ => Value::Null,
        })
    }
}

/// Compares two values. None: one of them is null, or their types differ.
fn order(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Truth(left), Value::Truth(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn arithmetic<'a>(left: Value<'a>, operator: Arithmetic, right: Value<'a>, at: usize) -> Result<'a> {
    let (left, right) = match (left, operator, right) {
        (Value::Integer(left), _, Value::Integer(right)) => (left, right),
        (Value::Text(left), Arithmetic::Add, Value::Text(right)) => {
            if left.len() + right.len() > BUILT_TEXT_BYTES_MAX {
                return Err(EvaluationError::TooLarge(at));
            }
            return Ok(Value::Text(Cow::Owned(left.into_owned() + &right)));
        }
        (Value::List(mut left), Arithmetic::Add, Value::List(right)) => {
            left.extend(right);
            return Ok(Value::List(left));
        }
        _ => return Ok(Value::Null),
    };
    let result = match operator {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide | Arithmetic::Remainder if right == 0 => {
            return Err(EvaluationError::DivisionByZero(at));
        }
        Arithmetic::Divide => left.checked_div(right),
        Arithmetic::Remainder => left.checked_rem(right),
    };
    result.map(Value::Integer).ok_or(EvaluationError::TooLarge(at))
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}
