//! Checks the types of a parsed condition, all its branches included, and turns it into a [`Node`].
//!
//! Guarantees: a condition that passes is true or false for every transaction, apart from the errors that
//! [`super::evaluate`] names. A condition that mixes units is refused, such as money compared with a number. So is a
//! condition with a value that does not exist, such as a misspelt currency.

use std::sync::Arc;

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, SourceInfo, operators},
};

use super::{
    check_values::{
        check_known_values, common, common_list, described, is_lower, is_metadata, is_zero, literal_value,
        loops_within, remedy, texts_of, written_money,
    },
    lists::Lists,
    node::{Loop, Node},
    rule_file::did_you_mean,
    symbol::Symbol,
    types::{Arithmetic, CALLS, Comparison, Kind, Type, result_of},
};

/// The function that is in no table: its argument is read when the rules are built.
pub(super) const MONEY: &str = "money";
/// The name before that of a list of the rule file.
const LISTS: &str = "lists";
/// The names of types, for `type(metadata.n) == int`.
const TYPE_NAMES: &[&str] = &["int", "string", "bool"];
/// How many loops may run within each other.
const LOOPS_MAX: usize = 2;

const ARITHMETIC: &[(&str, Arithmetic)] = &[
    (operators::ADD, Arithmetic::Add),
    (operators::SUBSTRACT, Arithmetic::Subtract),
    (operators::MULTIPLY, Arithmetic::Multiply),
    (operators::DIVIDE, Arithmetic::Divide),
    (operators::MODULO, Arithmetic::Remainder),
];
const COMPARISONS: &[(&str, Comparison)] = &[
    (operators::EQUALS, Comparison::Equal),
    (operators::NOT_EQUALS, Comparison::NotEqual),
    (operators::LESS, Comparison::Less),
    (operators::LESS_EQUALS, Comparison::AtMost),
    (operators::GREATER, Comparison::Greater),
    (operators::GREATER_EQUALS, Comparison::AtLeast),
];

/// Why a condition is refused, and the byte of its text.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: usize,
    pub message: String,
}

/// Returns the meaning and the type of a name, or why there is none.
type NameLookup<'a> = &'a dyn Fn(&str) -> Result<(Symbol, Type), String>;

/// The meaning of the names in a condition.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub name: NameLookup<'a>,
    pub lists: &'a Lists,
}

type Checked = Result<(Node, Type), Fault>;

/// Checks a condition, which must be true or false.
pub(super) fn condition(
    expression: &IdedExpr,
    source: &SourceInfo,
    lookup: Lookup<'_>,
) -> Result<Node, Fault> {
    let mut checker = Checker { source, lookup, bound: Vec::new() };
    checker.truth(expression)
}

struct Checker<'a> {
    source: &'a SourceInfo,
    lookup: Lookup<'a>,
    /// The variables of the loops around the expression, innermost last.
    bound: Vec<(String, Type)>,
}

impl Checker<'_> {
    fn at(&self, expression: &IdedExpr) -> usize {
        self.source.offset_for(expression.id).map_or(0, |(start, _)| usize::try_from(start).unwrap_or(0))
    }

    fn fault(&self, expression: &IdedExpr, message: impl Into<String>) -> Fault {
        Fault { at: self.at(expression), message: message.into() }
    }

    /// Checks an expression that must be true or false. An entry of metadata counts as false if it is neither.
    fn truth(&mut self, expression: &IdedExpr) -> Result<Node, Fault> {
        match self.any(expression)? {
            // A sum of entries of metadata is never a truth value.
            (node, Type::One(Kind::Truth | Kind::Entry)) if !matches!(node, Node::Arithmetic(..)) => Ok(node),
            (_, found) => {
                let described = described(expression, found);
                Err(self.fault(expression, format!("{described}, where true or false is needed")))
            }
        }
    }

    fn one(&mut self, expression: &IdedExpr) -> Result<(Node, Kind), Fault> {
        match self.any(expression)? {
            (node, Type::One(kind)) => Ok((node, kind)),
            (_, found) => {
                let described = described(expression, found);
                Err(self.fault(expression, format!("{described}, where a single value is needed")))
            }
        }
    }

    fn any(&mut self, expression: &IdedExpr) -> Checked {
        match &expression.expr {
            Expr::Literal(literal) => {
                literal_value(literal).map_err(|message| self.fault(expression, message))
            }
            Expr::Ident(name) => self.name(expression, name),
            Expr::Select(select) => self.select(expression, select),
            Expr::Call(call) => self.call(expression, call),
            Expr::List(list) => self.list(&list.elements),
            Expr::Comprehension(one) => self.comprehension(expression, one),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(self.fault(expression, "maps and structures are not used in rules"))
            }
        }
    }

    fn name(&self, expression: &IdedExpr, name: &str) -> Checked {
        if name == LISTS {
            return Err(self.fault(expression, "lists are used like this: `counterparty in lists.NAME`"));
        }
        if let Some(index) = self.bound.iter().rposition(|(known, _)| known == name) {
            let found = self.bound.get(index).map_or(Type::Metadata, |(_, found)| *found);
            return Ok((Node::Bound(index), found));
        }
        if TYPE_NAMES.contains(&name) {
            return Ok((Node::Text(name.into()), Type::One(Kind::TypeName)));
        }
        let (symbol, found) = (self.lookup.name)(name).map_err(|message| self.fault(expression, message))?;
        Ok((Node::Symbol(symbol), found))
    }

    fn select(&mut self, expression: &IdedExpr, select: &SelectExpr) -> Checked {
        let (node, found) = self.any(&select.operand)?;
        if !is_metadata(&node) {
            let described = described(&select.operand, found);
            return Err(self.fault(expression, format!("{described}, it has no entries; only metadata has")));
        }
        let name = select.field.as_str().into();
        Ok(match select.test {
            true => (Node::HasEntry(name), Type::One(Kind::Truth)),
            false => (Node::Entry(name), Type::One(Kind::Entry)),
        })
    }

    fn list(&mut self, elements: &[IdedExpr]) -> Checked {
        let mut nodes = Vec::with_capacity(elements.len());
        let mut common: Option<Kind> = None;
        for element in elements {
            let (node, kind) = self.one(element)?;
            common = match common {
                None => Some(kind),
                Some(known) => match known.common(kind) {
                    Some(both) => Some(both),
                    None => {
                        let (one, two) = (known.described(), described(element, Type::One(kind)));
                        return Err(self.fault(element, format!("{two}, the values before it are {one}")));
                    }
                },
            };
            nodes.push(node);
        }
        Ok((Node::List(nodes), Type::List(common)))
    }

    fn call(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked {
        let name = call.func_name.as_str();
        if let Some((_, operator)) = ARITHMETIC.iter().find(|(known, _)| *known == name) {
            return self.arithmetic(expression, *operator, &call.args);
        }
        if let Some((_, comparison)) = COMPARISONS.iter().find(|(known, _)| *known == name) {
            return self.comparison(expression, *comparison, &call.args);
        }
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_AND, [left, right]) => self.junction(left, right, Node::And),
            (operators::LOGICAL_OR, [left, right]) => self.junction(left, right, Node::Or),
            (operators::LOGICAL_NOT, [one]) => {
                Ok((Node::Not(Box::new(self.truth(one)?)), Type::One(Kind::Truth)))
            }
            (operators::NOT_STRICTLY_FALSE, [one]) => self.any(one),
            (operators::NEGATE, [one]) => self.negation(expression, one),
            (operators::CONDITIONAL, [condition, yes, no]) => self.choice(expression, condition, yes, no),
            (operators::IN, [one, range]) => self.membership(one, range),
            (operators::INDEX, [map, key]) => self.index(expression, map, key),
            (MONEY, [amount]) if call.target.is_none() => self.money(expression, amount),
            _ => self.function(expression, call),
        }
    }

    fn junction(&mut self, left: &IdedExpr, right: &IdedExpr, node: fn(Box<[Node; 2]>) -> Node) -> Checked {
        let first = self.truth(left)?;
        let second = self.truth(right)?;
        Ok((node(Box::new([first, second])), Type::One(Kind::Truth)))
    }

    fn negation(&mut self, expression: &IdedExpr, one: &IdedExpr) -> Checked {
        match self.one(one)? {
            (Node::Integer(number), kind) => Ok((Node::Integer(number.saturating_neg()), Type::One(kind))),
            (node, kind) if kind.can_be_negated() => {
                let result = if kind == Kind::Entry { Kind::Number } else { kind };
                Ok((Node::Negate(self.at(expression) + 1, Box::new(node)), Type::One(result)))
            }
            (_, kind) => {
                let described = described(one, Type::One(kind));
                Err(self.fault(one, format!("{described}, it has no negative value")))
            }
        }
    }

    fn choice(
        &mut self,
        expression: &IdedExpr,
        condition: &IdedExpr,
        yes: &IdedExpr,
        no: &IdedExpr,
    ) -> Checked {
        let condition = self.truth(condition)?;
        let (first, second) = (self.any(yes)?, self.any(no)?);
        let found = match (first.1, second.1) {
            (Type::One(one), Type::One(two)) => common(&first.0, one, &second.0, two).map(Type::One),
            (Type::List(one), Type::List(two)) => common_list(one, two),
            _ => None,
        };
        let Some(found) = found else {
            let (one, two) = (described(yes, first.1), described(no, second.1));
            return Err(self.fault(expression, format!("the two results differ: {one}, {two}")));
        };
        Ok((Node::Choose(Box::new([condition, first.0, second.0])), found))
    }

    fn arithmetic(&mut self, expression: &IdedExpr, operator: Arithmetic, operands: &[IdedExpr]) -> Checked {
        let [left, right] = operands else { return Err(self.fault(expression, "needs two values")) };
        let ((first, one), (second, two)) = (self.any(left)?, self.any(right)?);
        let found = match (one, two) {
            (Type::One(one), Type::One(two)) => result_of(one, operator, two).map(Type::One),
            (Type::List(one), Type::List(two)) if operator == Arithmetic::Add => common_list(one, two),
            _ => None,
        };
        let Some(found) = found else {
            let remedy = remedy((left, one), (right, two));
            let (one, two) = (described(left, one), described(right, two));
            return Err(self.fault(expression, format!("cannot compute with these: {one}, {two}{remedy}")));
        };
        if is_zero(&second) && matches!(operator, Arithmetic::Divide | Arithmetic::Remainder) {
            return Err(self.fault(right, "division by zero"));
        }
        Ok((Node::Arithmetic(operator, self.at(expression) + 1, Box::new([first, second])), found))
    }

    fn comparison(
        &mut self,
        expression: &IdedExpr,
        comparison: Comparison,
        operands: &[IdedExpr],
    ) -> Checked {
        let [left, right] = operands else { return Err(self.fault(expression, "needs two values")) };
        let ((first, one), (second, two)) = (self.one(left)?, self.one(right)?);
        let Some(both) = common(&first, one, &second, two) else {
            let (one, two) = (Type::One(one), Type::One(two));
            let remedy = remedy((left, one), (right, two));
            let (one, two) = (described(left, one), described(right, two));
            return Err(self.fault(expression, format!("cannot compare these: {one}, {two}{remedy}")));
        };
        let is_equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let is_ordered = [one, two, both].into_iter().all(Kind::is_ordered);
        if !is_equality && !is_ordered {
            let one = described(left, Type::One(one));
            return Err(self.fault(expression, format!("{one}, it can only be compared with == and !=")));
        }
        if is_equality {
            check_known_values((&first, one), &second).map_err(|message| self.fault(right, message))?;
            check_known_values((&second, two), &first).map_err(|message| self.fault(left, message))?;
        }
        Ok((Node::Compare(comparison, Box::new([first, second])), Type::One(Kind::Truth)))
    }

    fn membership(&mut self, one: &IdedExpr, range: &IdedExpr) -> Checked {
        if let Expr::Select(SelectExpr { operand, field, test: false }) = &range.expr
            && matches!(&operand.expr, Expr::Ident(name) if name == LISTS)
        {
            return self.membership_in_named(one, range, field);
        }
        let ((node, kind), (values, found)) = (self.one(one)?, self.any(range)?);
        let fits = match found {
            Type::Metadata => kind.common(Kind::Text).is_some(),
            Type::List(Some(other)) => kind.common(other).is_some(),
            Type::List(None) => true,
            Type::One(_) => false,
        };
        if !fits {
            let (one, two) = (described(one, Type::One(kind)), described(range, found));
            let of = match found {
                Type::List(Some(other)) => format!(" of which each value is {}", other.described()),
                _ => String::new(),
            };
            return Err(self.fault(range, format!("cannot look for this: {one}, {two}{of}")));
        }
        if let (Node::List(listed), Expr::List(written)) = (&values, &range.expr) {
            for (value, written) in listed.iter().zip(&written.elements) {
                check_known_values((&node, kind), value).map_err(|message| self.fault(written, message))?;
            }
        }
        let found = Type::One(Kind::Truth);
        Ok(match texts_of(&values) {
            Some(texts) => (Node::InTexts(Box::new(node), Arc::new(texts)), found),
            None => (Node::In(Box::new([node, values])), found),
        })
    }

    fn membership_in_named(&mut self, one: &IdedExpr, range: &IdedExpr, list: &str) -> Checked {
        let (node, kind) = self.one(one)?;
        if kind.common(Kind::Text).is_none() {
            let described = described(one, Type::One(kind));
            return Err(self.fault(one, format!("cannot look for this: {described}, a list holds texts")));
        }
        let texts = self.lookup.lists.find(list).map_err(|message| self.fault(range, message))?;
        if let Some(text) = texts.not_lower().filter(|_| is_lower(&node)) {
            let message = format!("lower() never gives '{text}' of this list; write the list in lower case");
            return Err(self.fault(range, message));
        }
        Ok((Node::InTexts(Box::new(node), Arc::clone(texts)), Type::One(Kind::Truth)))
    }

    fn index(&mut self, expression: &IdedExpr, map: &IdedExpr, key: &IdedExpr) -> Checked {
        let ((node, found), (key_node, kind)) = (self.any(map)?, self.one(key)?);
        if !is_metadata(&node) || kind.common(Kind::Text).is_none() {
            let described = described(map, found);
            return Err(self.fault(expression, format!("{described}; only metadata['NAME'] has an index")));
        }
        let node = match key_node {
            Node::Text(name) => Node::Entry(name),
            computed => Node::EntryNamed(Box::new(computed)),
        };
        Ok((node, Type::One(Kind::Entry)))
    }

    fn money(&mut self, expression: &IdedExpr, amount: &IdedExpr) -> Checked {
        let Expr::Literal(LiteralValue::String(text)) = &amount.expr else {
            return Err(self.fault(amount, "money() takes an amount in quotes, such as money('125.50')"));
        };
        let node = written_money(text.inner(), self.at(expression))
            .map_err(|message| self.fault(expression, message))?;
        Ok((node, Type::One(Kind::Money)))
    }

    fn function(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked {
        let name = call.func_name.as_str();
        let Some((_, function, parameters, result)) = CALLS.iter().find(|(known, ..)| *known == name) else {
            let known = CALLS.iter().map(|(known, ..)| *known).chain([MONEY]);
            let message = format!("there is no function {name}(){}", did_you_mean(name, known));
            return Err(self.fault(expression, message));
        };
        let arguments: Vec<&IdedExpr> =
            call.target.iter().map(|target| &**target).chain(&call.args).collect();
        if arguments.len() != parameters.len() {
            let message =
                format!("{name}() takes {} values, here it has {}", parameters.len(), arguments.len());
            return Err(self.fault(expression, message));
        }
        let mut nodes = Vec::with_capacity(arguments.len());
        for (argument, parameter) in arguments.iter().zip(*parameters) {
            let (node, found) = self.any(argument)?;
            if !parameter.accepts(found) {
                let (found, wanted) = (described(argument, found), parameter.described());
                return Err(self.fault(argument, format!("{found}, {name}() takes {wanted}")));
            }
            nodes.push(node);
        }
        Ok((Node::Call(*function, nodes), Type::One(*result)))
    }

    fn comprehension(&mut self, expression: &IdedExpr, one: &ComprehensionExpr) -> Checked {
        let depth = loops_within(expression);
        if depth > LOOPS_MAX {
            let message = format!("nests comprehensions {depth} deep; at most {LOOPS_MAX} are allowed");
            return Err(self.fault(expression, message));
        }
        let (range, found) = self.any(&one.iter_range)?;
        let variable = match found {
            Type::Metadata => Kind::Text,
            Type::List(Some(kind)) => kind,
            Type::List(None) => return Err(self.fault(&one.iter_range, "the list is empty")),
            Type::One(_) => {
                let described = described(&one.iter_range, found);
                let message = format!("{described}; a comprehension runs over a list or over metadata");
                return Err(self.fault(&one.iter_range, message));
            }
        };
        let (start, accumulated) = self.any(&one.accu_init)?;
        self.bound.push((one.iter_var.clone(), Type::One(variable)));
        self.bound.push((one.accu_var.clone(), accumulated));
        let checked = self.body(one);
        self.bound.truncate(self.bound.len().saturating_sub(2));
        let (goes_on, step, (result, found)) = checked?;
        Ok((Node::Loop(Box::new(Loop { range, start, goes_on, step, result })), found))
    }

    fn body(&mut self, one: &ComprehensionExpr) -> Result<(Node, Node, (Node, Type)), Fault> {
        let goes_on = self.truth(&one.loop_cond)?;
        let (step, accumulated) = self.any(&one.loop_step)?;
        if let Some((_, found)) = self.bound.last_mut() {
            *found = accumulated;
        }
        Ok((goes_on, step, self.any(&one.result)?))
    }
}
