//! The types of a condition, and the tables of the types that operators and functions accept and return.

use super::{
    feature::Unit,
    symbol::{Symbol, Variable},
};

/// The kind of a single value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number that is written in the rule. It can stand for a number or for seconds.
    Integer,
    Number,
    /// Minor units of the currency of the transaction.
    Money,
    Seconds,
    Text,
    /// The text `credit` or `debit`.
    Direction,
    /// The text of an ISO 4217 code.
    Currency,
    Truth,
    /// The result of `type()`.
    TypeName,
    /// An entry of metadata: a text, a number, a truth value, or null.
    Entry,
}

/// The type of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    One(Kind),
    /// A list. None: it is empty, so the kind of its values is open.
    List(Option<Kind>),
    Metadata,
}

/// An arithmetic operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// A function of one or two arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Lower,
    Int,
    String,
    Type,
}

/// The arguments that a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    Text,
    /// A text, a list or metadata.
    Sized,
    /// A text or a number.
    Numeral,
    /// Any single value but money.
    Printable,
    Any,
}

/// A function: name, parameters, result. `text.contains(part)` is `contains(text, part)`.
pub(super) const CALLS: &[(&str, Function, &[Parameter], Kind)] = &[
    ("size", Function::Size, &[Parameter::Sized], Kind::Number),
    ("contains", Function::Contains, &[Parameter::Text, Parameter::Text], Kind::Truth),
    ("startsWith", Function::StartsWith, &[Parameter::Text, Parameter::Text], Kind::Truth),
    ("endsWith", Function::EndsWith, &[Parameter::Text, Parameter::Text], Kind::Truth),
    ("lower", Function::Lower, &[Parameter::Text], Kind::Text),
    ("int", Function::Int, &[Parameter::Numeral], Kind::Number),
    ("string", Function::String, &[Parameter::Printable], Kind::Text),
    ("type", Function::Type, &[Parameter::Any], Kind::TypeName),
];

const EACH: &[Arithmetic] =
    &[Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide, Arithmetic::Remainder];
const SAME_UNIT: &[Arithmetic] = &[Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Remainder];
const SCALE: &[Arithmetic] = &[Arithmetic::Multiply, Arithmetic::Divide];

/// Left operand, operators, right operand, result. Anything else has no meaning: money times money, money plus seconds.
const RESULTS: &[(Kind, &[Arithmetic], Kind, Kind)] = &[
    (Kind::Integer, EACH, Kind::Integer, Kind::Integer),
    (Kind::Number, EACH, Kind::Number, Kind::Number),
    (Kind::Money, SAME_UNIT, Kind::Money, Kind::Money),
    (Kind::Money, &[Arithmetic::Divide], Kind::Money, Kind::Number),
    (Kind::Money, SCALE, Kind::Number, Kind::Money),
    (Kind::Number, &[Arithmetic::Multiply], Kind::Money, Kind::Money),
    (Kind::Seconds, SCALE, Kind::Number, Kind::Seconds),
    (Kind::Number, &[Arithmetic::Multiply], Kind::Seconds, Kind::Seconds),
    (Kind::Seconds, SAME_UNIT, Kind::Seconds, Kind::Seconds),
    (Kind::Seconds, &[Arithmetic::Divide], Kind::Seconds, Kind::Number),
    (Kind::Text, &[Arithmetic::Add], Kind::Text, Kind::Text),
];

/// Returns the kind of the result, or None if the operator has no meaning for these operands.
pub(super) fn result_of(left: Kind, operator: Arithmetic, right: Kind) -> Option<Kind> {
    // Both may be numbers, or both texts.
    if (left, operator, right) == (Kind::Entry, Arithmetic::Add, Kind::Entry) {
        return Some(Kind::Entry);
    }
    RESULTS.iter().find_map(|(first, operators, second, result)| {
        let fits =
            left.can_be().contains(first) && right.can_be().contains(second) && operators.contains(&operator);
        fits.then_some(*result)
    })
}

impl Kind {
    /// The kinds as which an operand of this kind is accepted.
    fn can_be(self) -> &'static [Self] {
        match self {
            Self::Integer => &[Self::Integer, Self::Number, Self::Seconds],
            Self::Direction | Self::Currency => &[Self::Text],
            Self::Entry => &[Self::Number, Self::Text, Self::Seconds],
            Self::Number => &[Self::Number],
            Self::Money => &[Self::Money],
            Self::Seconds => &[Self::Seconds],
            Self::Text => &[Self::Text],
            Self::Truth => &[Self::Truth],
            Self::TypeName => &[Self::TypeName],
        }
    }

    /// Returns the common kind of two values that can be compared, or be in one list.
    pub fn common(self, other: Self) -> Option<Self> {
        match (self, other) {
            (one, two) if one == two => Some(one),
            (Self::Integer, two @ (Self::Number | Self::Seconds)) => Some(two),
            (one @ (Self::Number | Self::Seconds), Self::Integer) => Some(one),
            (Self::Entry, two) if !matches!(two, Self::Money | Self::TypeName) => Some(Self::Entry),
            (one, Self::Entry) if !matches!(one, Self::Money | Self::TypeName) => Some(Self::Entry),
            (one, two) if one.is_text() && two.is_text() => Some(Self::Text),
            _ => None,
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Direction | Self::Currency)
    }

    /// Returns whether values of this kind have an order.
    pub fn is_ordered(self) -> bool {
        !matches!(self, Self::Truth | Self::TypeName | Self::Direction | Self::Currency)
    }

    pub fn can_be_negated(self) -> bool {
        matches!(self, Self::Integer | Self::Number | Self::Money | Self::Seconds | Self::Entry)
    }

    /// Returns the kind with its article, for messages.
    pub fn described(self) -> &'static str {
        match self {
            Self::Integer | Self::Number => "a number",
            Self::Money => "money",
            Self::Seconds => "a number of seconds",
            Self::Text | Self::Direction | Self::Currency => "a text",
            Self::Truth => "true or false",
            Self::TypeName => "the name of a type",
            Self::Entry => "an entry of metadata",
        }
    }
}

impl Type {
    pub fn described(self) -> &'static str {
        match self {
            Self::One(kind) => kind.described(),
            Self::List(_) => "a list",
            Self::Metadata => "all of metadata",
        }
    }
}

impl Parameter {
    pub fn accepts(self, argument: Type) -> bool {
        let Type::One(kind) = argument else {
            return matches!(self, Self::Sized | Self::Any);
        };
        match self {
            Self::Any => true,
            Self::Printable => kind != Kind::Money,
            Self::Numeral => kind.is_text() || matches!(kind, Kind::Integer | Kind::Number | Kind::Entry),
            Self::Text | Self::Sized => kind.is_text() || kind == Kind::Entry,
        }
    }

    pub fn described(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Sized => "a text, a list or metadata",
            Self::Numeral => "a text or a number",
            Self::Printable => "a single value other than money",
            Self::Any => "a value",
        }
    }
}

/// Returns the type of a name. `unit` is the unit of the feature, if it is one.
pub(super) fn type_of(symbol: Symbol, unit: Option<Unit>) -> Type {
    Type::One(match symbol {
        Symbol::Amount(_) => Kind::Money,
        Symbol::Feature(_) => match unit {
            Some(Unit::Money) => Kind::Money,
            Some(Unit::Seconds) => Kind::Seconds,
            Some(Unit::Number) | None => Kind::Number,
        },
        Symbol::Variable(variable) => match variable {
            Variable::Amount | Variable::SignedAmount | Variable::BalanceAfter | Variable::BalanceBefore => {
                Kind::Money
            }
            Variable::Direction => Kind::Direction,
            Variable::Currency => Kind::Currency,
            Variable::AccountId | Variable::Counterparty | Variable::Description => Kind::Text,
            Variable::AccountSeq | Variable::Hour | Variable::Weekday => Kind::Number,
            Variable::IsReversal => Kind::Truth,
            Variable::Metadata => return Type::Metadata,
        },
    })
}
