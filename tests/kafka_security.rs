//! TLS and SASL against a real Kafka with a listener of each kind.
//!
//! Every call works over every kind of listener, a wrong setting is reported in one line, and no secret is sent in plain
//! text.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::Utc;
use ledger::{
    broker::{self, BrokerError, KafkaBroker, OutgoingRecord, SharedBroker, TopicSpec},
    config::Config,
    event::Headers,
};
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::support::{binary, binary::Binary, eventually, kafka::Kafka, postgres::TestDatabase};

const MECHANISMS: [&str; 3] = ["plain", "scram-sha-256", "scram-sha-512"];
const WAIT: Duration = Duration::from_secs(1);

/// Keys of a configuration and their values.
type Settings = Vec<(&'static str, String)>;

/// Returns the settings for the listener of a protocol. An empty mechanism means no authentication.
fn settings(kafka: &Kafka, protocol: &str, mechanism: &str) -> Settings {
    let mut settings = vec![
        ("broker.kind", "kafka".to_owned()),
        ("broker.kafka.bootstrap_servers", kafka.listener(protocol)),
        ("broker.kafka.tls", protocol.ends_with("SSL").to_string()),
        ("broker.kafka.sasl_mechanism", mechanism.to_owned()),
    ];
    if protocol.ends_with("SSL") {
        settings.push(("broker.kafka.tls_ca_file", kafka.secure_file("ca.pem").display().to_string()));
    }
    if !mechanism.is_empty() {
        let password = kafka.secure_file("ledger-password").display().to_string();
        settings.push(("broker.kafka.sasl_username", "ledger".to_owned()));
        settings.push(("broker.kafka.sasl_password_file", password));
    }
    settings
}

fn with(mut settings: Settings, key: &'static str, value: &str) -> Settings {
    settings.retain(|(known, _)| *known != key);
    settings.push((key, value.to_owned()));
    settings
}

fn config(database: &TestDatabase, settings: &Settings) -> Config {
    let pairs: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    database.config_with(&pairs)
}

fn fresh() -> TopicSpec {
    TopicSpec::new(format!("test-{}", uuid::Uuid::new_v4().simple()), 1)
}

/// Makes every call that a role makes.
async fn make_every_call(broker: &SharedBroker, topic: &TopicSpec, group: &str) {
    broker.ensure_topics(std::slice::from_ref(topic), true).await.expect("created");
    let record = OutgoingRecord {
        key: Some("k".into()),
        value: Some("v".into()),
        headers: Headers::default(),
        timestamp: Utc::now(),
    };
    broker.produce(&topic.name, 0, vec![record.clone(), record]).await.expect("published");
    let found = broker.fetch(&topic.name, 0, 0, 1 << 20, WAIT).await.expect("read");
    assert_eq!(found.records.len(), 2);
    assert_eq!(broker.offset_range(&topic.name, 0).await.expect("range").latest, 2);
    // A broker that has just started may still be creating its topic of positions.
    eventually("positions are committed", async || {
        broker.mirror_positions(group, &topic.name, &[(0, 1)]).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn every_call_works_over_tls_and_with_each_mechanism() {
    let Some(kafka) = Kafka::secured() else { return };
    let database = TestDatabase::new().await;
    let mut listeners = vec![("SSL", "")];
    listeners.extend(MECHANISMS.map(|mechanism| ("SASL_SSL", mechanism)));
    listeners.extend(MECHANISMS.map(|mechanism| ("SASL_PLAINTEXT", mechanism)));
    let group = format!("group-{}", uuid::Uuid::new_v4().simple());
    let mut topics = Vec::new();
    for (protocol, mechanism) in listeners {
        let config = config(&database, &settings(kafka, protocol, mechanism));
        let broker = broker::connect(&config, database.pool()).await;
        let broker = broker.unwrap_or_else(|error| panic!("{protocol} {mechanism}: {error}"));
        let topic = fresh();
        make_every_call(&broker, &topic, &group).await;
        topics.push(topic.name);
    }
    let group_arguments = ["--describe", "--group", &group];
    let (described, positions) = tokio::join!(
        kafka.tool("org.apache.kafka.tools.TopicCommand", &["--describe"]),
        kafka.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &group_arguments),
    );
    // Seen to fail with a connection without SCRAM: topics had no settings, and no position was committed.
    for topic in &topics {
        let line = described.lines().find(|line| line.contains(topic.as_str())).expect("described");
        assert!(line.contains("min.insync.replicas=1"), "{line}");
        let line = positions.lines().find(|line| line.contains(topic.as_str())).expect(&positions);
        let fields: Vec<&str> = line.split_whitespace().skip(2).take(4).collect();
        assert_eq!(fields, ["0", "1", "2", "1"], "partition, offset, end, lag");
    }
}

/// Returns the error of an attempt to connect.
async fn connect_error(database: &TestDatabase, settings: &Settings) -> BrokerError {
    let config = config(database, settings);
    let started = Instant::now();
    let error = KafkaBroker::connect(&config.broker.kafka).await.err().expect("refused");
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}: {error}", started.elapsed());
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn a_wrong_setting_is_reported_at_once_in_one_line() {
    let Some(kafka) = Kafka::secured() else { return };
    let database = TestDatabase::new().await;
    for mechanism in MECHANISMS {
        for protocol in ["SASL_SSL", "SASL_PLAINTEXT"] {
            let mut wrong = settings(kafka, protocol, mechanism);
            wrong.retain(|(key, _)| *key != "broker.kafka.sasl_password_file");
            let wrong = with(wrong, "broker.kafka.sasl_password", "hunter2");
            let error = connect_error(&database, &wrong).await;
            let text = error.to_string();
            // Seen to fail when a wrong password was retried for 10 s and then reported as unavailable.
            assert!(matches!(error, BrokerError::Refused { .. }), "{text}");
            assert!(text.contains("authentication as \"ledger\"") && !text.contains("hunter2"), "{text}");
        }
    }
    let tls = settings(kafka, "SSL", "");
    let by_address = tls[1].1.replace("localhost", "127.0.0.1");
    let plain_port = kafka.bootstrap_servers.clone();
    let unencrypted = with(with(tls.clone(), "broker.kafka.tls", "false"), "broker.kafka.tls_ca_file", "");
    let sasl = settings(kafka, "SASL_SSL", "plain");
    let to_plain_port = with(with(sasl.clone(), "broker.kafka.tls", "false"), "broker.kafka.tls_ca_file", "");
    for (what, settings, expected) in [
        (
            "another authority",
            with(tls.clone(), "broker.kafka.tls_ca_file", ""),
            "UnknownIssuer; its authority must be in broker.kafka.tls_ca_file",
        ),
        (
            "another host name",
            with(tls.clone(), "broker.kafka.bootstrap_servers", &by_address),
            "not valid for name \"127.0.0.1\"",
        ),
        (
            "TLS to a plain port",
            with(tls.clone(), "broker.kafka.bootstrap_servers", &plain_port),
            "closed the connection during the TLS handshake; broker.kafka.tls is true",
        ),
        ("plain to a TLS port", unencrypted, "does this port"),
        (
            "no authentication at a port that requires it",
            with(sasl.clone(), "broker.kafka.sasl_mechanism", ""),
            "does this port expect",
        ),
        (
            "authentication at a port that offers none",
            with(to_plain_port, "broker.kafka.bootstrap_servers", &plain_port),
            "this port offers these mechanisms: none",
        ),
        (
            "no such file",
            with(tls.clone(), "broker.kafka.tls_ca_file", "/nowhere/ca.pem"),
            "cannot read broker.kafka.tls_ca_file /nowhere/ca.pem",
        ),
    ] {
        let text = connect_error(&database, &settings).await.to_string();
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[tokio::test]
async fn configured_tls_never_falls_back_to_plain_text() {
    let database = TestDatabase::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address").to_string();
    let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let sink = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let read = client.read(&mut bytes).await.unwrap_or(0);
            bytes.truncate(read);
            sink.lock().expect("not poisoned").push(bytes);
            // The connection is closed, as a broker without TLS does. A fallback would connect again in plain text.
        }
    });
    let settings: Settings = vec![
        ("broker.kind", "kafka".to_owned()),
        ("broker.kafka.bootstrap_servers", address),
        ("broker.kafka.tls", "true".to_owned()),
        ("broker.kafka.sasl_mechanism", "plain".to_owned()),
        ("broker.kafka.sasl_username", "ledger".to_owned()),
        ("broker.kafka.sasl_password", "hunter2".to_owned()),
        ("broker.kafka.connect_timeout", "2s".to_owned()),
    ];
    for _ in 0..3 {
        let text = connect_error(&database, &settings).await.to_string();
        assert!(text.contains("broker.kafka.tls is true"), "{text}");
    }
    let received = received.lock().expect("not poisoned");
    assert!(received.len() >= 3);
    for bytes in received.iter() {
        // Seen to fail with a connection that ignored the TLS setting.
        assert_eq!(bytes.first(), Some(&0x16), "the first byte of a TLS handshake");
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    }
}

/// Returns the environment of a role on that broker.
fn environment(database: &TestDatabase, settings: &Settings) -> Vec<(String, String)> {
    let mut environment = vec![
        ("LEDGER_DATABASE__URL".to_owned(), database.url.clone()),
        ("LEDGER_ADMIN__LISTEN".to_owned(), "off".to_owned()),
    ];
    for (key, value) in settings {
        environment.push((format!("LEDGER_{}", key.to_ascii_uppercase().replace('.', "__")), value.clone()));
    }
    environment
}

#[tokio::test]
async fn a_role_reads_its_password_from_a_file_and_ends_with_one_line_if_it_is_wrong() {
    let Some(kafka) = Kafka::secured() else { return };
    let database = TestDatabase::new().await;
    let settings = settings(kafka, "SASL_SSL", "scram-sha-512");
    let correct = environment(&database, &settings);
    let correct: Vec<(&str, &str)> =
        correct.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut relay = Binary::start(&["relay"], &correct);
    relay.line_with("started role=\"relay\"");
    relay.stop();

    let guests = kafka.secure_file("guest-password").display().to_string();
    let wrong = environment(&database, &with(settings, "broker.kafka.sasl_password_file", &guests));
    let wrong: Vec<(&str, &str)> =
        wrong.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let output = binary::run(&["relay"], &wrong);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert!(errors[0].contains("authentication as \"ledger\" by SCRAM-SHA-512 failed"), "{stderr}");
}
