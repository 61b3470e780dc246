//! The metrics of a writer.

use metrics::{Counter, Histogram};

use crate::{domain::Decision, posting::CommitPath};

/// They are looked up once, because at thousands of requests per second the look-ups would cost time.
pub(super) struct Meter {
    pub(super) group_size: Histogram,
    pub(super) commit_duration: Histogram,
    groups_expected: Counter,
    groups_locked: Counter,
    created: Counter,
    replayed: Counter,
    refused: Counter,
}

impl Meter {
    pub(super) fn new() -> Self {
        let groups =
            |path: CommitPath| metrics::counter!("ledger_writer_groups_total", "path" => path.as_str());
        let transactions = |outcome| metrics::counter!("ledger_transactions_total", "outcome" => outcome);
        Self {
            group_size: metrics::histogram!("ledger_writer_group_size"),
            commit_duration: metrics::histogram!("ledger_writer_commit_duration_seconds"),
            groups_expected: groups(CommitPath::Expected),
            groups_locked: groups(CommitPath::Locked),
            created: transactions("created"),
            replayed: transactions("replayed"),
            refused: transactions("refused"),
        }
    }

    pub(super) fn group_posted(&self, path: CommitPath) {
        match path {
            CommitPath::Expected => self.groups_expected.increment(1),
            CommitPath::Locked => self.groups_locked.increment(1),
        }
    }

    pub(super) fn decided(&self, decisions: &[Decision]) {
        let [mut created, mut replayed, mut refused] = [0_u64; 3];
        for decision in decisions {
            match decision {
                Decision::Create(_) => created += 1,
                Decision::Replay(_) => replayed += 1,
                Decision::Mismatch { .. } | Decision::Refused(_) => refused += 1,
            }
        }
        self.created.increment(created);
        self.replayed.increment(replayed);
        self.refused.increment(refused);
    }
}
