//! Every row of the table under "Retry safely" in `docs/api.md`, through the HTTP API.
//!
//! Seen to fail when the decision came before the read of the keys (64 clients got 64 transactions), when a replay was
//! answered with the current balance instead of the transaction's, and when raw bodies were compared instead of requests.

use std::{collections::HashSet, sync::Arc};

use serde_json::json;

use crate::support::api::{Api, transaction};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_malformed_key_is_refused_and_stores_nothing() {
    let api = Api::start().await;
    let body = transaction("a", "credit", "1.00", "EUR").to_string();
    let long = "k".repeat(256);
    for key in [None, Some(""), Some("a b"), Some("\"open"), Some(long.as_str())] {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let answer = api.send("POST", "/transactions", &headers, body.clone().into_bytes()).await;
        answer.is_problem(400, "malformed-request");
        assert_eq!(answer.fields(), ["Idempotency-Key"], "{key:?}");
    }
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "0");
}

/// The header is a string of RFC 8941; the keys of a batch are plain strings.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_the_same_key_in_every_spelling_and_an_ambiguous_one_is_refused() {
    let api = Api::start().await;
    let body = transaction("a", "credit", "1.00", "EUR");
    let first = api.post(r#""a\\b\";c""#, &body).await;
    assert_eq!(first.status, 201);
    let mut item = body.clone();
    item["idempotency_key"] = r#"a\b";c"#.into();
    let batch = json!({ "transactions": [item] }).to_string().into_bytes();
    let headers = [("content-type", "application/json")];
    let batch = api.send("POST", "/transactions/batch", &headers, batch).await.json();
    assert_eq!(batch["results"][0]["transaction"]["id"], first.json()["id"]);
    for key in [r"a\b", r#"a"b"#, "a;b=1", "a,b", ":YWI=:", "?1", r#""a\b""#, r#""a";b=1"#, r#""a" "b""#] {
        let refused = api.post(key, &body).await;
        refused.is_problem(400, "malformed-request");
        assert!(refused.json()["detail"].as_str().unwrap().contains(key), "{refused:?}");
    }
    for key in ["order:77/2=", "8e03978e-40d5-43dd-bc93-6894a57f9324", "77"] {
        assert_eq!(api.post(key, &body).await.status, 201, "{key}");
        assert!(api.post(&format!("\"{key}\""), &body).await.replayed, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_again_gets_the_same_body_to_the_byte() {
    let api = Api::start().await;
    let mut body = transaction("a", "credit", "1.50", "EUR");
    body["metadata"] = json!({"b": 1, "a": "x"});
    body["description"] = "ä \"quoted\" \\ text".into();
    let first = api.post("k", &body).await;
    assert_eq!((first.status, first.replayed), (201, false));
    let location = first.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("/transactions/{}", first.json()["id"].as_str().unwrap()));
    // The account changes; the answer does not.
    assert_eq!(api.post("other", &transaction("a", "debit", "9.00", "EUR")).await.status, 201);
    let reordered = r#" { "metadata":{"a":"x","b":1}, "description":"ä \"quoted\" \\ text",
        "currency":"EUR", "amount":"1.5", "direction":"credit", "account_id":"a" } "#;
    for (key, text) in [("k", body.to_string()), ("\"k\"", reordered.to_owned())] {
        let again = api.post_text(key, &text).await;
        assert_eq!((again.status, again.replayed, &again.body), (200, true, &first.body));
    }
    // The same holds after a restart, when only the row is left.
    let database = api.stop().await;
    let api = Api::on(database, &[]).await;
    let again = api.post("k", &body).await;
    assert_eq!((again.status, again.replayed, &again.body), (200, true, &first.body));
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_the_same_key_is_refused_and_names_the_field() {
    let api = Api::start().await;
    let mut first = transaction("a", "credit", "1.00", "EUR");
    first["counterparty"] = "shop".into();
    first["description"] = "order".into();
    first["metadata"] = json!({"country": "DE"});
    assert_eq!(api.post("k", &first).await.status, 201);
    let changes = [
        ("direction", json!("debit")),
        ("amount", json!("1.01")),
        ("currency", json!("USD")),
        ("counterparty", json!("shop-2")),
        ("description", json!("order 2")),
        ("metadata", json!({"country": "FR"})),
    ];
    for (field, value) in changes {
        let mut other = first.clone();
        other[field] = value;
        let answer = api.post("k", &other).await;
        answer.is_problem(422, "idempotency-key-reused");
        assert_eq!(answer.fields(), [field]);
        other.as_object_mut().unwrap().remove(field);
        if !["direction", "amount", "currency"].contains(&field) {
            assert_eq!(api.post("k", &other).await.fields(), [field], "left out");
        }
    }
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "1");
    assert_eq!(
        api.post("k", &transaction("b", "credit", "7.00", "USD")).await.status,
        201,
        "another account's key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_posts_with_one_key_create_one_transaction() {
    let api = Arc::new(Api::start_with(&[("serve.writers", "4")]).await);
    // A second instance on the same database: keys race between processes too.
    let url = api.database.url.clone();
    let other = Arc::new(Api::on(crate::support::postgres::TestDatabase::at(&url), &[]).await);
    let body = transaction("a", "credit", "5.00", "EUR");
    let posts = (0..64).map(|n| {
        let (api, body) = (Arc::clone(if n % 2 == 0 { &api } else { &other }), body.clone());
        tokio::spawn(async move { api.post("k", &body).await })
    });
    let mut answers = Vec::new();
    for post in posts.collect::<Vec<_>>() {
        answers.push(post.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.status == 201 || (answer.status == 200 && answer.replayed)));
    let bodies: HashSet<_> = answers.iter().map(|answer| &answer.body).collect();
    assert_eq!(bodies.len(), 1, "all bodies are equal to the byte");
    assert_eq!(api.database.value("SELECT count(*) || ' ' || sum(amount) FROM transactions").await, "1 500");
    assert_eq!(api.database.value("SELECT balance || ' ' || account_seq FROM accounts").await, "500 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_the_key_free() {
    let api = Api::start().await;
    assert_eq!(api.post("first", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    api.post("k", &transaction("a", "credit", "1.00", "USD")).await.is_problem(422, "currency-mismatch");
    api.post("k", &transaction("a", "credit", "1.001", "EUR")).await.is_problem(422, "validation");
    assert_eq!(api.post("k", &transaction("a", "credit", "2.00", "EUR")).await.status, 201);
    assert_eq!(api.database.value("SELECT count(*) FROM outbox").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_memory_neither_duplicates_nor_skips_a_transaction() {
    let one = Api::start().await;
    let other = Api::on(crate::support::postgres::TestDatabase::at(&one.database.url), &[]).await;
    for n in 0..20 {
        let api = if n % 2 == 0 { &one } else { &other };
        let answer = api.post(&format!("k{n}"), &transaction("a", "credit", "1.00", "EUR")).await;
        assert_eq!(answer.status, 201);
        assert_eq!(answer.json()["account_seq"], n + 1);
        assert_eq!(answer.json()["balance_after"], format!("{}.00", n + 1));
        // The other instance's key is found.
        let replay = if n % 2 == 0 { &other } else { &one };
        assert!(replay.post(&format!("k{n}"), &transaction("a", "credit", "1.00", "EUR")).await.replayed);
    }
    let gapless = "SELECT bool_and(account_seq = n) FROM (SELECT account_seq, row_number() OVER (ORDER BY id) n FROM transactions) x";
    assert_eq!(one.database.value(gapless).await, "t");
}
