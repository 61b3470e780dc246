//! `ledger dlq`: dead letters can be listed and shown, and a replay has the effect of the record, at most once, and
//! adds a row to the audit.
//!
//! The tests run the real binary: `relay` and `consume-risk` make the dead letters, and `dlq` reads and replays them.

use std::{process::Output, sync::Arc};

use ledger::{
    broker::{self, OutgoingRecord, SharedBroker, topic_specs},
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Posting},
    event::{TRANSACTION_CREATED, TRANSACTIONS_TOPIC, cloud_event_headers},
    posting::{Request, post_locked},
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    binary::{self, Binary},
    eventually,
    postgres::TestDatabase,
};

struct Stage {
    database: TestDatabase,
    broker: SharedBroker,
}

impl Stage {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let config = database.config_with(&[("broker.topics.transactions_partitions", "2")]);
        let broker = broker::connect(&config, database.pool()).await.expect("broker");
        broker.ensure_topics(&topic_specs(&config), true).await.expect("topics");
        Self { database, broker }
    }

    fn environment(&self) -> [(&str, &str); 4] {
        [
            ("LEDGER_DATABASE__URL", &self.database.url),
            ("LEDGER_ADMIN__LISTEN", "off"),
            ("LEDGER_BROKER__TOPICS__TRANSACTIONS_PARTITIONS", "2"),
            ("LEDGER_DLQ_REPLAY_BY", "the operator"),
        ]
    }

    fn dlq(&self, arguments: &[&str]) -> Output {
        binary::run(&[&["dlq"], arguments].concat(), &self.environment())
    }

    /// Returns the output of a `dlq` command as JSON, and its exit code.
    fn json(&self, arguments: &[&str]) -> (Value, i32) {
        let output = self.dlq(&[arguments, &["--output", "json"]].concat());
        let code = output.status.code().expect("a code");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        let json = serde_json::from_str(&stdout);
        (json.unwrap_or_else(|_| panic!("{stdout}{}", String::from_utf8_lossy(&output.stderr))), code)
    }

    /// Posts transactions. The events of those with the description `boom` differ from the ledger, until it is repaired.
    async fn post(&self, descriptions: &[&str]) {
        let requests: Vec<Request> = descriptions.iter().map(|description| request(description)).collect();
        post_locked(&mut self.database.connection().await, &requests).await.expect("posted");
        self.database.spoil().await;
    }

    async fn count(&self, from: &str) -> usize {
        self.database.value(&format!("SELECT count(*) FROM {from}")).await.parse().expect("a number")
    }

    async fn garbage(&self, values: &[&[u8]]) {
        let records = values.iter().map(|value| OutgoingRecord {
            key: Some("acct".into()),
            value: Some(value.to_vec().into()),
            headers: cloud_event_headers(Uuid::nil(), TRANSACTION_CREATED, chrono::Utc::now(), None),
            timestamp: chrono::Utc::now(),
        });
        self.broker.produce(TRANSACTIONS_TOPIC, 0, records.collect()).await.expect("published");
    }

    /// Runs relay and consumer until every transaction is assessed or dead-lettered.
    async fn settle(&self, letters: usize) {
        let relay = Binary::start(&["relay"], &self.environment());
        let consumer = Binary::start(&["consume-risk"], &self.environment());
        eventually("everything is handled", async || {
            self.count("dead_letters").await == letters
                && self.count("outbox").await == 0
                && self.count("transactions").await
                    == self.count("risk_assessments").await
                        + self.count("dead_letters WHERE reason = 'differs_from_ledger' AND id NOT IN (SELECT dead_letter_id FROM dead_letter_replays WHERE outcome = 'assessed')").await
        })
        .await;
        relay.stop();
        consumer.stop();
    }

    async fn waiting_for_locks(&self) -> usize {
        self.count("pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await
    }

    async fn audit(&self) -> String {
        let audit = "SELECT coalesce(string_agg(replayed_by || ': ' || outcome, ', ' ORDER BY id), '') FROM dead_letter_replays";
        self.database.value(audit).await
    }
}

fn request(description: &str) -> Request {
    let posting = Posting {
        account_id: AccountId::parse("acct").expect("valid"),
        idempotency_key: IdempotencyKey::parse(&Uuid::new_v4().to_string()).expect("valid"),
        direction: Direction::Credit,
        amount: Amount::from_minor(1_200_000).expect("valid"),
        currency: Currency::parse("EUR").expect("known"),
        counterparty: Some("shop".into()),
        description: Some(description.into()),
        metadata: None,
        reverses: None,
        created_at: None,
    };
    Request { posting: posting.into(), traceparent: None }
}

fn id_of(item: &Value) -> String {
    item["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_after_a_repair_of_the_ledger_assesses_once_however_often_it_is_repeated() {
    let stage = Stage::new().await;
    stage.post(&["a", "b", "boom", "c"]).await;
    stage.settle(1).await;
    let (list, _) = stage.json(&["list"]);
    let id = id_of(&list["items"][0]);
    assert_eq!(list["items"][0]["reason"], "differs_from_ledger");

    let (failed, code) = stage.json(&["replay", &id]);
    assert_eq!((code, &failed["items"][0]["outcome"]), (1, &"failing".into()), "{failed}");
    assert!(
        failed["items"][0]["detail"].as_str().expect("text").starts_with("differs_from_ledger (ledger): "),
        "{failed}"
    );
    assert_eq!(stage.count("risk_assessments").await, 3);

    stage.database.repair().await;
    let (foreseen, code) = stage.json(&["replay", &id, "--dry-run"]);
    assert_eq!((code, &foreseen["items"][0]["outcome"]), (0, &"assessed".into()), "{foreseen}");
    assert_eq!(stage.count("risk_assessments").await, 3, "a dry run writes nothing");
    assert_eq!(stage.audit().await, "the operator: failing");

    for outcome in ["assessed", "already_assessed"] {
        let (replayed, code) = stage.json(&["replay", &id]);
        assert_eq!((code, &replayed["items"][0]["outcome"]), (0, &outcome.into()), "{replayed}");
        assert_eq!(stage.count("risk_assessments").await, 4);
        assert_eq!(stage.count("outbox WHERE topic = 'risk-assessments.v1'").await, 1, "announced once");
        assert_eq!(stage.count("outbox WHERE topic = 'transactions.v1'").await, 0, "never published again");
    }
    assert_eq!(
        stage.audit().await,
        "the operator: failing, the operator: assessed, the operator: already_assessed"
    );
    assert_eq!(stage.json(&["list"]).0["items"], serde_json::json!([]));
    let (shown, _) = stage.json(&["show", &id]);
    assert_eq!(shown["value"]["json"]["description"], "boom");
    assert_eq!(shown["replay_log"][1]["outcome"], "assessed");
}

/// Fails if the effect commits before the row of the audit.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_commit_fails_has_no_effect_and_can_be_repeated() {
    let stage = Stage::new().await;
    stage.post(&["a", "boom", "b"]).await;
    stage.settle(1).await;
    stage.database.repair().await;
    let client = stage.database.client().await;
    let failing =
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full'; END $$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON dead_letter_replays
          DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()";
    client.batch_execute(failing).await.expect("a commit that fails");
    let output = stage.dlq(&["replay", "--all"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("disk full"), "{said}");
    assert_eq!(stage.count("risk_assessments").await, 2, "no effect");
    assert_eq!((stage.count("outbox").await, &*stage.audit().await), (0, ""));
    assert_eq!(stage.json(&["list"]).0["items"].as_array().expect("items").len(), 1);

    client.batch_execute("DROP TRIGGER fail ON dead_letter_replays").await.expect("mended");
    let (replayed, code) = stage.json(&["replay", "--all"]);
    assert_eq!((code, &replayed["counts"]["assessed"]), (0, &1.into()), "{replayed}");
    assert_eq!(stage.count("risk_assessments").await, 3);
    // Fails if `--all` retries dead letters that a replay has handled.
    let (again, code) = stage.json(&["replay", "--all"]);
    assert_eq!((code, &again["items"]), (0, &serde_json::json!([])), "{again}");
    assert_eq!(stage.audit().await, "the operator: assessed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_event_is_scored_with_the_transactions_before_it() {
    let stage = Stage::new().await;
    stage.post(&["a", "b", "boom", "c", "d"]).await;
    stage.settle(1).await;
    stage.database.repair().await;
    let counting = tempfile::NamedTempFile::new().expect("file");
    let rules = "[levels]\nmedium = 40\nhigh = 70\n[features.seen]\nwindow = \"1h\"\naggregate = \"count\"\n\
                 [[rules]]\nid = \"r\"\nwhen = \"seen == 3\"\nscore = 41\nreason = \"third\"\n";
    std::fs::write(counting.path(), rules).expect("written");
    let (replayed, _) = stage.json(&["replay", "--all", "--rules", counting.path().to_str().expect("UTF-8")]);
    assert_eq!(replayed["items"][0]["detail"], "medium 41", "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_match_are_replayed_and_a_failure_is_exit_code_1() {
    let stage = Stage::new().await;
    stage.post(&["boom", "a", "boom", "boom"]).await;
    stage.garbage(&[b"{\"half\":", &[0xff, 0x00], b"\x1b[31m red"]).await;
    stage.settle(6).await;
    stage.database.repair().await;
    let (replayed, code) =
        stage.json(&["replay", "--all", "--reason", "differs_from_ledger", "--rate", "1000/s"]);
    assert_eq!((code, &replayed["counts"]["assessed"]), (0, &3.into()), "{replayed}");
    let (replayed, code) = stage.json(&["replay", "--all", "--limit", "2"]);
    assert_eq!((code, &replayed["counts"]["failing"]), (1, &2.into()), "{replayed}");
    assert_eq!((&replayed["counts"]["already_assessed"], &replayed["has_more"]), (&0.into(), &true.into()));
    let (none, code) = stage.json(&["replay", "--all", "--topic", "risk-assessments.v1"]);
    assert_eq!((code, &none["items"]), (0, &serde_json::json!([])));
    stage.settle(6).await;
    assert_eq!(stage.count("risk_assessments").await, 4);
    let many = "INSERT INTO dead_letters
          (id, consumer_group, topic, partition, key, value, headers, stage, reason, error, attempts, created_at)
        SELECT gen_random_uuid(), 'risk', 'transactions.v1', 0, 'k', 'v', '[]', 'decode', 'unknown_type', 'e', 1,
          now() - interval '1 hour' FROM generate_series(1, 1000)";
    stage.database.client().await.batch_execute(many).await.expect("inserted");
    // Fails if the oldest thousand, which never succeed, hide the others.
    let (foreseen, code) = stage.json(&["replay", "--all", "--dry-run"]);
    assert_eq!((code, &foreseen["counts"]["failing"]), (1, &1_003.into()));
    assert_eq!(foreseen["has_more"], false);
    let verified = binary::run(&["verify", "--wait", "20s"], &stage.environment());
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_newest_first_in_pages_and_shown_without_control_characters() {
    let stage = Stage::new().await;
    stage.post(&["boom"]).await;
    stage.garbage(&[b"{\"half\":", &[0xff, 0x00], "\u{9b}31m red".as_bytes()]).await;
    stage.settle(4).await;
    let (all, _) = stage.json(&["list"]);
    let times: Vec<&str> = all["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["created_at"].as_str().expect("time"))
        .collect();
    assert!(times.len() == 4 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let (first, _) = stage.json(&["list", "--limit", "3"]);
    let (second, _) =
        stage.json(&["list", "--limit", "3", "--before", first["next_before"].as_str().expect("more")]);
    let pages = [
        first["items"].as_array().expect("items").clone(),
        second["items"].as_array().expect("items").clone(),
    ];
    assert_eq!(Value::from(pages.concat()), all["items"]);
    assert_eq!(second["next_before"], Value::Null);
    for (filter, count) in [
        (&["--reason", "undecodable"][..], 3),
        (&["--reason", "differs_from_ledger", "--group", "risk", "--topic", "transactions.v1"], 1),
        (&["--since", "1h"], 4),
        (&["--until", "1h"], 0),
        (&["--since", "2099-01-01"], 0),
    ] {
        let (found, _) = stage.json(&[&["list"], filter].concat());
        assert_eq!(found["items"].as_array().expect("items").len(), count, "{filter:?}");
    }
    for command in [&["list"][..], &["replay", "--all"]] {
        let refused = stage.dlq(&[command, &["--since", "2026-01-02", "--until", "2026-01-01"]].concat());
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {stderr}");
        assert!(stderr.contains("--since 2026-01-02 00:00:00 UTC is after --until 2026-01-01"), "{stderr}");
    }
    let mut shown = Vec::new();
    for item in all["items"].as_array().expect("items") {
        let output = stage.dlq(&["show", &id_of(item)]);
        assert!(output.status.success());
        shown.push(String::from_utf8(output.stdout).expect("UTF-8"));
    }
    let shown = shown.join("\n");
    assert!(!shown.contains(['\u{1b}', '\u{9b}']), "no control characters reach the terminal: {shown}");
    for part in ["base64:/wA=", "{\"half\":", "\"description\": \"boom\"", "ce_type: TransactionCreated.v1"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let unknown = stage.dlq(&["show", &Uuid::nil().to_string()]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no dead letter 0000"));
    assert_eq!(stage.dlq(&["replay"]).status.code(), Some(2), "neither ids nor --all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dismissed_dead_letter_is_kept_with_its_note_and_is_no_longer_open() {
    let stage = Stage::new().await;
    stage.post(&["boom", "a", "boom"]).await;
    stage.settle(2).await;
    stage.database.repair().await;
    let (list, _) = stage.json(&["list"]);
    let [first, second] = [id_of(&list["items"][0]), id_of(&list["items"][1])];
    let dismiss = |ids: &[&str]| {
        stage.json(&[&["dismiss", "--note", "seen before", "--by", "the operator"], ids].concat())
    };

    let unknown = stage.dlq(&["dismiss", &first, &Uuid::nil().to_string(), "--note", "n"]);
    assert_eq!(unknown.status.code(), Some(1), "all or none");
    assert_eq!(stage.dlq(&["dismiss", &first]).status.code(), Some(2), "no note");
    assert_eq!(stage.dlq(&["dismiss", &first, "--note", ""]).status.code(), Some(2), "an empty note");
    assert_eq!(stage.audit().await, "");

    let (done, code) = dismiss(&[&first, &first]);
    assert_eq!((code, &done["items"][0]["outcome"]), (0, &"dismissed".into()), "{done}");
    assert_eq!(dismiss(&[&first]).0["items"][0]["outcome"], "not_open", "once");
    assert_eq!(stage.audit().await, "the operator: dismissed");
    for (state, ids) in [("open", vec![&second]), ("handled", vec![&first]), ("all", vec![&first, &second])] {
        let (found, _) = stage.json(&["list", "--state", state]);
        let found: Vec<String> = found["items"].as_array().expect("items").iter().map(id_of).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), ids, "{state}");
    }
    let (shown, _) = stage.json(&["show", &first]);
    assert_eq!((&shown["outcome"], &shown["replays"]), (&"dismissed".into(), &0.into()), "{shown}");
    assert_eq!(shown["replay_log"][0]["detail"], "seen before", "{shown}");

    let (replayed, _) = stage.json(&["replay", "--all"]);
    assert_eq!(replayed["items"].as_array().expect("items").len(), 1, "only the open one: {replayed}");
    assert_eq!(dismiss(&[&second]).0["items"][0]["outcome"], "not_open", "a replay has handled it");
    let (replayed, _) = stage.json(&["replay", &first]);
    assert_eq!(replayed["items"][0]["outcome"], "assessed", "by its id: {replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_reason_topic_or_group_is_refused_with_the_known_ones() {
    let stage = Stage::new().await;
    let client = stage.database.client().await;
    let letter = "INSERT INTO dead_letters (id, consumer_group, topic, partition, record_offset, headers, stage, reason,
                                            error, attempts)
                  SELECT gen_random_uuid(), name, 'transactions.v1', 0, 0, '[]', 'decode', 'no_key', 'e', 1
                  FROM unnest(ARRAY['forgotten', 'old']) AS g (name)";
    client.batch_execute(letter).await.expect("inserted");
    for command in [&["list"][..], &["replay", "--all", "--dry-run"]] {
        for (flag, code, known) in [
            ("--reason", 2, "record_too_large, record_invalid, unknown_type"),
            ("--topic", 2, "transactions.v1, risk-assessments.v1, transactions.v1.dlq"),
            ("--group", 1, "known are forgotten, old, relay, risk"),
        ] {
            let refused = stage.dlq(&[command, &[flag, "typo"]].concat());
            let stderr = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(code), "{command:?} {flag}: {stderr}");
            assert!(stderr.contains(known), "{command:?} {flag}: {stderr}");
        }
    }
    for group in ["forgotten", "old", "relay", "risk"] {
        assert!(stage.dlq(&["list", "--group", group]).status.success(), "{group}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_the_relay_is_queued_assessed_or_refused_depending_on_its_topic() {
    let stage = Stage::new().await;
    stage.post(&["a"]).await;
    let client = stage.database.client().await;
    client
        .batch_execute(
            "WITH taken AS (DELETE FROM outbox RETURNING key, value, event_id, created_at)
             INSERT INTO dead_letters (id, consumer_group, topic, partition, key, value, headers, stage, reason, error, attempts, event_id)
             SELECT gen_random_uuid(), 'relay', topic, 0, key, value,
                    CASE topic WHEN 'transactions.v1' THEN '[[\"ce_type\",\"VHJhbnNhY3Rpb25DcmVhdGVkLnYx\"]]'::json ELSE '[[\"odd\",\"eA==\"]]'::json END,
                    'publish', 'record_too_large', 'too large', 1, event_id
             FROM taken, unnest(ARRAY['transactions.v1', 'transactions.v1.dlq', 'risk-assessments.v1']) AS t (topic)",
        )
        .await
        .expect("dead-lettered");
    // Fails if a replay does not lock the dead letter: then both replays find that it is not queued yet. The lock on
    // the outbox makes them run at the same time.
    let queue = ["replay", "--all", "--topic", "transactions.v1.dlq"];
    client.batch_execute("BEGIN; LOCK TABLE outbox IN SHARE MODE").await.expect("locked");
    let stage = Arc::new(stage);
    let replays = [(); 2].map(|()| {
        let stage = Arc::clone(&stage);
        tokio::task::spawn_blocking(move || stage.dlq(&queue))
    });
    eventually("both wait", async || stage.waiting_for_locks().await == 2).await;
    client.batch_execute("COMMIT").await.expect("unlocked");
    for replay in replays {
        assert!(replay.await.expect("no panic").status.success());
    }
    assert_eq!(stage.count("outbox WHERE topic = 'transactions.v1.dlq' AND headers->0->>0 = 'odd'").await, 1);
    assert_eq!(stage.count("dead_letter_replays WHERE outcome = 'queued'").await, 1);
    let (assessed, code) = stage.json(&["replay", "--all", "--topic", "transactions.v1"]);
    assert_eq!((code, &assessed["counts"]["assessed"]), (0, &1.into()), "{assessed}");
    assert_eq!(stage.count("outbox WHERE topic = 'transactions.v1'").await, 0);
    let (refused, code) = stage.json(&["replay", "--all", "--topic", "risk-assessments.v1"]);
    assert_eq!((code, &refused["counts"]["failing"]), (1, &1.into()), "{refused}");
    assert!(
        refused["items"][0]["detail"].as_str().expect("text").contains("would break the order"),
        "{refused}"
    );
}
