//! SQL of fixed text that PostgreSQL parses and plans once per connection.
//!
//! diesel's `sql_query` is parsed anew at each use, since its text may be anything. A [`Statement`] is made from a
//! literal, so it goes through the connection's cache of prepared statements. Each `?` in the text takes the next
//! bind, once.

use std::marker::PhantomData;

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    serialize::ToSql,
    sql_types::{HasSqlType, Untyped},
};
use diesel_async::AsyncPgConnection;

/// A statement whose text is a literal; see [`statement`].
#[derive(Clone, Copy)]
pub struct Statement {
    sql: &'static str,
}

/// A statement with one more value for its next `?`.
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

/// What can take one more value.
pub trait Bind: Sized {
    /// The text behind the last `?` that has a value, up to the next `?` or the end.
    fn piece_after(&self) -> (&'static str, Option<&'static str>);

    /// Gives the next `?` a value of the named SQL type.
    fn bind<SqlType, Value>(self, value: Value) -> Bound<Self, SqlType, Value> {
        Bound { before: self, value, sql_type: PhantomData }
    }
}

fn split(text: &'static str) -> (&'static str, Option<&'static str>) {
    match text.split_once('?') {
        Some((piece, rest)) => (piece, Some(rest)),
        None => (text, None),
    }
}

impl Bind for Statement {
    fn piece_after(&self) -> (&'static str, Option<&'static str>) {
        split(self.sql)
    }
}

impl<Before: Bind, SqlType, Value> Bind for Bound<Before, SqlType, Value> {
    fn piece_after(&self) -> (&'static str, Option<&'static str>) {
        split(self.before.piece_after().1.unwrap_or_default())
    }
}

impl QueryFragment<Pg> for Statement {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.piece_after().0);
        Ok(())
    }
}

impl<Before, SqlType, Value> QueryFragment<Pg> for Bound<Before, SqlType, Value>
where
    Before: QueryFragment<Pg> + Bind,
    Value: ToSql<SqlType, Pg>,
    Pg: HasSqlType<SqlType>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.before.walk_ast(out.reborrow())?;
        out.push_bind_param::<SqlType, Value>(&self.value)?;
        out.push_sql(self.piece_after().0);
        Ok(())
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
    use diesel::sql_types::{BigInt, Text};

    use super::*;

    #[test]
    fn each_question_mark_takes_the_next_value() {
        let query =
            statement("SELECT ? || x FROM t WHERE n = ? AND y").bind::<Text, _>("a").bind::<BigInt, _>(7_i64);
        let text = diesel::debug_query::<Pg, _>(&query).to_string();
        assert!(text.starts_with("SELECT $1 || x FROM t WHERE n = $2 AND y -- binds: [\"a\", 7]"), "{text}");
    }
}
