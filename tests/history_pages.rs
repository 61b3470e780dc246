//! Pages with filters that few rows match: each page reads a bounded number of rows, and all pages together hold each
//! matching row once.
//!
//! Planted bugs that this catches:
//!
//! - a scan without a bound;
//! - the last row of a scan returned although it does not match;
//! - a next page that does not begin after the scan;
//! - a level that is not read along its index.

use serde_json::Value;

use crate::support::api::Api;

/// Rows in each table. A page reads at most 5,000.
const ROWS: usize = 12_000;

/// Two accounts in turns. One assessment in 4,000 is high, one in 500 is medium, the newest 100 transactions are pending,
/// and one amount in 3,000 is large.
const FILL: &str = "
    INSERT INTO accounts (account_id, currency, account_seq, balance)
      VALUES ('a', 'EUR', 6000, 0), ('b', 'JPY', 6000, 0);
    INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key)
      SELECT CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END, (n + 1) / 2,
             ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
             CASE WHEN n % 3000 = 7 THEN 90000000 ELSE 100 END * CASE n % 5 WHEN 0 THEN -1 ELSE 1 END,
             0, '2026-01-01'::timestamptz + n * interval '1 ms', n::text
      FROM generate_series(1, 12000) n;
    INSERT INTO risk_assessments (account_id, account_seq, transaction_id, risk_score, risk_level, reasons,
                                  shadow_reasons, ruleset)
      SELECT account_id, account_seq, id, 50,
             CASE WHEN n % 4000 = 5 THEN 'high' WHEN n % 500 = 5 THEN 'medium' ELSE 'low' END,
             CASE WHEN n % 4000 = 6 THEN '[{\"rule\": \"rare\", \"score\": 50, \"reason\": \"x\"}]' ELSE '[]' END::json,
             '[]', 'abc'
      FROM (SELECT *, idempotency_key::int AS n FROM transactions) AS t WHERE n <= 11900;
    ANALYZE";

/// Reads all pages. Returns their items and the number of pages.
async fn pages(api: &Api, query: &str) -> (Vec<Value>, usize) {
    let (mut items, mut count, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = api.get(&format!("{query}{cursor}")).await.json();
        count += 1;
        items.extend(page["items"].as_array().unwrap_or_else(|| panic!("{page}")).clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (items, count),
        }
        assert!(count < 1_000, "the pages do not end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_transactions_are_bounded_and_complete_under_each_filter() {
    let api = Api::start().await;
    api.database.client().await.batch_execute(FILL).await.unwrap();
    let level = "(SELECT risk_level FROM risk_assessments r WHERE r.transaction_id = t.id)";
    for (query, condition, page_count) in [
        ("", "true".to_owned(), ROWS / 50),
        ("&account_id=b", "account_id = 'b'".into(), ROWS / 2 / 50),
        ("&risk_level=high", format!("{level} = 'high'"), 1),
        ("&risk_level=medium", format!("{level} = 'medium'"), 1),
        ("&risk_level=high&direction=debit", format!("{level} = 'high' AND amount < 0"), 1),
        ("&risk_level=high&account_id=a", format!("{level} = 'high' AND account_id = 'a'"), 2),
        ("&risk_level=high&account_id=b", format!("{level} = 'high' AND account_id = 'b'"), 2),
        ("&risk_level=pending", format!("{level} IS NULL"), 4),
        ("&min_amount=800000", "abs(amount) = 90000000".into(), 3),
        ("&min_amount=2&max_amount=899999", "abs(amount) = 100 AND account_id = 'b'".into(), 120),
        ("&min_amount=800000&risk_level=low", format!("abs(amount) = 90000000 AND {level} = 'low'"), 3),
        ("&min_amount=99999999", "false".into(), 3),
        ("&min_amount=99999999&account_id=a", "false".into(), 2),
        ("&min_amount=99999999&risk_level=medium", "false".into(), 1),
    ] {
        let (items, count) = pages(&api, &format!("/transactions?limit=50{query}")).await;
        let found: Vec<&str> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
        let sql = format!(
            "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id DESC), '') FROM transactions t WHERE {condition}"
        );
        let expected = api.database.value(&sql).await;
        assert_eq!(found, expected.split_whitespace().collect::<Vec<_>>(), "{query}");
        assert_eq!(count, page_count, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_assessments_are_bounded_and_complete_under_each_filter() {
    let api = Api::start().await;
    api.database.client().await.batch_execute(FILL).await.unwrap();
    for (query, condition, page_count) in [
        ("&level=high", "risk_level = 'high'", 1),
        ("&level=medium&ruleset=abc", "risk_level = 'medium'", 1),
        ("&level=high&rule=rare", "false", 1),
        ("&rule=rare", "json_array_length(reasons) > 0", 3),
        ("&rule=rare&level=low&account_id=a", "json_array_length(reasons) > 0 AND account_id = 'a'", 2),
        ("&ruleset=other", "false", 3),
        ("&ruleset=other&account_id=b", "false", 2),
    ] {
        let (items, count) = pages(&api, &format!("/risk-assessments?limit=50{query}")).await;
        let found: Vec<&str> = items.iter().map(|item| item["transaction_id"].as_str().unwrap()).collect();
        let sql = format!(
            "SELECT coalesce(string_agg(transaction_id::text, ' ' ORDER BY transaction_id DESC), '')
             FROM risk_assessments WHERE {condition}"
        );
        let expected = api.database.value(&sql).await;
        assert_eq!(found, expected.split_whitespace().collect::<Vec<_>>(), "{query}");
        assert_eq!(count, page_count, "{query}");
    }
}
