//! The description of the API is of this API: every operation in it is there, and answers only what it says.

use crate::support::api::Api;

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
            assert!(!answer.body.contains("no such route"), "{method} {path}: {answer:?}");
            for status in ["400", "414", "429", "431", "500", "503"] {
                let reference = described[status]["$ref"].as_str().expect("a shared response");
                let problem = description.pointer(&reference[1..]).expect("it is there");
                assert!(problem["headers"]["X-Request-Id"].is_object(), "{method} {path} {status}");
                let examples = problem["content"]["application/problem+json"]["examples"].as_object();
                assert!(!examples.expect("examples").is_empty(), "{method} {path} {status}");
            }
            operations += 1;
        }
    }
    assert_eq!(operations, 9);
    // Every reference leads somewhere.
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let path = reference.split('"').next().expect("its end");
        assert!(description.pointer(path).is_some(), "{path}");
    }
    assert!(description["components"]["responses"]["Problem503"]["headers"]["Retry-After"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_nothing_from_elsewhere() {
    let api = Api::start().await;
    let page = api.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "{}", page.body);
    let script = api.get("/docs/swagger-ui-bundle.js").await;
    assert_eq!(script.status, 200);
}
