//! `--dry-run`: decides every group as posting would, and writes nothing.
//!
//! What posting would have written is remembered instead: the states of the accounts, and 16 bytes for each row, so
//! that a key that comes again later in the file is known. This is the one part whose memory grows with the file.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::poster::Outcome;
use crate::{
    domain::Posting,
    repository::{
        Connection, RepositoryError,
        postings::{self, AccountStates, Request},
    },
};

/// What the rows so far would have left behind.
#[derive(Default)]
pub(super) struct Rehearsal {
    accounts: AccountStates,
    /// Hash of account and key to hash of the whole posting.
    keys: HashMap<u64, u64>,
    hashes: RandomState,
}

impl Rehearsal {
    /// Decides a group. Keys that earlier groups used are answered from memory, without the balance.
    pub(super) async fn decide(
        &mut self,
        connection: &mut Connection,
        group: &[Request],
    ) -> Result<Vec<Outcome>, RepositoryError> {
        let repeated: Vec<Option<Outcome>> =
            group.iter().map(|request| self.repeated(&request.posting)).collect();
        let fresh: Vec<Request> = group
            .iter()
            .zip(&repeated)
            .filter(|(_, repeated)| repeated.is_none())
            .map(|(request, _)| request.clone())
            .collect();
        let decisions = postings::rehearse(connection, &mut self.accounts, &fresh).await?;
        for (request, decision) in fresh.iter().zip(&decisions) {
            if matches!(decision, crate::domain::Decision::Create(_)) {
                let (key, whole) = self.hashes_of(&request.posting);
                self.keys.insert(key, whole);
            }
        }
        let mut fresh = decisions.into_iter().map(Outcome::from);
        Ok(repeated.into_iter().filter_map(|repeated| repeated.or_else(|| fresh.next())).collect())
    }

    fn repeated(&self, posting: &Posting) -> Option<Outcome> {
        let (key, whole) = self.hashes_of(posting);
        let known = self.keys.get(&key)?;
        Some(match *known == whole {
            true => Outcome::Replayed { balance_after: None },
            false => Outcome::Refused {
                reason: "idempotency_key was used by an earlier row for another".to_owned(),
            },
        })
    }

    fn hashes_of(&self, posting: &Posting) -> (u64, u64) {
        let key = self.hashes.hash_one((&posting.account_id, &posting.idempotency_key));
        (key, self.hashes.hash_one(format!("{posting:?}")))
    }
}
