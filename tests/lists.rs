//! Lists beyond plain history: accounts by the beginning of their ids, a transaction by its key, the assessments of a
//! page of transactions, and the transactions of a page of assessments.

use serde_json::{Value, json};

use crate::support::api::{Api, transaction};

async fn items(api: &Api, path: &str) -> Vec<Value> {
    let answer = api.get(path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"].as_array().expect("items").clone()
}

/// Three transactions of two accounts; the first two are assessed.
async fn with_assessments() -> Api {
    let api = Api::start().await;
    for (key, account, currency) in [("k1", "a", "EUR"), ("k2", "b", "JPY"), ("k3", "a", "EUR")] {
        assert_eq!(api.post(key, &transaction(account, "debit", "150", currency)).await.status, 201);
    }
    let assess = "INSERT INTO risk_assessments (account_id, account_seq, transaction_id, risk_score, risk_level, reasons,
                                                shadow_reasons, ruleset)
                    SELECT account_id, account_seq, id, 50, 'medium', '[]', '[]', 'abc' FROM transactions
                    WHERE idempotency_key <> 'k3'";
    api.database.client().await.batch_execute(assess).await.unwrap();
    api
}

/// Guards against a prefix with a wrong upper bound, an account that is equal to the prefix left out,
/// the last account of a page on two pages, and a cursor after the last page.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_by_the_beginning_of_their_ids() {
    let api = Api::start().await;
    let fill = "INSERT INTO accounts (account_id, currency) SELECT unnest(string_to_array(
                  'a-1 a-10 a-2 a-z a.1 a:1 a a_ A-1 b z Z zz 0', ' ')), 'EUR'";
    api.database.client().await.batch_execute(fill).await.unwrap();
    let all =
        api.database.value("SELECT string_agg(account_id, ' ' ORDER BY account_id) FROM accounts").await;
    let all: Vec<&str> = all.split(' ').collect();
    for prefix in ["", "a", "a-", "a-1", "z", "zz", "a_", "none"] {
        let expected: Vec<&str> = all.iter().copied().filter(|id| id.starts_with(prefix)).collect();
        for limit in [1, 3, 200] {
            let query = match prefix {
                "" => format!("/accounts?limit={limit}"),
                _ => format!("/accounts?limit={limit}&prefix={prefix}"),
            };
            let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let page = api.get(&format!("{query}{cursor}")).await.json();
                let ids = page["items"].as_array().expect("items").iter();
                found.extend(ids.map(|item| item["account_id"].as_str().expect("an id").to_owned()));
                pages += 1;
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
                assert!(pages <= all.len(), "{query}: the pages do not end");
            }
            assert_eq!(found, expected, "{query}");
            assert_eq!(pages, expected.len().div_ceil(limit).max(1), "{query}");
        }
    }
    api.get("/accounts?prefix=a%20b").await.is_problem(400, "malformed-request");
    api.get("/accounts?account_id=a").await.is_problem(400, "malformed-request");
    let cursor =
        api.get("/accounts?limit=1").await.json()["next_cursor"].as_str().expect("a cursor").to_owned();
    let other = api.get(&format!("/accounts?limit=1&prefix=a&cursor={cursor}")).await;
    assert_eq!((other.status, other.fields()), (400, vec!["cursor".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_account_is_the_account_with_its_last_activity() {
    let api = Api::start().await;
    let put = br#"{"currency": "EUR", "min_balance": "-9.00"}"#.to_vec();
    let opened = api.send("PUT", "/accounts/a", &[("content-type", "application/json")], put).await.json();
    assert_eq!(opened["last_transaction_at"], Value::Null);
    let posted = api.post("k", &transaction("a", "debit", "2.50", "EUR")).await.json();
    let account = api.get("/accounts/a").await.json();
    assert_eq!(account["last_transaction_at"], posted["created_at"]);
    assert_eq!((&account["balance"], &account["min_balance"]), (&json!("-2.50"), &json!("-9.00")));
    assert_eq!(items(&api, "/accounts").await, [account]);
}

/// Guards against another filter that is ignored beside the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_found_by_its_key() {
    let api = with_assessments().await;
    let posted = api.post("a\\b;c", &transaction("a", "credit", "1.00", "EUR")).await;
    posted.is_problem(400, "malformed-request");
    let posted = api.post(r#""a\\b;c""#, &transaction("a", "credit", "1.00", "EUR")).await;
    assert_eq!(posted.json()["idempotency_key"], r"a\b;c");
    assert_eq!(items(&api, "/transactions?account_id=a&idempotency_key=a%5Cb%3Bc").await, [posted.json()]);
    let first = items(&api, "/transactions?account_id=a&idempotency_key=k1&include=risk&limit=1").await;
    assert_eq!((first.len(), &first[0]["risk"]["risk_score"]), (1, &json!(50)));
    for missing in ["account_id=a&idempotency_key=k2", "account_id=none&idempotency_key=k1"] {
        let page = api.get(&format!("/transactions?{missing}")).await.json();
        assert_eq!(page, json!({"items": [], "next_cursor": null}));
    }
    let alone = api.get("/transactions?idempotency_key=k1").await;
    alone.is_problem(400, "malformed-request");
    assert!(alone.body.contains("needs `account_id`"), "{alone:?}");
    let query = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&direction=debit&min_amount=1&max_amount=2&risk_level=high";
    let combined = api.get(&format!("/transactions?account_id=a&idempotency_key=k1&cursor=x&{query}")).await;
    let fields = ["from", "to", "direction", "min_amount", "max_amount", "risk_level", "cursor"];
    assert_eq!((combined.status, combined.fields()), (400, fields.map(str::to_owned).to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversal_has_no_key_and_is_found_by_none() {
    let api = with_assessments().await;
    let id = items(&api, "/transactions?account_id=b").await[0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/transactions/{id}/reversal");
    let reversal = api.send("POST", &path, &[("content-type", "application/json")], Vec::new()).await;
    assert_eq!(reversal.status, 201, "{reversal:?}");
    assert_eq!(reversal.json().get("idempotency_key"), None);
    let by_key = api.get(&format!("/transactions?account_id=b&idempotency_key=reversal%20{id}")).await;
    by_key.is_problem(400, "malformed-request");
}

/// Guards against assessments assigned by their position among the found rows, which a pending
/// transaction shifts.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_risks_has_the_risk_of_each_transaction() {
    let api = with_assessments().await;
    let plain = items(&api, "/transactions").await;
    assert!(plain.iter().all(|item| item.get("risk").is_none()), "{plain:?}");
    for query in ["include=risk", "include=risk&account_id=a", "include=risk&risk_level=pending"] {
        let listed = items(&api, &format!("/transactions?{query}")).await;
        assert!(!listed.is_empty(), "{query}");
        for item in listed {
            let id = item["id"].as_str().expect("an id");
            assert_eq!(item, api.get(&format!("/transactions/{id}")).await.json(), "{query}");
        }
    }
    api.get("/transactions?include=risks").await.is_problem(400, "malformed-request");
}

/// Guards against transactions in the order in which the query finds them.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_assessment_shows_its_transaction() {
    let api = with_assessments().await;
    for query in ["", "?account_id=a", "?level=medium&ruleset=abc"] {
        let listed = items(&api, &format!("/risk-assessments{query}")).await;
        assert!(!listed.is_empty(), "{query}");
        for item in listed {
            let id = item["transaction_id"].as_str().expect("an id");
            let transaction = api.get(&format!("/transactions/{id}")).await.json();
            for field in ["account_id", "account_seq", "direction", "amount", "currency", "created_at"] {
                assert_eq!(item[field], transaction[field], "{query} {field}");
            }
            assert_eq!(item["risk_level"], transaction["risk"]["risk_level"]);
        }
    }
}
