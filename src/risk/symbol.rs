//! The names that rules and reasons can use.

/// The meaning of a name in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Variable(Variable),
    /// The index of an amount.
    Amount(usize),
    /// The index of a feature.
    Feature(usize),
}

/// The variables of the transaction itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Amount,
    SignedAmount,
    Direction,
    Currency,
    BalanceAfter,
    BalanceBefore,
    AccountId,
    AccountSeq,
    Counterparty,
    Description,
    Metadata,
    Hour,
    Weekday,
    IsReversal,
}

pub(super) const VARIABLES: &[(&str, Variable)] = &[
    ("amount", Variable::Amount),
    ("signed_amount", Variable::SignedAmount),
    ("direction", Variable::Direction),
    ("currency", Variable::Currency),
    ("balance_after", Variable::BalanceAfter),
    ("balance_before", Variable::BalanceBefore),
    ("account_id", Variable::AccountId),
    ("account_seq", Variable::AccountSeq),
    ("counterparty", Variable::Counterparty),
    ("description", Variable::Description),
    ("metadata", Variable::Metadata),
    ("hour", Variable::Hour),
    ("weekday", Variable::Weekday),
    ("is_reversal", Variable::IsReversal),
];
