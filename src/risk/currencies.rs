//! Checks that each `money('…')` of a condition is exact in every currency that a transaction can have where it is
//! evaluated.
//!
//! In `currency == 'EUR' && amount > money('9.99')` the amount is evaluated for euros only. In
//! `currency == 'EUR' || amount > money('9.99')` it is evaluated for every other currency, so it is refused.

use super::{
    check::Fault,
    node::{MinorUnits, Node},
    symbol::{Symbol, Variable},
    types::Comparison,
};
use crate::domain::CURRENCIES;

/// The currency that a message names first: analysts know that it has no decimals.
const KNOWN_EXAMPLE: &str = "JPY";

/// Refuses an amount that is not exact in one of the currencies.
pub(super) fn check(condition: &Node) -> Result<(), Fault> {
    narrowed(condition, Currencies::all()).map(|_| ())
}

/// A set of currencies, by their index in [`CURRENCIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Currencies([bool; CURRENCIES.len()]);

impl Currencies {
    fn all() -> Self {
        Self([true; CURRENCIES.len()])
    }

    fn none() -> Self {
        Self([false; CURRENCIES.len()])
    }

    /// Returns the currencies of this set that are listed, and the others.
    fn split(mut self, is_listed: impl Fn(&str) -> bool) -> Branches {
        let mut others = self;
        for ((listed, other), (code, _)) in self.0.iter_mut().zip(&mut others.0).zip(CURRENCIES) {
            let is_listed = is_listed(code);
            *listed &= is_listed;
            *other &= !is_listed;
        }
        Branches { yes: self, no: others }
    }

    fn or(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(one, two)| *one |= two);
        self
    }

    fn codes(&self) -> impl Iterator<Item = (&'static str, u8)> {
        CURRENCIES.iter().zip(self.0).filter(|(_, is_in)| *is_in).map(|(currency, _)| *currency)
    }
}

/// The currencies that are possible after a condition that was true, and after one that was not.
#[derive(Debug, Clone, Copy)]
struct Branches {
    yes: Currencies,
    no: Currencies,
}

impl Branches {
    fn or(self, other: Self) -> Self {
        Self { yes: self.yes.or(other.yes), no: self.no.or(other.no) }
    }
}

/// Checks an expression that is evaluated for these currencies.
fn narrowed(node: &Node, possible: Currencies) -> Result<Branches, Fault> {
    Ok(match node {
        Node::Money(text, at, minor_units) => {
            exact(text, *at, minor_units, possible)?;
            Branches { yes: possible, no: possible }
        }
        Node::Truth(true) => Branches { yes: possible, no: Currencies::none() },
        Node::Truth(false) => Branches { yes: Currencies::none(), no: possible },
        Node::Not(one) => {
            let Branches { yes, no } = narrowed(one, possible)?;
            Branches { yes: no, no: yes }
        }
        Node::And(two) => {
            let [left, right] = &**two;
            let first = narrowed(left, possible)?;
            let second = narrowed(right, first.yes)?;
            Branches { yes: second.yes, no: first.no.or(second.no) }
        }
        Node::Or(two) => {
            let [left, right] = &**two;
            let first = narrowed(left, possible)?;
            let second = narrowed(right, first.no)?;
            Branches { yes: first.yes.or(second.yes), no: second.no }
        }
        Node::Choose(three) => {
            let [condition, yes, no] = &**three;
            let condition = narrowed(condition, possible)?;
            narrowed(yes, condition.yes)?.or(narrowed(no, condition.no)?)
        }
        Node::Compare(comparison @ (Comparison::Equal | Comparison::NotEqual), two) => {
            let ([Node::Text(code), other] | [other, Node::Text(code)]) = &**two else {
                return each(&**two, possible);
            };
            if !is_currency(other) {
                return each(&**two, possible);
            }
            let Branches { yes, no } = possible.split(|known| known == &**code);
            if *comparison == Comparison::Equal {
                Branches { yes, no }
            } else {
                Branches { yes: no, no: yes }
            }
        }
        Node::InTexts(one, texts) if is_currency(one) => possible.split(|code| texts.contains(code)),
        Node::EntryNamed(one) | Node::Negate(_, one) | Node::InTexts(one, _) => {
            each(std::slice::from_ref(&**one), possible)?
        }
        Node::Arithmetic(_, _, two) | Node::Compare(_, two) | Node::In(two) => each(&**two, possible)?,
        Node::List(nodes) | Node::Call(_, nodes) => each(nodes, possible)?,
        Node::Loop(one) => {
            for part in [&one.range, &one.start, &one.goes_on, &one.step, &one.result] {
                narrowed(part, possible)?;
            }
            Branches { yes: possible, no: possible }
        }
        Node::Integer(_) | Node::Text(_) | Node::Symbol(_) | Node::Bound(_) | Node::Entry(_) => {
            Branches { yes: possible, no: possible }
        }
        Node::HasEntry(_) => Branches { yes: possible, no: possible },
    })
}

/// Checks the parts of an expression that says nothing about the currency.
fn each(nodes: &[Node], possible: Currencies) -> Result<Branches, Fault> {
    for node in nodes {
        narrowed(node, possible)?;
    }
    Ok(Branches { yes: possible, no: possible })
}

fn is_currency(node: &Node) -> bool {
    matches!(node, Node::Symbol(Symbol::Variable(Variable::Currency)))
}

fn exact(text: &str, at: usize, minor_units: &MinorUnits, possible: Currencies) -> Result<(), Fault> {
    let is_exact = |decimals: u8| matches!(minor_units.get(usize::from(decimals)), Some(Some(_)));
    let mut inexact = possible.codes().filter(|(_, decimals)| !is_exact(*decimals)).map(|(code, _)| code);
    let Some(first) = inexact.next() else { return Ok(()) };
    let code = if inexact.any(|code| code == KNOWN_EXAMPLE) { KNOWN_EXAMPLE } else { first };
    let fitting = || possible.codes().filter(|(_, decimals)| is_exact(*decimals)).map(|(code, _)| code);
    let remedy = match fitting().find(|code| *code == "EUR").or_else(|| fitting().next()) {
        Some(fits) => format!("put `currency == '{fits}' &&` before it, or use a named amount"),
        None => "write fewer decimals, or use a named amount".to_owned(),
    };
    let message = format!("money('{text}') is not exact in {code}, which the transaction may have; {remedy}");
    Err(Fault { at, message })
}

#[cfg(test)]
mod tests {
    use crate::risk::Ruleset;

    fn refusal(when: &str) -> Option<String> {
        let text = format!(
            "[levels]\nmedium = 40\nhigh = 70\n[lists.euro]\nvalues = [\"EUR\"]\n[lists.some]\nvalues = [\"EUR\", \"JPY\"]\n\
             [[rules]]\nid = \"r\"\nwhen = {when:?}\nscore = 1\nreason = \"r\"\n"
        );
        Ruleset::parse(&text).err().map(|error| error.message)
    }

    /// Seen to fail when a condition that merely named the currency sufficed: the first rule failed on each yen.
    #[test]
    fn an_amount_is_exact_in_each_currency_for_which_it_is_evaluated() {
        let cents = "amount > money('9.99')";
        for (before, code) in [
            ("currency == 'EUR' || ", "JPY"),
            ("currency != 'EUR' && ", "JPY"),
            ("!(currency == 'EUR') && ", "JPY"),
            ("currency in ['EUR', 'JPY'] && ", "JPY"),
            ("currency in lists.some && ", "JPY"),
            ("!(currency in lists.euro) && ", "JPY"),
            ("currency == metadata.currency && ", "JPY"),
            ("(currency == 'EUR' || hour > 5) && ", "JPY"),
            ("!(currency == 'EUR' && hour > 5) && ", "JPY"),
            ("currency == 'EUR' ? false : ", "JPY"),
            ("(hour > 5 ? currency == 'EUR' : true) && ", "JPY"),
            ("['EUR'].exists(code, code == currency) && ", "JPY"),
            ("currency == 'KRW' && ", "KRW"),
            ("currency != 'JPY' && ", "BIF"),
        ] {
            let refused = refusal(&format!("{before}{cents}")).unwrap_or_default();
            assert!(
                refused.starts_with(&format!("money('9.99') is not exact in {code}")),
                "{before}: {refused}"
            );
        }
        for before in [
            "currency == 'EUR' && ",
            "'EUR' == currency && ",
            "currency != 'EUR' || ",
            "!(currency == 'EUR') || ",
            "!(currency != 'EUR' || hour > 5) && ",
            "currency in ['EUR', 'USD'] && ",
            "currency in lists.euro && ",
            "(currency == 'EUR' || currency == 'USD') && hour > 5 && ",
            "currency == 'EUR' ? hour > 5 && amount < money('9.99') : false && ",
            "currency != 'EUR' ? false : ",
            "(hour > 5 ? currency == 'EUR' : currency == 'USD') && ",
            "currency == 'EUR' && ['x'].exists(x, counterparty == x) && ",
        ] {
            assert_eq!(refusal(&format!("{before}{cents}")), None, "{before}");
        }
        assert_eq!(refusal("currency == 'EUR' && [1].exists(x, amount * x > money('9.99'))"), None);
        assert!(refusal("[1].exists(x, amount * x > money('9.99'))").is_some());
    }
}
