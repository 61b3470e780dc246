//! Checks of the values that are written in a condition: their types, texts that a name never has, and remedies for
//! mixed-up units.

use cel::{
    IdedExpr,
    common::ast::{Expr, LiteralValue},
};

use super::{
    money::{DECIMALS_MAX, minor_units},
    node::{MinorUnits, Node},
    rule_file::did_you_mean,
    symbol::{Symbol, Variable},
    text_set::TextSet,
    types::{Function, Kind, Type},
    value::lower,
};
use crate::domain::{CURRENCIES, Currency};

const DIRECTIONS: [&str; 2] = ["credit", "debit"];

pub(super) fn is_zero(node: &Node) -> bool {
    matches!(node, Node::Integer(0))
}

/// Returns the texts of a list that holds nothing but written texts.
pub(super) fn texts_of(node: &Node) -> Option<TextSet> {
    let Node::List(values) = node else { return None };
    let mut texts = TextSet::default();
    let all = values.iter().all(|value| matches!(value, Node::Text(text) if texts.insert(text)));
    all.then_some(texts)
}

/// Returns a written value and its type.
pub(super) fn literal_value(literal: &LiteralValue) -> Result<(Node, Type), &'static str> {
    let (node, kind) = match literal {
        LiteralValue::Boolean(truth) => (Node::Truth(*truth.inner()), Kind::Truth),
        LiteralValue::Int(number) => (Node::Integer((*number.inner()).into()), Kind::Integer),
        LiteralValue::UInt(number) => (Node::Integer((*number.inner()).into()), Kind::Integer),
        LiteralValue::String(text) => (Node::Text(text.inner().into()), Kind::Text),
        LiteralValue::Double(_) => {
            return Err(
                "a number with a decimal point is a float, which is not exact; write money('10.50') for an amount",
            );
        }
        LiteralValue::Null => {
            return Err("null is not written in rules; !has(metadata.NAME) is true if the entry is missing");
        }
        LiteralValue::Bytes(_) => return Err("bytes are not used in rules; write a text in quotes"),
    };
    Ok((node, Type::One(kind)))
}

/// Returns `money('…')`, which stands at the byte `at`. It is exact in at least one currency.
pub(super) fn written_money(text: &str, at: usize) -> Result<Node, String> {
    let exact = |decimals| minor_units(text, decimals);
    let mut minor = MinorUnits::default();
    for (decimals, minor) in (0..).zip(&mut minor) {
        *minor = exact(decimals).ok();
    }
    if minor.iter().all(Option::is_none) {
        exact(DECIMALS_MAX)?;
    }
    Ok(Node::Money(text.into(), at, minor))
}

/// Refuses a written value that the other operand can never have.
pub(super) fn check_known_values((node, kind): (&Node, Kind), value: &Node) -> Result<(), String> {
    match (kind, value) {
        (Kind::Direction, Node::Text(text)) if !DIRECTIONS.contains(&&**text) => {
            let nearest = did_you_mean(text, DIRECTIONS.into_iter());
            Err(format!("direction is 'credit' or 'debit', never '{text}'{nearest}"))
        }
        (Kind::Currency, Node::Text(text)) if Currency::parse(text).is_err() => {
            Err(format!("there is no currency '{text}'{}", nearest_currency(text)))
        }
        (_, Node::Text(text)) if is_lower(node) && lower(text) != **text => {
            Err(format!("lower() never gives '{text}'; write '{}'", lower(text)))
        }
        (_, Node::Integer(number)) => match node {
            Node::Symbol(Symbol::Variable(Variable::Hour)) if !(0..=23).contains(number) => {
                Err(format!("hour is 0 to 23, never {number}"))
            }
            Node::Symbol(Symbol::Variable(Variable::Weekday)) if !(1..=7).contains(number) => {
                Err(format!("weekday is 1 (Monday) to 7 (Sunday), never {number}"))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Returns whether the expression is `lower(…)`.
pub(super) fn is_lower(node: &Node) -> bool {
    matches!(node, Node::Call(Function::Lower, _))
}

/// Prefers a code of the same letters: `ERU` is rather a slip for `EUR` than for `ERN`.
fn nearest_currency(written: &str) -> String {
    let letters = |code: &str| {
        let mut letters = code.to_ascii_uppercase().into_bytes();
        letters.sort_unstable();
        letters
    };
    let codes = || CURRENCIES.iter().map(|(code, _)| *code);
    match codes().find(|code| letters(code) == letters(written)) {
        Some(code) => did_you_mean(written, [code].into_iter()),
        None => did_you_mean(written, codes()),
    }
}

/// Returns what to write instead, for two operands that do not fit.
pub(super) fn remedy(left: (&IdedExpr, Type), right: (&IdedExpr, Type)) -> String {
    let (Type::One(one), Type::One(two)) = (left.1, right.1) else { return String::new() };
    let written = rewritten(left.0, two).or_else(|| rewritten(right.0, one));
    let kinds = [one, two];
    written.unwrap_or_else(|| {
        if kinds.contains(&Kind::Money) {
            "; compare money with money, such as money('125.50') or a named amount".to_owned()
        } else if kinds.contains(&Kind::Seconds) && kinds.contains(&Kind::Number) {
            "; compare seconds with seconds, such as 90 * 86400".to_owned()
        } else {
            String::new()
        }
    })
}

/// Returns how a written value is written as the kind of the other operand.
fn rewritten(expression: &IdedExpr, other: Kind) -> Option<String> {
    let Expr::Literal(literal) = &expression.expr else { return None };
    match (literal, other) {
        (LiteralValue::Int(number), Kind::Money) => {
            let number = number.inner();
            Some(format!(
                "; write money('{number}') for {number} units of the currency, or use a named amount"
            ))
        }
        (LiteralValue::String(text), Kind::Money) => Some(format!("; write money('{}')", text.inner())),
        (LiteralValue::String(text), Kind::Number | Kind::Seconds) => {
            let number: i64 = text.inner().parse().ok()?;
            Some(format!("; write {number} without quotes"))
        }
        _ => None,
    }
}

pub(super) fn is_metadata(node: &Node) -> bool {
    matches!(node, Node::Symbol(Symbol::Variable(Variable::Metadata)))
}

/// Returns the common kind of two values. A written zero is an amount, too: it is the same in every currency.
pub(super) fn common(first: &Node, one: Kind, second: &Node, two: Kind) -> Option<Kind> {
    match (one, two) {
        (Kind::Money, Kind::Integer) if is_zero(second) => Some(Kind::Money),
        (Kind::Integer, Kind::Money) if is_zero(first) => Some(Kind::Money),
        (one, two) => one.common(two),
    }
}

/// Returns the type of a list that holds the values of two lists.
pub(super) fn common_list(one: Option<Kind>, two: Option<Kind>) -> Option<Type> {
    match (one, two) {
        (Some(one), Some(two)) => one.common(two).map(|both| Type::List(Some(both))),
        (one, two) => Some(Type::List(one.or(two))),
    }
}

/// Returns a sentence about an expression: `amount is money`.
pub(super) fn described(expression: &IdedExpr, found: Type) -> String {
    let name = match &expression.expr {
        Expr::Ident(name) => name.clone(),
        Expr::Literal(LiteralValue::Int(number)) => number.inner().to_string(),
        Expr::Literal(LiteralValue::String(text)) if text.inner().len() <= 40 => {
            format!("'{}'", text.inner())
        }
        Expr::Select(select) if !select.test => format!("metadata.{}", select.field),
        _ => "this".to_owned(),
    };
    format!("{name} is {}", found.described())
}

/// Returns how deep loops are nested in the expression.
pub(super) fn loops_within(expression: &IdedExpr) -> usize {
    match &expression.expr {
        Expr::Comprehension(one) => {
            let inner = loops_within(&one.loop_step).max(loops_within(&one.accu_init));
            loops_within(&one.iter_range).max(inner + 1)
        }
        Expr::Call(call) => {
            call.target.iter().map(|target| &**target).chain(&call.args).map(loops_within).max().unwrap_or(0)
        }
        Expr::Select(select) => loops_within(&select.operand),
        Expr::List(list) => list.elements.iter().map(loops_within).max().unwrap_or(0),
        _ => 0,
    }
}
