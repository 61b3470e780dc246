//! `src/repository/schema.rs` describes the tables exactly as a freshly migrated database has them.

use std::{fmt::Write, fs, path::PathBuf};

use ledger::repository::verification;

use crate::support::postgres::TestDatabase;

/// With this variable set, the test writes the file instead of comparing it.
const WRITE_VARIABLE: &str = "LEDGER_WRITE_SCHEMA";

/// Returns one row for each column: table, column, type, whether it is nullable, and its position in the primary key.
const COLUMNS: &str = "
    SELECT c.relname, a.attname, t.typname, NOT a.attnotnull, array_position(i.indkey::smallint[], a.attnum)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> '__diesel_schema_migrations'
    ORDER BY c.relname COLLATE \"C\", a.attnum";

/// Returns one row for each foreign key: table, referenced table, column.
const FOREIGN_KEYS: &str = "
    SELECT f.conrelid::regclass::text, f.confrelid::regclass::text, a.attname
    FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
    WHERE f.contype = 'f' ORDER BY 1, 2";

struct Column {
    name: String,
    sql_type: String,
    key_position: Option<i32>,
}

struct Table {
    name: String,
    columns: Vec<Column>,
}

impl Table {
    /// Returns the columns of the primary key.
    fn key(&self) -> String {
        let mut key: Vec<&Column> =
            self.columns.iter().filter(|column| column.key_position.is_some()).collect();
        key.sort_by_key(|column| column.key_position);
        assert!(!key.is_empty(), "the table {} has no primary key", self.name);
        key.into_iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn print(&self, text: &mut String) {
        writeln!(text, "diesel::table! {{\n    {} ({}) {{", self.name, self.key()).unwrap();
        for Column { name, sql_type, .. } in &self.columns {
            writeln!(text, "        {name} -> {sql_type},").unwrap();
        }
        text.push_str("    }\n}\n\n");
    }
}

/// Returns diesel's name of a type: `int8` is `Int8`, and `_int8` an array of it.
fn sql_type(name: &str, is_nullable: bool) -> String {
    let name = match name.strip_prefix('_') {
        Some(element) => format!("Array<{}>", sql_type(element, true)),
        None => format!("{}{}", name[..1].to_uppercase(), &name[1..]),
    };
    if is_nullable { format!("Nullable<{name}>") } else { name }
}

async fn tables(client: &tokio_postgres::Client) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for row in client.query(COLUMNS, &[]).await.unwrap() {
        let name: String = row.get(0);
        if tables.last().is_none_or(|table| table.name != name) {
            tables.push(Table { name, columns: Vec::new() });
        }
        let column =
            Column { name: row.get(1), sql_type: sql_type(row.get(2), row.get(3)), key_position: row.get(4) };
        tables.last_mut().unwrap().columns.push(column);
    }
    tables
}

/// Prints the schema of a database as `diesel print-schema` does.
async fn print_schema(client: &tokio_postgres::Client) -> String {
    let tables = tables(client).await;
    let mut text = String::new();
    for table in &tables {
        table.print(&mut text);
    }
    for row in client.query(FOREIGN_KEYS, &[]).await.unwrap() {
        let (child, parent, column): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        writeln!(text, "diesel::joinable!({child} -> {parent} ({column}));").unwrap();
    }
    text.push_str("\ndiesel::allow_tables_to_appear_in_same_query!(\n");
    for Table { name, .. } in &tables {
        writeln!(text, "    {name},").unwrap();
    }
    text.push_str(");\n");
    writeln!(text, "\n/// The names of all tables.\npub(super) const TABLES: [&str; {}] = [", tables.len())
        .unwrap();
    for Table { name, .. } in &tables {
        writeln!(text, "    \"{name}\",").unwrap();
    }
    text.push_str("];\n");
    text
}

/// Without a key, a publication of all tables makes PostgreSQL refuse updates and deletes. Seen to fail when `fact_marks`
/// had none.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_has_a_primary_key() {
    let without = "SELECT coalesce(string_agg(c.oid::regclass::text, ' '), 'none') FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
           AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)";
    assert_eq!(TestDatabase::new().await.value(without).await, "none");
}

/// `ledger verify` compares with this file.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_protections_equals_a_migrated_database() {
    let database = TestDatabase::new().await;
    let found = verification::protections(&mut database.connection().await).await.unwrap();
    let printed: String = found.into_iter().map(|protection| protection.definition + "\n").collect();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/repository/verification/protections.txt");
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        fs::write(path, printed).unwrap();
        return;
    }
    let advice =
        format!("`{WRITE_VARIABLE}=1 cargo test --test integration database_schema` writes the file anew");
    assert_eq!(printed, fs::read_to_string(path).unwrap(), "{advice}");
}

/// People and BI tools read the comments in place of the migrations.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_view_and_column_has_a_comment() {
    let without = "SELECT coalesce(string_agg(c.relname || coalesce('.' || a.attname, ''), ' '), 'none')
         FROM pg_class c
         LEFT JOIN LATERAL (SELECT attname, attnum FROM pg_attribute
                            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                            UNION ALL SELECT NULL, 0) AS a ON true
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
           AND c.relname <> '__diesel_schema_migrations'
           AND CASE a.attnum WHEN 0 THEN obj_description(c.oid, 'pg_class')
               ELSE col_description(c.oid, a.attnum) END IS NULL";
    assert_eq!(TestDatabase::new().await.value(without).await, "none");
}

/// Compares the whole text, so any difference in a column, a type, a nullability or a primary key fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_schema_file_equals_a_migrated_database() {
    let database = TestDatabase::new().await;
    let printed = print_schema(&database.client().await).await;
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/repository/schema.rs");
    let file = fs::read_to_string(&path).unwrap();
    let (opening, tables) = file.split_at(file.find("diesel::table!").expect("a table"));
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        fs::write(path, format!("{opening}{printed}")).unwrap();
        return;
    }
    let wrong = printed.lines().zip(tables.lines()).find(|(printed, written)| printed != written);
    assert!(
        printed == tables,
        "src/repository/schema.rs differs from a migrated database, first at {wrong:?} (database, file). \
         `{WRITE_VARIABLE}=1 cargo test --test integration database_schema` writes the file anew."
    );
}
