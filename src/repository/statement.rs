//! SQL of fixed text that PostgreSQL parses and plans once per connection.
//!
//! Plain queries use diesel's DSL. Statements that the DSL cannot express are `.sql` files beside the Rust file that
//! runs them:
//!
//! ```text
//! -- name: find_all_accounts                    <- the file's first line; pg_stat_activity shows it
//! SELECT … FROM unnest(/* account_ids */ $1) …
//! ```
//! ```text
//! statement(include_str!("find_all.sql")).bind::<Array<Text>, _>(account_ids).load::<FoundRow>(connection)
//! ```
//!
//! - Binds are numbered from `$1` in the order of the `bind` calls, and labelled in the text. A number may be used
//!   more than once. Debug builds check that the text names exactly the binds that it gets.
//! - diesel's `sql_query` is parsed by the server at each use, since its text may be anything. A [`Statement`] is made
//!   from a `'static` text, so the connection caches its prepared statement under that text.

use std::{collections::BTreeSet, marker::PhantomData};

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    serialize::ToSql,
    sql_types::{HasSqlType, Untyped},
};
use diesel_async::AsyncPgConnection;

/// A statement of fixed text; see [`statement`].
#[derive(Clone, Copy)]
pub struct Statement {
    sql: &'static str,
}

/// A statement with one more value.
#[derive(Clone, Copy)]
pub struct Bound<Before, SqlType, Value> {
    before: Before,
    value: Value,
    sql_type: PhantomData<SqlType>,
}

/// Starts a statement from its text.
pub fn statement(sql: &'static str) -> Statement {
    Statement { sql }
}

/// A statement that can take one more value.
pub trait Bind: Sized {
    /// Returns the text.
    fn sql(&self) -> &'static str;

    /// Returns the number of values so far.
    fn count(&self) -> usize;

    /// Pushes the text and the values, in order.
    fn push<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()>;

    /// Adds the value of the next `$n`, with its SQL type.
    fn bind<SqlType, Value>(self, value: Value) -> Bound<Self, SqlType, Value> {
        Bound { before: self, value, sql_type: PhantomData }
    }
}

impl Bind for Statement {
    fn sql(&self) -> &'static str {
        self.sql
    }

    fn count(&self) -> usize {
        0
    }

    fn push<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.sql);
        Ok(())
    }
}

impl<Before, SqlType, Value> Bind for Bound<Before, SqlType, Value>
where
    Before: Bind,
    Value: ToSql<SqlType, Pg>,
    Pg: HasSqlType<SqlType>,
{
    fn sql(&self) -> &'static str {
        self.before.sql()
    }

    fn count(&self) -> usize {
        self.before.count() + 1
    }

    fn push<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.before.push(out.reborrow())?;
        out.push_bind_param_value_only::<SqlType, Value>(&self.value)
    }
}

/// Returns the numbers of the binds that a text names.
fn numbers(sql: &str) -> BTreeSet<usize> {
    let after_dollar = sql.split('$').skip(1);
    let digits =
        after_dollar.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

fn check(statement: &impl Bind) {
    debug_assert!(
        numbers(statement.sql()).into_iter().eq(1..=statement.count()),
        "{} values for: {}",
        statement.count(),
        statement.sql()
    );
}

impl QueryFragment<Pg> for Statement {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        check(self);
        self.push(out)
    }
}

impl<Before, SqlType, Value> QueryFragment<Pg> for Bound<Before, SqlType, Value>
where
    Before: Bind,
    Value: ToSql<SqlType, Pg>,
    Pg: HasSqlType<SqlType>,
{
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        check(self);
        self.push(out)
    }
}

impl QueryId for Statement {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Before, SqlType, Value> QueryId for Bound<Before, SqlType, Value> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = Untyped;
}

impl<Before, SqlType, Value> Query for Bound<Before, SqlType, Value> {
    type SqlType = Untyped;
}

impl diesel::query_dsl::RunQueryDsl<AsyncPgConnection> for Statement {}

impl<Before, SqlType, Value> diesel::query_dsl::RunQueryDsl<AsyncPgConnection>
    for Bound<Before, SqlType, Value>
{
}

#[cfg(test)]
mod tests {
    use diesel::{
        query_builder::QueryBuilder,
        sql_types::{BigInt, Text},
    };

    use super::*;

    const TWICE: &str = "SELECT /* a */ $1 || $1 FROM t WHERE n = /* n */ $2";

    #[test]
    fn the_text_stays_as_it_is_and_the_values_follow_in_order() {
        let query = statement(TWICE).bind::<Text, _>("a").bind::<BigInt, _>(7_i64);
        let mut builder = <Pg as diesel::backend::Backend>::QueryBuilder::default();
        query.to_sql(&mut builder, &Pg).unwrap();
        assert_eq!(builder.finish(), TWICE);
        let text = diesel::debug_query::<Pg, _>(&query).to_string();
        assert!(text.ends_with("-- binds: [\"a\", 7]"), "{text}");
    }

    #[test]
    #[should_panic(expected = "1 values for: SELECT")]
    fn a_missing_value_fails_in_a_debug_build() {
        let query = statement(TWICE).bind::<Text, _>("a");
        let _ = query.to_sql(&mut <Pg as diesel::backend::Backend>::QueryBuilder::default(), &Pg);
    }
}
