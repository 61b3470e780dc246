//! Every shell block of README.md and of `docs/` runs as it is written: on a real PostgreSQL at port 5432 with the password
//! of the README, on a real Kafka at port 9092, and with the default ports of the roles.
//!
//! All of it has a network namespace of its own, so that the ports are free and other tests do not see it. The test starts
//! itself again in that namespace. One page is one shell, which runs the blocks in order, in an empty directory with
//! `config/`, `scripts/` and the Makefile. `documents/session.sh` lists what differs from the terminal of a user.
//!
//! Two comments in the Markdown, in the line above a block, are for this test:
//!
//! - `<!-- not run: REASON -->`: the block cannot run here.
//! - `<!-- first: COMMANDS -->`: commands that run before the block, such as the copy of a file that it reads.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use ledger::dev::cluster::{Cluster, ClusterOptions};
use parquet::arrow::ArrowWriter;
use secrecy::ExposeSecret;
use tokio::process::Command;

use crate::support::{
    binary, kafka_script,
    own_kafka::{self, OwnKafka},
    postgres::{TestDatabase, client},
};

/// Blocks for Docker, Kubernetes, Ansible, package registries, and servers whose addresses are examples.
const NOT_RUN_MAX: usize = 12;
/// Set in the process that runs in the namespace.
const IN_NAMESPACE: &str = "LEDGER_TEST_OWN_NETWORK";
const TEST: &str = "documents::every_shell_block_runs_as_it_is_written";
const PAGE_TIMEOUT: Duration = Duration::from_secs(600);
/// The last item of the list in `documents/session.sh`, and the shorter runs of `simulate` and `demo`.
const SETTINGS: [(&str, &str); 5] = [
    ("LEDGER_SIMULATE_DURATION", "2s"),
    ("LEDGER_DEMO_TRANSACTIONS", "500"),
    ("LEDGER_DATABASE__CONNECT_TIMEOUT", "60s"),
    ("LEDGER_RELAY__LEASE_TTL", "30s"),
    ("LEDGER_CONSUME_RISK__LEASE_TTL", "30s"),
];
/// The parts of a clone that the blocks use.
const TREE: [&str; 3] = ["config", "scripts", "Makefile"];

struct Block {
    /// The line of the fence, counted from 1.
    line: usize,
    text: String,
    /// The comment above the block.
    comment: String,
}

impl Block {
    fn comment(&self, kind: &str) -> Option<&str> {
        self.comment.trim().strip_prefix("<!-- ")?.strip_suffix(" -->")?.strip_prefix(kind)
    }

    fn is_run(&self) -> bool {
        self.comment("not run: ").is_none()
    }
}

struct Page {
    name: String,
    blocks: Vec<Block>,
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the pages with shell blocks.
fn pages() -> Vec<Page> {
    let documents =
        fs::read_dir(tree().join("docs")).expect("docs").map(|entry| entry.expect("entry").path());
    let mut paths: Vec<PathBuf> =
        documents.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    paths.sort();
    paths.insert(0, tree().join("README.md"));
    let page = |path: PathBuf| Page {
        name: path.strip_prefix(tree()).expect("below the tree").display().to_string(),
        blocks: shell_blocks(&fs::read_to_string(&path).expect("text")),
    };
    paths.into_iter().map(page).filter(|page| !page.blocks.is_empty()).collect()
}

fn shell_blocks(markdown: &str) -> Vec<Block> {
    let (mut blocks, mut open, mut before) = (Vec::new(), None::<Block>, "");
    let mut is_other = false;
    for (index, line) in markdown.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.text += &format!("{line}\n");
                open = Some(block);
            }
            (Some("sh"), None) => {
                open = Some(Block { line: index + 1, text: String::new(), comment: before.to_owned() });
            }
            (Some(kind), None) => {
                let shells = ["bash", "shell", "console", "zsh"];
                assert!(is_other || !shells.contains(&kind), "line {}: call the block sh", index + 1);
                is_other = !is_other;
            }
            (None, None) => {}
        }
        before = line;
    }
    blocks
}

#[test]
fn shell_blocks_that_are_not_run_are_few_and_have_a_reason() {
    let pages = pages();
    let blocks: Vec<&Block> = pages.iter().flat_map(|page| &page.blocks).collect();
    assert!(blocks.len() > 20, "the blocks were found");
    for block in &blocks {
        let is_marked = block.comment("not run: ").or(block.comment("first: ")).is_some();
        assert!(is_marked || !block.comment.contains("<!--"), "an unknown comment: {}", block.comment);
    }
    let not_run = blocks.iter().filter(|block| !block.is_run()).count();
    println!("{} of {} shell blocks are run", blocks.len() - not_run, blocks.len());
    assert!(not_run <= NOT_RUN_MAX, "{not_run} blocks are not run");
}

/// Seen to fail with a binary that lacked a command of a page.
#[tokio::test(flavor = "multi_thread")]
async fn every_shell_block_runs_as_it_is_written() {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        return run_all().await;
    }
    let unshare = unshare();
    let mut probe = Command::new(unshare[0]);
    probe.args(&unshare[1..]).args(["ip", "link", "set", "lo", "up"]).stdin(Stdio::null());
    if !kafka_script::is_possible() || !succeeds(&mut probe).await {
        skip("it needs java, mvn, unshare, ip, and the right to make a network namespace");
        return;
    }
    // Both need the network, which the namespace does not have: downloads of PostgreSQL and of Kafka.
    drop(TestDatabase::new().await);
    kafka_script::fetch().await;
    let _memory = own_kafka::permit().await;
    let output = Command::new(unshare[0])
        .args(&unshare[1..])
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("path"))
        .args(["--exact", TEST, "--nocapture"])
        .env(IN_NAMESPACE, "yes")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("runs");
    assert!(output.status.success(), "{}", text(&output));
}

/// The command that runs another command in a network namespace. A user other than root needs a user namespace too.
fn unshare() -> &'static [&'static str] {
    match nix::unistd::Uid::effective().is_root() {
        true => &["unshare", "--net"],
        false => &["unshare", "--user", "--map-current-user", "--keep-caps", "--net"],
    }
}

async fn succeeds(command: &mut Command) -> bool {
    command.output().await.is_ok_and(|output| output.status.success())
}

/// Prints to the terminal directly, because the test harness hides the output of passing tests.
fn skip(reason: &str) {
    let warning = format!("\nSKIPPED {TEST}: {reason}\n");
    let _ = fs::write("/dev/stderr", &warning).or_else(|_| fs::write("/dev/tty", &warning));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn run_all() {
    let directory = tempfile::Builder::new().prefix("ledger-test-").tempdir().expect("directory").keep();
    let options =
        ClusterOptions { directory, ephemeral: true, binaries: None, connections_max: 200, durable: true };
    let cluster = Cluster::start_as(&options, Some(5432), &[]).await.expect("PostgreSQL at its usual port");
    let administrator = client(cluster.url("postgres").expose_secret()).await;
    // The user `ledger` exists. The README names this password and this database.
    for statement in ["ALTER ROLE ledger PASSWORD 'secret'", "CREATE DATABASE ledger"] {
        administrator.batch_execute(statement).await.expect(statement);
    }
    let _kafka = OwnKafka::start_with(&["--port", "9092"]).await.expect("Kafka at its usual port");
    let mut failures = String::new();
    for (number, page) in pages().iter().enumerate() {
        let database = format!("page_{number}");
        administrator.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("database");
        let output = run_page(page, &format!("postgres://ledger:secret@localhost/{database}")).await;
        if !output.status.success() {
            failures += &format!("{}:\n{}\n", page.name, text(&output));
        }
    }
    assert!(failures.is_empty(), "{failures}");
    cluster.stop().await.expect("stopped");
}

async fn run_page(page: &Page, database_url: &str) -> Output {
    let directory = tempfile::Builder::new().prefix("ledger-page-").tempdir().expect("directory");
    let path = directory.path();
    // For PostgreSQL of `ledger dev`, which does not run as root.
    fs::set_permissions(path, fs::Permissions::from_mode(0o711)).expect("mode");
    for name in TREE {
        symlink(tree().join(name), path.join(name)).expect("linked");
    }
    fs::create_dir(path.join("roles")).expect("directory");
    write_history(&path.join("history.parquet"));
    fs::write(path.join("page.sh"), script(page)).expect("written");
    let mut command = std::process::Command::new("bash");
    binary::remove_settings(&mut command);
    command
        .arg("page.sh")
        .current_dir(path)
        .env("TEST_LEDGER", binary::program())
        .env("LEDGER_DATABASE__URL", database_url)
        .envs(SETTINGS)
        .env("XDG_DATA_HOME", path.join("data"))
        .stdin(Stdio::null());
    let mut command = Command::from(command);
    let ended = tokio::time::timeout(PAGE_TIMEOUT, command.kill_on_drop(true).output()).await;
    ended.unwrap_or_else(|_| panic!("{} did not end within {PAGE_TIMEOUT:?}", page.name)).expect("bash")
}

fn script(page: &Page) -> String {
    let mut script =
        fs::read_to_string(tree().join("tests/documents/session.sh")).expect("the start of each script");
    script += "exec 2>&1\n";
    for block in page.blocks.iter().filter(|block| block.is_run()) {
        let first = block.comment("first: ").unwrap_or("true");
        script += &format!("block {}:{}\n{first}\n{}end_of_block\n", page.name, block.line, block.text);
    }
    script + "end_of_page\n"
}

/// Writes the rows of `history.csv.gz` in `documents/session.sh`.
fn write_history(path: &Path) {
    let column = |values: [&str; 2]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let batch = RecordBatch::try_from_iter([
        ("account_id", column(["a", "a"])),
        ("idempotency_key", column(["1", "2"])),
        ("direction", column(["credit", "debit"])),
        ("amount", column(["900.00", "0.50"])),
        ("currency", column(["EUR", "EUR"])),
        ("created_at", column(["2023-01-01T08:00:00Z", "2023-01-02T08:00:00Z"])),
    ])
    .expect("columns of one length");
    let file = fs::File::create(path).expect("file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}
