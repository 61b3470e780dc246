//! Balances are read in groups: each reader gets its own account's, and never one that is older than its question.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::api::{Api, transaction};

/// Seen to fail with answers given by their place among the rows that were found, which an account that nobody opened
/// shifts; and with answers that are remembered.
#[tokio::test(flavor = "multi_thread")]
async fn many_readers_at_once_each_see_their_own_account_as_it_is_now() {
    const READERS: usize = 48;
    const ROUNDS: usize = 6;
    let api = Arc::new(Api::start().await);
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let api = Arc::clone(&api);
        readers.spawn(async move {
            let account = format!("reader-{reader}");
            for round in 1..=ROUNDS {
                let posted =
                    api.post(&format!("k{round}"), &transaction(&account, "credit", "1.00", "EUR")).await;
                assert_eq!(posted.status, 201, "{posted:?}");
                let (own, missing, shared) = tokio::join!(
                    async { api.get(&format!("/accounts/{account}/balance")).await },
                    async { api.get(&format!("/accounts/nobody-{reader}/balance")).await },
                    async { api.get("/accounts/reader-0").await },
                );
                let own = own.json();
                assert_eq!(own["account_id"], json!(account));
                assert_eq!(own["balance"], json!(format!("{round}.00")), "{own}");
                assert_eq!(own["account_seq"], json!(round));
                missing.is_problem(404, "not-found");
                assert!([200, 404].contains(&shared.status), "{shared:?}");
            }
        });
    }
    while let Some(ended) = readers.join_next().await {
        ended.expect("a reader");
    }
}
