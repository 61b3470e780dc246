//! The HTTP API apart from idempotency: refusals, limits, pages of history, past balances, append-only rows.

use serde_json::{Value, json};

use crate::support::api::{Api, transaction};

/// Fails if U+0000 is accepted in a text: PostgreSQL refuses it, and the answer is 500.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_input_gets_a_4xx_and_stores_nothing() {
    let api = Api::start().await;
    let good = r#"{"account_id":"a","direction":"credit","amount":"1.00","currency":"EUR"}"#;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let malformed = [
        "".to_owned(),
        "{".into(),
        "null".into(),
        "[]".into(),
        format!("{good} x"),
        good.replace('}', r#","amount":"2.00"}"#),
        deep.clone(),
        format!("\u{feff}{good}"),
        good.replace("\"1.00\"", "NaN"),
        good.replace("\"1.00\"", &"9".repeat(20_000)),
        good.replace('}', r#","metadata":{"a":1,"a":2}}"#),
        good.replace('}', r#","colour":1,"colour":2}"#),
        good.replace('}', &format!(r#","metadata":{{"a":{deep}}}}}"#)),
    ];
    for body in &malformed {
        api.post_text("k", body).await.is_problem(400, "malformed-request");
    }
    let wrong = [
        (good.replace("\"1.00\"", "1.00"), "amount"),
        (good.replace("1.00", "1e3"), "amount"),
        (good.replace("1.00", "NaN"), "amount"),
        (good.replace("1.00", "-1.00"), "amount"),
        (good.replace("1.00", "0"), "amount"),
        (good.replace("1.00", &"9".repeat(20_000)), "amount"),
        (good.replace("1.00", "1.000"), "amount"),
        (good.replace("EUR", "eur"), "currency"),
        (good.replace("credit", "both"), "direction"),
        (good.replace("\"a\"", "\"a b\""), "account_id"),
        (good.replace('}', r#","colour":"red"}"#), "colour"),
        (good.replace('}', r#","description":"a\u0000b"}"#), "description"),
        (good.replace('}', r#","metadata":{"a":1.5}}"#), "metadata"),
        (good.replace('}', r#","metadata":{"a":{"b":1}}}"#), "metadata"),
    ];
    for (body, field) in &wrong {
        let answer = api.post_text("k", body).await;
        answer.is_problem(422, "validation");
        assert_eq!(answer.fields(), [*field], "{body:.120}");
    }
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let bytes = good.replace("EUR", "E\u{fffd}").into_bytes();
    api.send("POST", "/transactions", &headers, [&bytes[..], &[0xff]].concat())
        .await
        .is_problem(400, "malformed-request");
    let large = good.replace('}', &format!(r#","description":"{}"}}"#, "x".repeat(70_000)));
    api.post_text("k", &large).await.is_problem(413, "body-too-large");
    let zipped =
        [("content-type", "application/json"), ("idempotency-key", "k"), ("content-encoding", "gzip")];
    api.send("POST", "/transactions", &zipped, good.into()).await.is_problem(415, "unsupported-media-type");
    let text = [("content-type", "text/plain"), ("idempotency-key", "k")];
    api.send("POST", "/transactions", &text, good.into()).await.is_problem(415, "unsupported-media-type");
    assert_eq!(api.database.value("SELECT count(*) FROM accounts").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_allowed_value_is_accepted_and_a_larger_one_refused() {
    let api = Api::start().await;
    let with = |field: &str, value: Value| {
        let mut body = transaction("a", "credit", "1.00", "EUR");
        body[field] = value;
        body
    };
    let entries = |count: i32| (0..count).map(|n| (format!("n{n}"), json!(n))).collect::<Value>();
    // The JSON around the text has eight bytes.
    let text = |bytes: usize| json!({"a": "x".repeat(bytes - 8)});
    for (n, (field, largest, too_large)) in [
        ("metadata", entries(20), entries(21)),
        ("metadata", text(2048), text(2049)),
        ("metadata", json!({"a": 1}), json!({"a\u{0}b": 1})),
        ("counterparty", "ü".repeat(128).into(), "ü".repeat(129).into()),
        ("description", "ü".repeat(500).into(), "ü".repeat(501).into()),
        ("account_id", "a".repeat(64).into(), "a".repeat(65).into()),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = api.post(&format!("{n}"), &with(field, too_large)).await;
        refused.is_problem(422, "validation");
        assert_eq!(refused.fields(), [field], "{n}");
        assert_eq!(api.post(&format!("{n}"), &with(field, largest)).await.status, 201, "{n}: {field}");
    }
    let body = transaction("a", "credit", "1.00", "EUR").to_string();
    let of_length = |bytes: usize| format!("{body}{}", " ".repeat(bytes - body.len()));
    api.post_text("body", &of_length(65_537)).await.is_problem(413, "body-too-large");
    assert_eq!(api.post_text("body", &of_length(65_536)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_timing_is_sent_if_it_is_configured() {
    let api = Api::start_with(&[("serve.server_timing", "true")]).await;
    for path in ["/accounts/a", "/openapi.json"] {
        let answer = api.get(path).await;
        let timing = answer.headers["server-timing"].to_str().unwrap();
        let millis = timing.strip_prefix("total;dur=").unwrap_or_else(|| panic!("{timing}"));
        assert!(millis.parse::<f64>().unwrap() > 0.0, "{timing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_methods_and_parameters_are_refused() {
    let api = Api::start().await;
    for path in ["/nothing", "//", "/docs/nothing", "/accounts/%ff", "/accounts/a%2Fb", "/transactions/"] {
        api.get(path).await.is_problem(404, "not-found");
    }
    let answer = api.send("POST", "/openapi.json", &[], Vec::new()).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.headers["allow"], "GET, HEAD");
    let answer = api.send("DELETE", "/transactions", &[], Vec::new()).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.headers["allow"], "GET, HEAD, POST");
    assert_eq!(answer.json()["instance"], "/transactions");
    assert!(!answer.headers.contains_key("server-timing"), "only if it is configured");
    // OPTIONS is not supported, but its 405 lists the methods.
    let answer = api.send("OPTIONS", "/accounts/a", &[], Vec::new()).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.headers["allow"], "GET, HEAD, PUT");
    api.send("DELETE", "/docs", &[], Vec::new()).await.is_problem(405, "method-not-allowed");
    for (path, field) in [
        ("/transactions?acount_id=a", "acount_id"),
        ("/transactions?limit=0", "limit"),
        ("/transactions?limit=201", "limit"),
        ("/transactions?limit=%2B5", "limit"),
        ("/transactions?from=yesterday", "from"),
        ("/transactions?to=2026-01-31T12:00:00+01:00", "to"),
        ("/transactions?to=9999-12-31T23:59:59-23:59", "to"),
        ("/transactions?min_amount=-1", "min_amount"),
        ("/transactions?cursor=AAAA", "cursor"),
        ("/transactions?limit=1&limit=2", "limit"),
        ("/accounts/a/balance?at=1", "at"),
        ("/accounts/a/balance?at=2026-01-01T12:00:60Z", "at"),
        ("/accounts/a?x=1", "x"),
        ("/openapi.json?format=yaml", "format"),
        ("/docs?url=other", "url"),
        ("/docs/?url=other", "url"),
    ] {
        let answer = api.get(path).await;
        answer.is_problem(400, "malformed-request");
        assert_eq!(answer.fields(), [field], "{path}");
    }
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000001Z");
    for (path, fields) in [
        (format!("/transactions?from={late}&to={early}"), ["from", "to"]),
        (format!("/transactions?account_id=a&from={late}&to={early}"), ["from", "to"]),
        (format!("/risk-assessments?from={late}&to={early}"), ["from", "to"]),
        ("/transactions?min_amount=1.01&max_amount=1.0".into(), ["min_amount", "max_amount"]),
    ] {
        let answer = api.get(&path).await;
        answer.is_problem(400, "malformed-request");
        assert_eq!(answer.fields(), fields, "{path}");
    }
    for path in [
        format!("/transactions?from={early}&to={early}&min_amount=1.0&max_amount=1"),
        format!("/risk-assessments?from={early}&to={late}"),
    ] {
        assert_eq!(api.get(&path).await.json()["items"], json!([]), "{path}");
    }
    for query in ["rule=%ff", "rule=%zz", "rule=%4", "rule=%00"] {
        api.get(&format!("/risk-assessments?{query}")).await.is_problem(400, "malformed-request");
    }
    let several = api.get("/transactions?limit=x&from=y&colour=red&direction=up").await;
    assert_eq!(several.fields(), ["from", "limit", "direction", "colour"]);
    for path in ["/accounts/nobody", "/accounts/nobody/balance", "/accounts/a%20b", "/transactions/42"] {
        api.get(path).await.is_problem(404, "not-found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_pages_are_stable_while_rows_are_added() {
    let api = Api::start().await;
    for n in 1..=25 {
        let account = if n % 5 == 0 { "b" } else { "a" };
        let direction = if n % 2 == 0 { "debit" } else { "credit" };
        assert_eq!(
            api.post(&format!("k{n}"), &transaction(account, direction, &format!("{n}.00"), "EUR"))
                .await
                .status,
            201
        );
    }
    for filter in ["account_id=a", "direction=credit", ""] {
        let mut seen: Vec<String> = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = api.get(&format!("/transactions?limit=4&{filter}{cursor}")).await.json();
            let items = page["items"].as_array().unwrap().clone();
            seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            // New rows do not change the following pages.
            api.post(&format!("{filter}{}", seen.len()), &transaction("a", "credit", "1.00", "EUR")).await;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let mut sorted = seen.clone();
        sorted.sort_by(|a, b| b.cmp(a));
        sorted.dedup();
        assert_eq!(seen, sorted, "newest first, each once: {filter}");
        assert!(seen.len() >= 12);
    }
    let cursor = api.get("/transactions?limit=4").await.json()["next_cursor"].as_str().unwrap().to_owned();
    for other in
        ["", "limit=5&", "limit=4&direction=debit&", "limit=4&account_id=a&", "limit=4&min_amount=0&"]
    {
        let refused = api.get(&format!("/transactions?{other}cursor={cursor}")).await;
        refused.is_problem(400, "malformed-request");
        assert_eq!(refused.fields(), ["cursor"], "{other}");
    }
    api.get(&format!("/risk-assessments?limit=4&cursor={cursor}")).await.is_problem(400, "malformed-request");
    let amounts = api.get("/transactions?account_id=b&min_amount=10&max_amount=20.00").await.json();
    let amounts: Vec<_> =
        amounts["items"].as_array().unwrap().iter().map(|item| item["amount"].clone()).collect();
    assert_eq!(amounts, [json!("20.00"), json!("15.00"), json!("10.00")]);
    assert_eq!(api.get("/transactions?risk_level=high").await.json()["items"], json!([]));
    assert_eq!(
        api.get("/transactions?risk_level=pending&account_id=b").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn assessments_are_listed_by_level_rule_account_and_time() {
    let api = Api::start().await;
    for n in 1..=6 {
        let account = if n % 3 == 0 { "b" } else { "a" };
        api.post(&format!("k{n}"), &transaction(account, "credit", "1.00", "EUR")).await;
    }
    let sql = r#"INSERT INTO risk_assessments
        SELECT account_id, account_seq, id, 80, CASE WHEN account_id = 'b' THEN 'high' ELSE 'low' END,
               json_build_array(json_build_object('rule', 'r' || account_seq, 'score', 80, 'reason', 'x')),
               json_build_array(json_build_object('rule', 'tried', 'score', 9, 'reason', 'y')), 'abc'
        FROM transactions WHERE account_seq < 4"#;
    api.database.client().await.batch_execute(sql).await.unwrap();
    let items = async |query: &str| {
        let json = api.get(&format!("/risk-assessments?{query}")).await.json();
        json["items"].as_array().unwrap_or_else(|| panic!("{json}")).clone()
    };
    assert_eq!(items("").await.len(), 5);
    assert_eq!(items("level=high").await.len(), 2);
    assert_eq!(items("account_id=a&rule=r2").await.len(), 1);
    assert_eq!(items("ruleset=other").await.len(), 0);
    assert_eq!(items("to=2001-01-01T00:00:00Z").await.len(), 0);
    let first = api.get("/risk-assessments?limit=3").await.json();
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(items(&format!("limit=3&cursor={cursor}")).await.len(), 2);
    api.get(&format!("/risk-assessments?limit=4&cursor={cursor}")).await.is_problem(400, "malformed-request");
    // The pages of one account follow its sequence numbers. Fails if the query ignores the bounds or the cursor.
    let mut seqs = Vec::new();
    let mut next = String::new();
    for _ in 0..3 {
        let page = api.get(&format!("/risk-assessments?account_id=a&limit=1{next}")).await.json();
        seqs.push(page["items"][0]["account_seq"].clone());
        next = page["next_cursor"].as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    }
    assert_eq!((seqs, next.as_str()), (vec![json!(3), json!(2), json!(1)], ""));
    let second = api.get("/transactions?account_id=a").await.json()["items"][2]["created_at"].clone();
    let second = second.as_str().unwrap();
    assert_eq!(items(&format!("account_id=a&from={second}")).await.len(), 2);
    assert_eq!(items(&format!("account_id=a&to={second}")).await.len(), 1);
    let id = first["items"][0]["transaction_id"].as_str().unwrap();
    let one = api.get(&format!("/transactions/{id}")).await.json();
    assert_eq!((&one["risk"]["status"], &one["risk"]["risk_score"]), (&json!("assessed"), &json!(80)));
    for part in ["risk_level", "reasons", "shadow_reasons", "ruleset", "assessed_at"] {
        assert!(!one["risk"][part].is_null(), "{part}");
        assert_eq!(one["risk"][part], first["items"][0][part], "{part}");
    }
    assert_eq!(api.get("/transactions?risk_level=high").await.json()["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_above_its_rate_limit_gets_429_with_retry_after() {
    let api = Api::start_with(&[("serve.rate_limit", "1"), ("serve.rate_limit_burst", "3")]).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(api.get("/accounts/a").await.status);
    }
    assert_eq!(statuses, [404, 404, 404, 429]);
    let refused = api.get("/accounts/a").await;
    refused.is_problem(429, "too-many-requests");
    assert_eq!(refused.json()["instance"], "/accounts/a");
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
}

/// Fails if the addresses are counted from the left, where the client can write.
#[tokio::test(flavor = "multi_thread")]
async fn behind_proxies_a_client_is_the_address_that_the_outermost_trusted_proxy_saw() {
    let limits = [("serve.rate_limit", "1"), ("serve.trusted_proxies", "1")];
    let api = Api::start_with(&limits).await;
    let status = async |forwarded: &str| {
        api.send("GET", "/accounts/a", &[("x-forwarded-for", forwarded)], Vec::new()).await.status
    };
    // Addresses that the client invents are further left. All IPv6 addresses and ports of a host are one client.
    for (first, second) in
        [("1.1.1.1", "9.9.9.9, 1.1.1.1"), ("2.2.2.2", "8.8.8.8, 2.2.2.2:443"), ("2001:db8::1", "2001:db8::2")]
    {
        assert_eq!([status(first).await, status(second).await], [404, 429], "{first}");
    }
}

/// Fails if receiving a body has no time limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_arrives_too_slowly_gets_408() {
    use std::io::{Read, Write};
    let api = Api::start_with(&[("serve.client_timeout", "1s")]).await;
    let address = api.url.strip_prefix("http://").unwrap().to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
        let head = "POST /transactions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: 100\r\n\r\n{";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 32];
        let read = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 408"), "the body never arrived completely");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_balance_is_the_balance_after_the_last_row_at_that_moment() {
    let api = Api::start().await;
    let mut moments = Vec::new();
    for n in 1..=9 {
        let answer = api.post(&format!("k{n}"), &transaction("a", "credit", "1.00", "EUR")).await.json();
        moments.push(answer["created_at"].as_str().unwrap().to_owned());
    }
    for (n, moment) in moments.iter().enumerate() {
        let balance = api.get(&format!("/accounts/a/balance?at={moment}")).await.json();
        assert_eq!(balance["balance"], format!("{}.00", n + 1));
        assert_eq!(balance["account_seq"], n + 1);
        let since = api.get(&format!("/transactions?account_id=a&from={moment}")).await.json();
        assert_eq!(since["items"].as_array().unwrap().len(), 9 - n);
        let until = api.get(&format!("/transactions?to={moment}")).await.json();
        assert_eq!(until["items"].as_array().unwrap().len(), n);
    }
    // A bound between two microseconds lies after the first and before the second.
    for (n, moment) in moments.iter().enumerate() {
        let finer = moment.replace('Z', "9Z");
        for account in ["", "&account_id=a"] {
            let count = async |bound: &str| {
                let page = api.get(&format!("/transactions?{bound}={finer}{account}")).await.json();
                page["items"].as_array().unwrap().len()
            };
            assert_eq!((count("from").await, count("to").await), (8 - n, n + 1), "{finer}{account}");
        }
        let balance = api.get(&format!("/accounts/a/balance?at={finer}")).await.json();
        assert_eq!(balance["account_seq"], n + 1);
    }
    let before = api.get("/accounts/a/balance?at=2001-01-01T00:00:00Z").await.json();
    assert_eq!((&before["balance"], &before["account_seq"]), (&json!("0.00"), &json!(0)));
    let future = api.get("/accounts/a/balance?at=2999-01-01T00:00:00Z").await.json();
    assert_eq!((&future["balance"], future["as_of"].as_str().unwrap() < "2900"), (&json!("9.00"), true));
    let now = api.get("/accounts/a/balance").await.json();
    assert_eq!((&now["balance"], &now["account_seq"]), (&json!("9.00"), &json!(9)));
}

/// PostgreSQL counts time from 2000, so earlier moments are negative, and rounding towards zero would be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_between_two_microseconds_before_2000_lies_after_the_first() {
    let api = Api::start().await;
    let rows = "INSERT INTO accounts (account_id, currency, account_seq, balance) VALUES ('a', 'EUR', 3, 0);
        INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key)
        SELECT 'a', n, gen_random_uuid(), 1, n, '1993-01-01T00:00:00Z'::timestamptz + n * interval '1 microsecond', n
        FROM generate_series(1, 3) AS n";
    api.database.client().await.batch_execute(rows).await.unwrap();
    for (at, account_seq) in [("000001", 1), ("0000015", 1), ("0000019", 1), ("000002", 2), ("0000021", 2)] {
        let balance = api.get(&format!("/accounts/a/balance?at=1993-01-01T00:00:00.{at}Z")).await.json();
        assert_eq!(balance["account_seq"], account_seq, "{at}: {balance}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_to_change_transactions() {
    let api = Api::start().await;
    assert_eq!(api.post("k", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    let client = api.database.client().await;
    for sql in ["UPDATE transactions SET amount = 2", "DELETE FROM transactions", "TRUNCATE transactions"] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert!(error.as_db_error().unwrap().message().contains("append-only"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_traceparent_is_stored_in_the_outbox() {
    let api = Api::start().await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers =
        [("content-type", "application/json"), ("idempotency-key", "k"), ("traceparent", traceparent)];
    let body = transaction("a", "credit", "1.00", "EUR").to_string().into_bytes();
    assert_eq!(api.send("POST", "/transactions", &headers, body).await.status, 201);
    let kept = api.database.value("SELECT traceparent FROM outbox").await;
    assert_eq!(kept.split('-').nth(1), traceparent.split('-').nth(1), "the same trace");
}

/// The rows of a currency that has ended stay. Fails if its code is no longer known, or is accepted for new rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_currency_that_ended_is_read_and_reversed_but_not_posted() {
    let api = Api::start().await;
    let rows = "INSERT INTO accounts (account_id, currency, account_seq, balance) VALUES ('a', 'BGN', 1, 500);
        INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key)
        VALUES ('a', 1, '0190163d-8694-7000-8000-000000000001', 500, 500, '2024-06-14T00:00:00Z', 'old')";
    api.database.client().await.batch_execute(rows).await.unwrap();
    let refused = api.post("k", &transaction("a", "debit", "1.00", "BGN")).await;
    refused.is_problem(422, "validation");
    assert_eq!(refused.json()["errors"][0]["message"], "BGN is no longer a currency; EUR replaced it");
    assert_eq!(api.get("/accounts/a/balance").await.json()["balance"], "5.00");
    let headers = [("content-type", "application/json")];
    let reversal = "/transactions/0190163d-8694-7000-8000-000000000001/reversal";
    assert_eq!(api.send("POST", reversal, &headers, Vec::new()).await.status, 201);
    let terms = br#"{"currency":"BGN","min_balance":"0.00"}"#.to_vec();
    assert_eq!(api.send("PUT", "/accounts/a", &headers, terms.clone()).await.status, 200);
    let opened = api.send("PUT", "/accounts/b", &headers, terms).await;
    opened.is_problem(422, "validation");
    assert_eq!(opened.fields(), ["currency"]);
    let described = api.get("/openapi.json").await.json();
    let accepted =
        described["components"]["schemas"]["NewTransaction"]["properties"]["currency"]["enum"].clone();
    assert!(accepted.as_array().unwrap().iter().all(|code| code != "BGN"), "{accepted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_currency_table_equals_the_compiled_list() {
    let api = Api::start().await;
    let client = api.database.client().await;
    let rows = client.query("SELECT code, decimals FROM currencies ORDER BY code COLLATE \"C\"", &[]);
    let rows: Vec<(String, i16)> = rows.await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let compiled: Vec<(String, i16)> = ledger::domain::CURRENCIES
        .iter()
        .map(|(code, decimals)| ((*code).to_owned(), i16::from(*decimals)))
        .collect();
    assert_eq!(rows, compiled);
}
