//! `ledger risk assess`: transactions whose events never arrived are assessed from the ledger as their events would have
//! been.

use std::process::Output;

use serde_json::Value;

use super::scene::{Scene, start, stop};
use crate::support::binary;

/// The scores depend on the history: how many transactions there were within the hour before.
const RULES: &str = "[levels]\nmedium = 5\nhigh = 9\n\
    [features.before]\naggregate = \"count\"\nwindow = \"1h\"\ninclude_event = false\n\
    [[rules]]\nid = \"busy\"\nwhen = \"before >= 4\"\nscore = 5\nreason = \"{before} before\"\n\
    [[rules]]\nid = \"busier\"\nwhen = \"before >= 7\"\nscore = 4\nreason = \"{before} before\"\n\
    [[rules]]\nid = \"fragile\"\nwhen = \"description != 'boom' || 1 / (account_seq - account_seq) > 0\"\nscore = 1\n\
    reason = \"fine\"\n";
const SCORES: &str = "SELECT string_agg(account_id || ' ' || account_seq || ' ' || risk_level || ' ' || reasons::text, '; ' \
    ORDER BY account_id, account_seq) FROM risk_assessments";

struct Case {
    scene: Scene,
    rules: tempfile::NamedTempFile,
}

impl Case {
    /// Posts 30 transactions of three accounts. The consumer receives only those that `arrive`.
    async fn new(boom: Option<usize>, spoiled: bool, arrive: impl Fn(usize) -> bool) -> Self {
        let rules = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(rules.path(), RULES).expect("written");
        let case = Self { scene: Scene::new().await, rules };
        let described = |n| (Some(n) == boom).then(|| "boom".to_owned());
        let records = case.scene.post_described(3, 30, described).await;
        if spoiled {
            case.scene.database.spoil().await;
        }
        let arrived = records.into_iter().enumerate().filter(|(n, _)| arrive(*n)).map(|(_, record)| record);
        case.scene.publish(&arrived.collect::<Vec<_>>()).await;
        let context = case.scene.context(&[("risk.rules", case.rules.path().to_str().expect("UTF-8"))]);
        let role = start(&context);
        case.scene.consumed().await;
        stop(&context, role).await;
        case
    }

    fn assess(&self, more: &[&str], code: i32) -> Value {
        let output = self.run(more);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("json")
    }

    fn run(&self, more: &[&str]) -> Output {
        let rules = self.rules.path().to_str().expect("UTF-8");
        let base = ["risk", "assess", "--output", "json", "--rules", rules];
        let environment = self.scene.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
        binary::run(&[&base[..], more].concat(), &environment)
    }
}

/// Seen to fail when a dry run wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_gets_the_assessments_that_its_events_would_have_had() {
    let whole = Case::new(None, false, |_| true).await;
    let gap = Case::new(None, false, |n| !(9..21).contains(&n)).await;
    let scores = async |case: &Case| case.scene.database.value(SCORES).await;
    assert_eq!(gap.assess(&[], 0)["found"], 0, "recent transactions are left to the consumer");
    let until = ["--to", "2099-01-01"];
    let dry_run = gap.assess(&[&until[..], &["--dry-run"]].concat(), 0);
    assert_eq!((&dry_run["found"], &dry_run["assessed"]), (&12.into(), &12.into()), "{dry_run}");
    assert_eq!(gap.scene.count("risk_assessments").await, 18, "a dry run writes nothing");
    let done = gap.assess(&until, 0);
    assert_eq!((&done["assessed"], &done["levels"]), (&12.into(), &dry_run["levels"]), "{done}");
    assert_eq!(scores(&gap).await, scores(&whole).await);
    assert_eq!(gap.scene.count("outbox WHERE topic = 'risk-assessments.v1'").await, 30, "one event each");
    assert_eq!(gap.assess(&until, 0)["found"], 0);
    assert_eq!(gap.assess(&["--from", "2098-01-01", "--to", "2099-01-01"], 0)["found"], 0);
    for misused in [&["--from", "5m"][..], &["--from", "2099-01-01", "--to", "2098-01-01"]] {
        let output = gap.run(misused);
        assert_eq!(output.status.code(), Some(2), "{misused:?} selects nothing: {output:?}");
    }
}

/// A rule that fails costs no assessment. A transaction with a dead letter is left to `ledger dlq replay`.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_rules_are_noted_and_dead_letters_are_left_alone() {
    let lost = Case::new(Some(12), false, |n| n < 9).await;
    let done = lost.assess(&["--to", "2099-01-01"], 0);
    assert_eq!(
        (&done["found"], &done["assessed"], &done["failing"]),
        (&21.into(), &21.into(), &0.into()),
        "{done}"
    );
    assert_eq!(lost.scene.count("risk_assessments WHERE rule_errors->0->>'rule' = 'fragile'").await, 1);

    let dead_lettered = Case::new(Some(12), true, |_| true).await;
    assert_eq!(dead_lettered.scene.count("dead_letters").await, 1);
    assert_eq!(dead_lettered.assess(&["--to", "2099-01-01"], 0)["found"], 0);
}
