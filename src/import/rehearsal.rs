//! `--dry-run`: decides every group as posting would, and writes nothing to the ledger.
//!
//! What posting would have written is remembered instead, so that the next rows meet it: accounts and keys, in
//! temporary tables of the session and not here, so that memory does not grow with the file. A session that is lost
//! takes them along, and the dry run ends.

use std::hash::{BuildHasher, RandomState};

use super::poster::Outcome;
use crate::{
    domain::{Decision, Posting},
    repository::{
        Connection, RepositoryError,
        postings::{self, AccountStates, Request},
        rehearsals,
    },
};

/// A dry run under way.
#[derive(Default)]
pub(super) struct Rehearsal {
    fingerprints: RandomState,
    /// Whether its session has rows that another would lack.
    pub(super) remembers: bool,
}

impl Rehearsal {
    /// Decides a group. Keys that earlier groups used are answered without the balance.
    pub(super) async fn decide(
        &mut self,
        connection: &mut Connection,
        group: &[Request],
    ) -> Result<Vec<Outcome>, RepositoryError> {
        let repeated = self.repeated(connection, group).await?;
        let fresh: Vec<Request> = group
            .iter()
            .zip(&repeated)
            .filter(|(_, repeated)| repeated.is_none())
            .map(|(request, _)| request.clone())
            .collect();
        let (account_ids, _) = columns(&fresh);
        let mut accounts = rehearsals::states(connection, &account_ids).await?;
        let decisions = postings::rehearse(connection, &mut accounts, &fresh).await?;
        self.remember(connection, &accounts, &fresh, &decisions).await?;
        let mut fresh = decisions.into_iter().map(Outcome::from);
        Ok(repeated.into_iter().filter_map(|repeated| repeated.or_else(|| fresh.next())).collect())
    }

    async fn repeated(
        &self,
        connection: &mut Connection,
        group: &[Request],
    ) -> Result<Vec<Option<Outcome>>, RepositoryError> {
        let (account_ids, keys) = columns(group);
        let known = rehearsals::fingerprints(connection, &account_ids, &keys).await?;
        let outcome = |known: Option<i64>, request: &Request| {
            Some(match known? == self.fingerprint(&request.posting) {
                true => Outcome::Replayed { balance_after: None },
                false => Outcome::Refused {
                    reason: "idempotency_key was used by an earlier row for another".to_owned(),
                },
            })
        };
        Ok(known.into_iter().zip(group).map(|(known, request)| outcome(known, request)).collect())
    }

    async fn remember(
        &mut self,
        connection: &mut Connection,
        accounts: &AccountStates,
        group: &[Request],
        decisions: &[Decision],
    ) -> Result<(), RepositoryError> {
        let created: Vec<Request> = group
            .iter()
            .zip(decisions)
            .filter(|(_, decision)| matches!(decision, Decision::Create(_)))
            .map(|(request, _)| request.clone())
            .collect();
        if created.is_empty() {
            return Ok(());
        }
        self.remembers = true;
        rehearsals::remember_accounts(connection, accounts).await?;
        let (account_ids, keys) = columns(&created);
        let fingerprints: Vec<i64> =
            created.iter().map(|request| self.fingerprint(&request.posting)).collect();
        rehearsals::remember_keys(connection, &account_ids, &keys, &fingerprints).await
    }

    /// Of the whole posting: under one key, another posting has another one but for one in 2^64.
    fn fingerprint(&self, posting: &Posting) -> i64 {
        i64::from_ne_bytes(self.fingerprints.hash_one(format!("{posting:?}")).to_ne_bytes())
    }
}

fn columns(group: &[Request]) -> (Vec<&str>, Vec<&str>) {
    group
        .iter()
        .map(|request| (request.posting.account_id.as_str(), request.posting.idempotency_key.as_str()))
        .unzip()
}
