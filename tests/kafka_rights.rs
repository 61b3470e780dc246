//! Rights and passwords that are taken from a consumer while it works: it says which, counts, loses nothing, puts nothing
//! aside, and goes on by itself once they are given back.

use ledger::event::TRANSACTIONS_TOPIC;

use crate::support::{binary::get, eventually, kafka::Kafka, proxy::Proxy, system::System};

const USER: &str = "reader";
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";

/// A secured Kafka's administrator.
struct Administrator<'a>(&'a Kafka);

impl Administrator<'_> {
    async fn set_password(&self, password: &str) {
        let password = format!("SCRAM-SHA-256=[iterations=4096,password={password}]");
        let user = ["--alter", "--entity-type", "users", "--entity-name", USER, "--add-config", &password];
        self.0.tool(CONFIGS, &user).await;
    }

    /// `--add` or `--remove`.
    async fn right_to_read(&self, change: &str) {
        let principal = format!("User:{USER}");
        let right = [
            "--force",
            "--allow-principal",
            &principal,
            "--operation",
            "Read",
            "--topic",
            TRANSACTIONS_TOPIC,
        ];
        self.0.tool(ACLS, &[&[change], &right[..]].concat()).await;
    }
}

/// How many turns failed, by reason.
fn errors(admin: &str, reason: &str) -> u64 {
    let (_, metrics) = get(admin, "/metrics").expect("metrics");
    let reason = format!("reason=\"{reason}\"");
    let of_reason = |line: &&str| line.starts_with("ledger_consumer_errors_total") && line.contains(&reason);
    let line = metrics.lines().find(of_reason);
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().expect("a number"))
}

/// Bug that this caught: only the first cause of a trouble was told, which for a changed password is a silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_right_or_password_is_taken_away_waits_for_it_and_says_so() {
    let Some(kafka) = Kafka::secured_alone().await else { return };
    let administrator = Administrator(&kafka);
    let system = System::on_postgres().await;
    let assessed = async |count| {
        eventually("all are assessed", async || system.count("risk_assessments").await == count).await;
    };
    let broker = ("LEDGER_BROKER__KIND", "kafka");
    let servers = "LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS";
    let relay = system.relay(&[broker, (servers, &kafka.bootstrap_servers)]);
    administrator.set_password("first").await;
    administrator.right_to_read("--add").await;

    let listener = kafka.listener("SASL_PLAINTEXT").replace("localhost", "127.0.0.1");
    let proxy = Proxy::start(listener.parse().expect("an address")).await;
    let address = proxy.address.to_string();
    let mut consumer = system.consumer(&[
        broker,
        (servers, &address),
        ("LEDGER_BROKER__CREATE_TOPICS", "false"),
        ("LEDGER_BROKER__KAFKA__SASL_MECHANISM", "scram-sha-256"),
        ("LEDGER_BROKER__KAFKA__SASL_USERNAME", USER),
        ("LEDGER_BROKER__KAFKA__SASL_PASSWORD", "first"),
    ]);
    let admin = consumer.field("admin");
    system.post(0, 60, 60, |_| None).await;
    assessed(60).await;

    administrator.right_to_read("--remove").await;
    system.post(60, 60, 60, |_| None).await;
    consumer.line_with("the broker refuses: TopicAuthorizationFailed for topic transactions.v1");
    eventually("it goes on trying", async || errors(&admin, "refused") > 10).await;
    administrator.right_to_read("--add").await;
    assessed(120).await;

    administrator.set_password("second").await;
    proxy.cut();
    system.post(120, 60, 60, |_| None).await;
    consumer.line_with("authentication");
    administrator.set_password("first").await;
    assessed(180).await;
    assert_eq!(system.count("dead_letters").await, 0);
    for role in [consumer, relay] {
        role.stop();
    }
}
