//! Large answers are compressed for clients that accept gzip. Small answers are not.

use std::io::Read;

use crate::support::api::{Api, transaction};

/// Fails if answers of every size are compressed.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_compressed_and_a_single_account_is_not() {
    let api = Api::start().await;
    for n in 0..40 {
        api.post(&format!("{n}"), &transaction("a", "credit", "1.00", "EUR")).await;
    }
    let get = async |path: &str, accepted: Option<&str>| {
        let request = reqwest::Client::new().get(format!("{}{path}", api.url));
        let request = match accepted {
            Some(accepted) => request.header("accept-encoding", accepted),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let coding = answer.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        let varies = answer.headers().contains_key("vary");
        (coding, varies, answer.bytes().await.unwrap().to_vec())
    };
    let (plain_coding, plain_varies, plain) = get("/transactions", None).await;
    let (coding, varies, small) = get("/transactions", Some("br, gzip")).await;
    assert_eq!((plain_coding, plain_varies, coding.as_deref(), varies), (None, true, Some("gzip"), true));
    assert!(small.len() * 3 < plain.len(), "{} of {}", small.len(), plain.len());
    let mut whole = Vec::new();
    flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut whole).unwrap();
    assert_eq!(whole, plain);
    let (coding, varies, _) = get("/accounts/a", Some("gzip")).await;
    assert_eq!((coding, varies), (None, false));
    assert_eq!(get("/transactions", Some("gzip;q=0")).await.2, plain);
    assert_eq!(get("/docs/swagger-ui-bundle.js", Some("gzip")).await.0.as_deref(), Some("gzip"));
}
