//! Batches, reversals and account limits, through the HTTP surface.
//!
//! Seen to fail when a whole batch was refused for one bad item, when a reversal's key was not derived from the
//! transaction, and when the expected path did not compare the limit.

use serde_json::{Value, json};

use crate::support::{
    api::{Answer, Api, transaction},
    postgres::TestDatabase,
};

async fn batch(api: &Api, items: Vec<Value>) -> Answer {
    let headers = [("content-type", "application/json")];
    let body = json!({ "transactions": items }).to_string().into_bytes();
    api.send("POST", "/transactions/batch", &headers, body).await
}

fn keyed(key: &str, mut item: Value) -> Value {
    item["idempotency_key"] = key.into();
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_of_a_batch_succeeds_or_fails_alone_in_order() {
    let api = Api::start().await;
    let items = vec![
        keyed("1", transaction("a", "credit", "5.00", "EUR")),
        keyed("2", transaction("a", "credit", "5.000", "EUR")),
        keyed("3", transaction("a", "credit", "5.00", "USD")),
        transaction("a", "credit", "1.00", "EUR"),
        json!(7),
        keyed("1", transaction("a", "credit", "5.00", "EUR")),
        keyed("1", transaction("a", "credit", "6.00", "EUR")),
        keyed("4", transaction("b", "debit", "1", "JPY")),
        keyed("5", transaction("a", "debit", "2.00", "EUR")),
        keyed("\"1\"", transaction("a", "credit", "5.00", "EUR")),
        keyed("\"1", transaction("a", "credit", "5.00", "EUR")),
    ];
    let answer = batch(&api, items).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let results = json["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 422, 422, 422, 400, 200, 422, 201, 201, 422, 422]);
    assert_eq!(results[0]["transaction"], results[5]["transaction"]);
    assert_eq!(results[6]["problem"]["type"], "urn:ledger:problem:idempotency-key-reused");
    assert_eq!(results[8]["transaction"]["balance_after"], "3.00");
    assert_eq!(
        results[9]["problem"]["errors"][0]["field"], "idempotency_key",
        "the quotes are no part of it"
    );
    assert_eq!(results[10]["problem"]["errors"][0]["field"], "idempotency_key");
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "3");
    assert_eq!(api.database.value("SELECT count(*) FROM outbox").await, "3");
}

/// Transactions of one commit have the same `created_at`. Seen to fail with ids whose last bits are all random.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_moment_are_listed_by_descending_account_seq() {
    let api = Api::start().await;
    let items = (1..=20).map(|n| keyed(&format!("k{n}"), transaction("a", "credit", "1.00", "EUR")));
    assert_eq!(batch(&api, items.collect()).await.status, 200);
    let moments = "SELECT count(*) || ' ' || (count(DISTINCT created_at) < 20) FROM transactions";
    assert_eq!(api.database.value(moments).await, "20 true");
    let assessed =
        "INSERT INTO risk_assessments (account_id, account_seq, transaction_id, risk_score, risk_level, reasons,
                                       shadow_reasons, ruleset)
         SELECT account_id, account_seq, id, 0, 'low', '[]', '[]', 'abc' FROM transactions";
    api.database.client().await.batch_execute(assessed).await.unwrap();
    for path in ["/transactions", "/risk-assessments"] {
        let page = api.get(path).await.json();
        let seqs = page["items"].as_array().unwrap().iter().map(|item| item["account_seq"].as_i64());
        assert!(seqs.eq((1..=20).rev().map(Some)), "{path}: {page}");
    }
}

/// A relay reads one lane at a time. Seen to fail with events in the order of the group, and with reversed events of an
/// account.
#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_group_are_sorted_by_lane_and_in_order_per_account() {
    let api = Api::on(TestDatabase::new().await, &[("serve.writers", "1")]).await;
    let item = |n| keyed(&format!("k{n}"), transaction(&format!("a{}", n % 97), "credit", "1.00", "EUR"));
    assert_eq!(batch(&api, (0..900).map(item).collect()).await.status, 200);
    let changes = "SELECT count(*) FROM (
                     SELECT lane <> lag(lane) OVER (ORDER BY id) AS changes FROM outbox) l WHERE changes";
    let changes: usize = api.database.value(changes).await.parse().unwrap();
    // In the order of the group, nearly every row would change the lane. The writer may have split the items into a few
    // groups.
    assert!(changes < 32 * 9, "{changes}");
    let disorder = "SELECT count(*) FROM (
                      SELECT (convert_from(value, 'UTF8')::json ->> 'account_seq')::bigint AS seq,
                             row_number() OVER (PARTITION BY key ORDER BY id) AS place FROM outbox) o
                    WHERE seq <> place";
    assert_eq!(api.database.value(disorder).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_thousand_is_posted_in_order_and_replayed() {
    let api = Api::start().await;
    let items: Vec<_> = (0..1000)
        .map(|n| keyed(&format!("k{n}"), transaction(&format!("a{}", n % 7), "credit", "1.00", "EUR")))
        .collect();
    let first = batch(&api, items.clone()).await.json();
    let mut next = [0; 7];
    for (n, result) in first["results"].as_array().unwrap().iter().enumerate() {
        next[n % 7] += 1;
        assert_eq!(result["transaction"]["account_seq"], next[n % 7]);
    }
    let second = batch(&api, items.clone()).await.json();
    for (first, second) in
        first["results"].as_array().unwrap().iter().zip(second["results"].as_array().unwrap())
    {
        assert_eq!((&second["status"], &second["transaction"]), (&json!(200), &first["transaction"]));
    }
    batch(&api, [items, vec![keyed("x", transaction("a", "credit", "1.00", "EUR"))]].concat())
        .await
        .is_problem(422, "validation");
    batch(&api, Vec::new()).await.is_problem(422, "validation");
}

/// Asks for a reversal, without a body.
async fn reverse(api: &Api, path: &str) -> Answer {
    api.send("POST", path, &[("content-type", "application/json")], Vec::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_reversed_once_and_a_reversal_is_never_reversed() {
    let api = Api::start().await;
    let first = api.post("k", &transaction("a", "credit", "5.00", "EUR")).await.json();
    let path = format!("/transactions/{}/reversal", first["id"].as_str().unwrap());
    let reversal = reverse(&api, &path).await;
    assert_eq!(reversal.status, 201, "{reversal:?}");
    let json = reversal.json();
    assert_eq!(
        (&json["direction"], &json["amount"], &json["reverses"]),
        (&json!("debit"), &json!("5.00"), &first["id"])
    );
    assert_eq!(json["balance_after"], "0.00");
    let again = api.send("POST", &path, &[("content-type", "application/json")], b"{}".to_vec()).await;
    assert_eq!((again.status, again.replayed, &again.body), (200, true, &reversal.body));
    let told =
        api.send("POST", &path, &[("content-type", "application/json")], br#"{"why":1}"#.to_vec()).await;
    assert_eq!((told.status, &told.json()["errors"][0]["field"]), (422, &"why".into()), "{told:?}");
    let no_object = api.send("POST", &path, &[("content-type", "application/json")], b"null".to_vec()).await;
    assert_eq!(no_object.status, 400, "{no_object:?}");
    let path = format!("/transactions/{}/reversal", json["id"].as_str().unwrap());
    reverse(&api, &path).await.is_problem(422, "not-reversible");
    let nobody = "/transactions/01a206a6-4f5f-7c41-87f5-c48b0979c33c/reversal";
    reverse(&api, nobody).await.is_problem(404, "not-found");
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversal_obeys_the_limit_and_no_client_can_use_its_key() {
    let api = Api::start().await;
    let headers = [("content-type", "application/json")];
    let terms = br#"{"currency":"EUR","min_balance":"0.00"}"#.to_vec();
    assert_eq!(api.send("PUT", "/accounts/a", &headers, terms).await.status, 201);
    let first = api.post("1", &transaction("a", "credit", "5.00", "EUR")).await.json();
    let id = first["id"].as_str().unwrap();
    assert_eq!(api.post("2", &transaction("a", "debit", "4.00", "EUR")).await.status, 201);
    let path = format!("/transactions/{id}/reversal");
    reverse(&api, &path).await.is_problem(422, "limit-exceeded");
    let taken = format!("reversal:{id}");
    assert_eq!(api.post(&taken, &transaction("a", "credit", "9.00", "EUR")).await.status, 201);
    let (one, other) = tokio::join!(reverse(&api, &path), reverse(&api, &path));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!((statuses, &one.body), ([200, 201], &other.body));
    assert_eq!(one.json()["balance_after"], "5.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_against_parallel_debits_on_two_instances() {
    let api = std::sync::Arc::new(Api::start().await);
    let other = std::sync::Arc::new(Api::on(TestDatabase::at(&api.database.url), &[]).await);
    assert_eq!(api.post("0", &transaction("a", "credit", "20.00", "EUR")).await.status, 201);
    let headers = [("content-type", "application/json")];
    let put = async |api: &Api, limit: &str| {
        let body = json!({"currency": "EUR", "min_balance": limit}).to_string().into_bytes();
        assert_eq!(api.send("PUT", "/accounts/a", &headers, body).await.status, 200);
    };
    put(&api, "5.00").await;
    let debits: Vec<_> = (1..=30)
        .map(|n| {
            let api = std::sync::Arc::clone(if n % 2 == 0 { &api } else { &other });
            tokio::spawn(
                async move { api.post(&format!("{n}"), &transaction("a", "debit", "1.00", "EUR")).await },
            )
        })
        .collect();
    // The limit is set repeatedly meanwhile.
    for _ in 0..5 {
        put(&other, "5.00").await;
    }
    let mut accepted = 0;
    for debit in debits {
        let answer = debit.await.unwrap();
        match answer.status {
            201 => accepted += 1,
            _ => answer.is_problem(422, "limit-exceeded"),
        }
    }
    assert_eq!((accepted, api.database.value("SELECT balance FROM accounts").await.as_str()), (15, "500"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_refused_as_a_whole_only_if_the_envelope_is_invalid() {
    let api = Api::start().await;
    // The same key in two accounts is two keys.
    let items = vec![
        keyed("k", transaction("a", "credit", "1.00", "EUR")),
        keyed("k", transaction("b", "credit", "1.00", "EUR")),
    ];
    let json = batch(&api, items).await.json();
    assert_eq!((&json["results"][0]["status"], &json["results"][1]["status"]), (&json!(201), &json!(201)));
    let headers = [("content-type", "application/json")];
    let send =
        async |body: &str| api.send("POST", "/transactions/batch", &headers, body.as_bytes().to_vec()).await;
    send("").await.is_problem(400, "malformed-request");
    send(r#"{"transactions":[]"#).await.is_problem(400, "malformed-request");
    send(r#"{"transactions":[],"transactions":[]}"#).await.is_problem(400, "malformed-request");
    for (body, fields) in [
        ("{}", &["transactions"][..]),
        (r#"{"transactions":7}"#, &["transactions"]),
        (r#"{"transactions":[],"x":1}"#, &["x"]),
        (r#"{"x":1}"#, &["transactions", "x"]),
    ] {
        let answer = send(body).await;
        answer.is_problem(422, "validation");
        assert_eq!(answer.fields(), fields, "{body}");
    }
    // An error inside an item concerns that item only.
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let answer = send(&format!(r#"{{"transactions":[{deep},{{"a":1,"a":2}},"x",{{}}]}}"#)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let statuses: Vec<_> =
        json["results"].as_array().unwrap().iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [400, 400, 400, 422]);
    assert_eq!(json["results"][3]["problem"]["errors"].as_array().unwrap().len(), 5);
    let large = format!(r#"{{"transactions":[{}]}}"#, " ".repeat(1024 * 1024));
    send(&large).await.is_problem(413, "body-too-large");
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_can_be_set_before_the_first_transaction_and_applies_on_every_instance_at_once() {
    let api = Api::start().await;
    let headers = [("content-type", "application/json")];
    let put = async |body: &str| api.send("PUT", "/accounts/a", &headers, body.as_bytes().to_vec()).await;
    let opened = put(r#"{"currency":"EUR","min_balance":"-10.00"}"#).await;
    assert_eq!((opened.status, opened.json()["min_balance"].clone()), (201, json!("-10.00")));
    assert_eq!(put(r#"{"currency":"EUR","min_balance":"-10.00"}"#).await.status, 200);
    put(r#"{"currency":"USD"}"#).await.is_problem(422, "currency-mismatch");
    put(r#"{"currency":"EUR","min_balance":1}"#).await.is_problem(422, "validation");
    put(r#"{"currency":"EUR","limit":"1"}"#).await.is_problem(422, "validation");
    put("{").await.is_problem(400, "malformed-request");
    assert_eq!(api.post("1", &transaction("a", "debit", "10.00", "EUR")).await.status, 201);
    api.post("2", &transaction("a", "debit", "0.01", "EUR")).await.is_problem(422, "limit-exceeded");
    assert_eq!(api.post("3", &transaction("a", "credit", "5.00", "EUR")).await.status, 201);
    // Another instance tightens the limit. This one remembers the old limit and must not use it.
    let other = Api::on(TestDatabase::at(&api.database.url), &[]).await;
    let tightened = br#"{"currency":"EUR","min_balance":"0.00"}"#.to_vec();
    assert_eq!(other.send("PUT", "/accounts/a", &headers, tightened).await.status, 200);
    api.post("4", &transaction("a", "debit", "1.00", "EUR")).await.is_problem(422, "limit-exceeded");
    // Then it loosens the limit, and the refused debit is accepted.
    assert_eq!(
        other.send("PUT", "/accounts/a", &headers, br#"{"currency":"EUR"}"#.to_vec()).await.status,
        200
    );
    assert_eq!(api.post("4", &transaction("a", "debit", "1.00", "EUR")).await.status, 201);
}
