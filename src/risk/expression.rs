//! A compiled condition: parsed by the `cel` crate, checked and evaluated here.
//!
//! The crate's own evaluation is not used. It knows no types before it runs, fails on a missing entry of metadata, and
//! has no limit on the number of its steps.

use cel::Program;

use super::{
    bounds,
    check::{self, Fault, Lookup},
    currencies,
    evaluate::Evaluation,
    node::Node,
    observation::Observation,
};

/// The most steps of an evaluation.
const COST_MAX: u64 = 20_000;

/// A compiled condition.
#[derive(Debug)]
pub(super) struct Expression {
    node: Node,
}

impl Expression {
    /// Compiles the text. The error text is for the analyst.
    pub fn compile(text: &str, lookup: Lookup<'_>) -> Result<Self, Fault> {
        bounds::check(text).map_err(|(at, message)| Fault { at, message })?;
        let program = Program::compile(text).map_err(|errors| syntax_error(text, &errors))?;
        let node = check::condition(program.expression(), program.source_info(), lookup)?;
        currencies::check(&node)?;
        let cost = node.cost();
        if cost > COST_MAX {
            let message = format!("takes up to {cost} steps an event; at most {COST_MAX} are allowed");
            return Err(Fault { at: 0, message });
        }
        Ok(Self { node })
    }

    /// Returns how many steps an evaluation takes at most.
    pub fn cost(&self) -> u64 {
        self.node.cost()
    }

    /// Evaluates the condition. It is false if it is null.
    pub fn evaluate(&self, observation: &Observation<'_>) -> Result<bool, String> {
        let value = Evaluation::new(observation).value(&self.node).map_err(|error| error.to_string())?;
        Ok(value.is_true())
    }
}

/// Returns the first error of the parser, without the source text that it appends.
fn syntax_error(text: &str, errors: &cel::ParseErrors) -> Fault {
    let Some(error) = errors.errors.first() else {
        return Fault { at: 0, message: "cannot be parsed".into() };
    };
    let (line, column) = error.pos;
    let lines_before = usize::try_from(line - 1).unwrap_or(0);
    let start: usize = text.split_inclusive('\n').take(lines_before).map(str::len).sum();
    let message: String = error.msg.chars().take(200).collect();
    Fault { at: start + usize::try_from(column - 1).unwrap_or(0), message }
}
