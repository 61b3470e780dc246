//! CEL expressions, limited to exact and cheap operations: no floating-point literals, a short list of functions, and
//! only variables that exist. A program is compiled once. An evaluation borrows the transaction through a resolver and
//! copies only computed values.

use std::collections::BTreeSet;

use cel::{
    Context, IdedExpr, Program, Value,
    common::{
        ast::{EntryExpr, Expr, LiteralValue},
        types::CelBool,
    },
    context::VariableResolver,
};

/// The functions that a rule may call. `matches` is absent because it compiles its pattern at each call.
pub(super) const FUNCTIONS: &[&str] =
    &["money", "size", "contains", "startsWith", "endsWith", "int", "string", "type"];
/// The names of types, for `type(metadata.n) == int`.
const TYPE_NAMES: &[&str] = &["int", "string", "bool"];

/// A compiled expression and the names in it.
#[derive(Debug)]
pub(super) struct Expression {
    program: Program,
    /// The free variables.
    pub variables: BTreeSet<String>,
    /// The entries of `metadata` that it reads.
    pub metadata_names: BTreeSet<String>,
}

#[derive(Default)]
struct Mentions {
    variables: BTreeSet<String>,
    bound: BTreeSet<String>,
    functions: BTreeSet<String>,
    metadata_names: BTreeSet<String>,
    has_float: bool,
}

impl Expression {
    /// Compiles the text and makes all checks that need no transaction. The error text is for the analyst.
    pub fn compile(text: &str) -> Result<Self, String> {
        let program = Program::compile(text).map_err(|error| error.to_string())?;
        let mut mentions = Mentions::default();
        mentions.walk(program.expression());
        if mentions.has_float {
            return Err(
                "a number with a decimal point is a float, which is not exact; write money(\"10.50\")".into(),
            );
        }
        let operator = |name: &str| !name.starts_with(|first: char| first.is_ascii_alphabetic());
        if let Some(unknown) =
            mentions.functions.iter().find(|name| !operator(name) && !FUNCTIONS.contains(&name.as_str()))
        {
            let nearest = super::rule_file::did_you_mean(unknown, FUNCTIONS.iter().copied());
            return Err(format!("there is no function {unknown}(){nearest}"));
        }
        let free = |name: &String| !mentions.bound.contains(name) && !TYPE_NAMES.contains(&name.as_str());
        let variables = mentions.variables.iter().filter(|name| free(name)).cloned().collect();
        Ok(Self { program, variables, metadata_names: mentions.metadata_names })
    }

    /// Evaluates the expression. `root` holds the functions, `variables` the transaction.
    pub fn evaluate<'a>(
        &self,
        root: &'a Context<'a, 'a>,
        variables: &'a dyn VariableResolver,
    ) -> Result<bool, String> {
        let mut scope = root.new_inner_scope();
        scope.set_variable_resolver(variables);
        let value =
            Value::resolve_val(self.program.expression(), &scope).map_err(|error| error.to_string())?;
        match value.downcast_ref::<CelBool>() {
            Some(truth) => Ok(*truth.inner()),
            None => Err(format!("gives a {} instead of true or false", value.get_type().name())),
        }
    }
}

impl Mentions {
    fn walk(&mut self, node: &IdedExpr) {
        match &node.expr {
            Expr::Unspecified => {}
            Expr::Ident(name) => {
                if !name.starts_with('@') {
                    self.variables.insert(name.clone());
                }
            }
            Expr::Literal(literal) => self.has_float |= matches!(literal, LiteralValue::Double(_)),
            Expr::Select(select) => {
                self.note_metadata(&select.operand, &select.field);
                self.walk(&select.operand);
            }
            Expr::Call(call) => {
                self.functions.insert(call.func_name.clone());
                if let [map, key] = call.args.as_slice()
                    && let Expr::Literal(LiteralValue::String(name)) = &key.expr
                {
                    self.note_metadata(map, name.inner());
                }
                call.target.iter().for_each(|target| self.walk(target));
                call.args.iter().for_each(|argument| self.walk(argument));
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.walk(element)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.walk_entry(&entry.expr)),
            Expr::Struct(fields) => fields.entries.iter().for_each(|entry| self.walk_entry(&entry.expr)),
            Expr::Comprehension(loops) => {
                self.bound.insert(loops.iter_var.clone());
                self.bound.extend(loops.iter_var2.clone());
                self.bound.insert(loops.accu_var.clone());
                let parts =
                    [&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result];
                parts.into_iter().for_each(|part| self.walk(part));
            }
        }
    }

    fn walk_entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.walk(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.walk(&entry.key);
                self.walk(&entry.value);
            }
        }
    }

    fn note_metadata(&mut self, operand: &IdedExpr, field: &str) {
        if matches!(&operand.expr, Expr::Ident(name) if name == "metadata") {
            self.metadata_names.insert(field.to_owned());
        }
    }
}

/// Returns the functions for currencies with this many decimals.
pub(super) fn root_context(decimals: u8) -> Result<Context<'static, 'static>, String> {
    let mut root = Context::default();
    let money = move |text: std::sync::Arc<String>| -> Result<i64, cel::ExecutionError> {
        minor_units(&text, decimals).map_err(|error| cel::ExecutionError::function_error("money", error))
    };
    root.add_function("money", money).map_err(|error| error.to_string())?;
    Ok(root)
}

/// Converts a decimal text to minor units. Zeros after the currency's last decimal are allowed, so that one text serves
/// yen and euro. Other digits there are an error, because amounts are never rounded.
pub(super) fn minor_units(text: &str, decimals: u8) -> Result<i64, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, whole) = whole.strip_prefix('-').map_or((false, whole), |rest| (true, rest));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return Err(format!("\"{text}\" is not a plain decimal number such as \"125.50\""));
    }
    let decimals = usize::from(decimals);
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > decimals {
        return Err(format!("\"{text}\" has more decimals than a currency with {decimals} decimals"));
    }
    let padded = format!("{whole}{fraction:0<decimals$}");
    let minor = padded.parse::<i64>().ok().filter(|minor| *minor <= crate::domain::AMOUNT_MINOR_MAX);
    let minor = minor.ok_or_else(|| format!("\"{text}\" is larger than any amount of the ledger"))?;
    Ok(if negative { -minor } else { minor })
}
