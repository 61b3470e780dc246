//! The OpenAPI description matches the API: every described operation exists and answers as described.

use crate::support::api::{Api, transaction};

#[tokio::test(flavor = "multi_thread")]
async fn every_described_operation_exists_and_answers_as_described() {
    let api = Api::start().await;
    let description = api.get("/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let path = path.replace("{id}", "01a206a6-4f5f-7c41-87f5-c48b0979c33c");
            let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
            let body = if method == "get" { Vec::new() } else { b"{}".to_vec() };
            let answer = api.send(&method.to_uppercase(), &path, &headers, body).await;
            let described = operation["responses"].as_object().expect("responses");
            assert!(described.contains_key(&answer.status.to_string()), "{method} {path}: {answer:?}");
            assert!(!answer.body.contains("this path does not exist"), "{method} {path}: {answer:?}");
            for status in ["400", "414", "421", "429", "431", "500", "503"] {
                let reference = described[status]["$ref"].as_str().expect("a shared response");
                let problem = description.pointer(&reference[1..]).expect("a described response");
                assert!(problem["headers"]["X-Request-Id"].is_object(), "{method} {path} {status}");
                let examples = problem["content"]["application/problem+json"]["examples"].as_object();
                assert!(!examples.expect("examples").is_empty(), "{method} {path} {status}");
            }
            operations += 1;
        }
    }
    assert_eq!(operations, 10);
    // Every reference has a target.
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let path = reference.split('"').next().expect("its end");
        assert!(description.pointer(path).is_some(), "{path}");
    }
    assert!(description["components"]["responses"]["Problem503"]["headers"]["Retry-After"].is_object());
}

/// The patterns match the API for keys in quotes, amounts with many digits and ids in lower case.
#[tokio::test(flavor = "multi_thread")]
async fn accepted_values_match_the_described_patterns() {
    let api = Api::start().await;
    let description = api.get("/openapi.json").await.json();
    let schema = |path: &str, method: &str, name: &str| {
        let parameters = description["paths"][path][method]["parameters"].as_array().expect("parameters");
        let found = parameters.iter().find(|parameter| parameter["name"] == name).expect(name);
        (found["schema"]["pattern"].as_str().expect(name).to_owned(), found["schema"]["maxLength"].as_u64())
    };
    let body = transaction("a", "credit", "1.00", "EUR");
    let key = "k".repeat(255);
    assert_eq!(api.post(&format!("\"{key}\""), &body).await.status, 201);
    assert!(api.post(&key, &body).await.replayed, "a quoted key equals the bare key");
    let quoted_or_bare = r#"^([!#-')-+\--9<->A-\[\]-~][!#-+\--:<-\[\]-~]{0,254}|"(\\\\|[!#-\[\]-~])(\\["\\]|[!#-\[\]-~]){0,254}")$"#;
    assert_eq!(schema("/transactions", "post", "Idempotency-Key"), (quoted_or_bare.into(), Some(512)));
    let with_escapes = format!(r#""k{}""#, r#"\""#.repeat(254));
    assert_eq!(with_escapes.len(), 511);
    assert_eq!(api.post(&with_escapes, &body).await.status, 201);
    for name in ["min_amount", "max_amount"] {
        let accepted = api.get(&format!("/transactions?{name}={}.1", "9".repeat(22))).await;
        assert_eq!(accepted.status, 200, "{accepted:?}");
        assert_eq!(schema("/transactions", "get", name), (r"^[0-9]+(\.[0-9]+)?$".into(), Some(24)));
    }
    let id = api.post(&key, &body).await.json()["id"].as_str().expect("an id").to_owned();
    api.get(&format!("/transactions/{}", id.to_uppercase())).await.is_problem(404, "not-found");
    for (path, method) in [("/transactions/{id}", "get"), ("/transactions/{id}/reversal", "post")] {
        let lower_case = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
        assert_eq!(schema(path, method, "id").0, lower_case);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_page_loads_nothing_from_other_hosts() {
    let api = Api::start().await;
    let page = api.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "{}", page.body);
    let script = api.get("/docs/swagger-ui-bundle.js").await;
    assert_eq!(script.status, 200);
}
