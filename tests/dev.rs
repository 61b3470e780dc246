//! `ledger dev` and `ledger demo` as a user runs them: the real binary, a private database, nothing left behind.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    DEADLINE,
    binary::{self, Binary},
    eventually,
};

/// The configured database and broker, which must not be used.
const UNUSED_CONFIGURATION: [(&str, &str); 4] = [
    ("LEDGER_DATABASE__URL", "postgres://nobody:***@127.0.0.1:1/nothing"),
    ("LEDGER_DATABASE__URL_FILE", "/nonexistent/url"),
    ("LEDGER_BROKER__KAFKA__SASL_PASSWORD", "***"),
    ("LEDGER_BROKER__KIND", "kafka"),
];

/// Returns a directory that the server's user can enter.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).expect("mode");
    directory
}

fn start_dev(data: &Path) -> Binary {
    let data = data.to_str().expect("UTF-8");
    let flags = ["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", data];
    Binary::start(&flags, &UNUSED_CONFIGURATION)
}

/// Runs the printed curl line, as a user would paste it, and returns its output.
fn paste_curl(dev: &mut Binary) -> String {
    let line = dev.line_with("curl -i");
    let output =
        Command::new("sh").args(["-c", &format!("{line} --silent --show-error")]).output().expect("sh");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the command lines of all processes that contain the path.
fn processes_on(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("UTF-8");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(path))
        .collect()
}

async fn nothing_runs_on(path: &Path) {
    eventually("all processes end", async || processes_on(path).is_empty()).await;
}

#[tokio::test]
async fn dev_answers_the_printed_curl_line_and_keeps_its_data_between_starts() {
    let directory = directory();
    let data = directory.path().join("data");
    let mut dev = start_dev(&data);
    let first = paste_curl(&mut dev);
    assert!(first.starts_with("HTTP/1.1 201"), "{first}");
    let metrics = dev.line_with("/metrics").split("http://").nth(1).expect("a URL").to_owned();
    dev.answers(metrics.trim_end_matches("/metrics"), "/readyz");
    dev.stop();
    nothing_runs_on(directory.path()).await;

    let mut again = start_dev(&data);
    let replayed = paste_curl(&mut again);
    assert!(replayed.starts_with("HTTP/1.1 200"), "{replayed}");
    assert!(replayed.to_lowercase().contains("idempotent-replayed: true"), "{replayed}");
    let body = |answer: &str| answer.split_once("\r\n\r\n").expect("a body").1.to_owned();
    assert_eq!(body(&first), body(&replayed));
    again.stop();
    nothing_runs_on(directory.path()).await;
}

#[tokio::test]
async fn dev_restarts_after_kill_9_with_all_acknowledged_transactions() {
    let directory = directory();
    let data = directory.path().join("data");
    let mut dev = start_dev(&data);
    assert!(paste_curl(&mut dev).starts_with("HTTP/1.1 201"));
    dev.kill();
    // Start at once, while the first server may still be stopping.
    let mut again = start_dev(&data);
    assert!(paste_curl(&mut again).starts_with("HTTP/1.1 200"));
    again.stop();
    nothing_runs_on(directory.path()).await;
}

#[tokio::test]
async fn dev_ends_with_an_error_when_its_database_does() {
    let directory = directory();
    let data = directory.path().join("data");
    let mut dev = start_dev(&data);
    dev.line_with("curl -i");
    let pid = fs::read_to_string(data.join("postgresql/postmaster.pid")).expect("running");
    let pid = pid.lines().next().expect("a line").parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGQUIT).expect("signalled");
    let (status, stderr) = dev.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().last().expect("a line").starts_with("error: PostgreSQL ended"), "{stderr}");
    nothing_runs_on(directory.path()).await;
}

#[tokio::test]
async fn dev_refuses_a_directory_in_use_and_a_directory_with_other_files() {
    let directory = directory();
    let data = directory.path().join("data");
    let mut dev = start_dev(&data);
    dev.line_with("curl -i");
    let second = binary::run(&["dev", "--data-dir", data.to_str().expect("UTF-8")], &[]);
    let stderr = String::from_utf8(second.stderr).expect("UTF-8");
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr.contains("is in use by another `ledger`"), "{stderr}");
    assert!(paste_curl(&mut dev).starts_with("HTTP/1.1 201"), "the first one still works");
    dev.stop();

    let foreign = directory.path().join("photos");
    fs::create_dir(&foreign).expect("directory");
    fs::write(foreign.join("cat.jpg"), "meow").expect("written");
    let refused = binary::run(&["dev", "--data-dir", foreign.to_str().expect("UTF-8")], &[]);
    let stderr = String::from_utf8(refused.stderr).expect("UTF-8");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr.contains("is neither empty nor made by `ledger dev`"), "{stderr}");
    assert_eq!(fs::read_dir(&foreign).expect("readable").count(), 1, "the directory is unchanged");
}

#[tokio::test]
async fn a_port_in_use_is_reported_and_leaves_no_process() {
    let directory = directory();
    let data = directory.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let data_flag = data.to_str().expect("UTF-8");
    let flags = ["dev", "--data-dir", data_flag, "--listen", &address, "--admin-listen", "off"];
    let refused = binary::run(&flags, &[]);
    let stderr = String::from_utf8(refused.stderr).expect("UTF-8");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr.contains(&format!("error: cannot listen on {address}")), "{stderr}");
    nothing_runs_on(directory.path()).await;
}

#[tokio::test]
async fn all_checks_of_the_demo_pass_and_it_leaves_nothing() {
    let temporary = directory();
    let environment = [
        UNUSED_CONFIGURATION[0],
        UNUSED_CONFIGURATION[1],
        ("TMPDIR", temporary.path().to_str().expect("UTF-8")),
    ];
    let demo = binary::run(&["demo", "--transactions", "800", "--duration", "60s"], &environment);
    let (stdout, stderr) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{stdout}\n{stderr}");
    assert!(
        stdout.contains("800 transactions were posted") && stdout.contains("All checks passed"),
        "{stdout}"
    );
    assert!(!stdout.contains("DIFFERS"), "{stdout}");
    assert_eq!(stderr, "", "a successful demo prints no error");
    nothing_runs_on(temporary.path()).await;
    assert_eq!(fs::read_dir(temporary.path()).expect("readable").count(), 0, "no file is left");
}

#[tokio::test]
async fn a_demo_whose_reader_is_gone_completes() {
    let temporary = directory();
    let environment = [("TMPDIR", temporary.path().to_str().expect("UTF-8"))];
    let demo =
        binary::run_without_reader(&["demo", "--transactions", "100", "--duration", "60s"], &environment);
    let stderr = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success() && stderr.is_empty(), "{}: {stderr}", demo.status);
    nothing_runs_on(temporary.path()).await;
    assert_eq!(fs::read_dir(temporary.path()).expect("readable").count(), 0, "no file is left");
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing() {
    let temporary = directory();
    let environment = [("TMPDIR", temporary.path().to_str().expect("UTF-8"))];
    let mut demo = Binary::start(&["demo", "--transactions", "1000000", "--duration", "60s"], &environment);
    demo.line_with("a private PostgreSQL is up");
    let asked = Instant::now();
    demo.signal(Signal::SIGINT);
    let (status, stderr) = demo.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("error: interrupted"), "{stderr} after {:?}", asked.elapsed());
    nothing_runs_on(temporary.path()).await;
    assert_eq!(fs::read_dir(temporary.path()).expect("readable").count(), 0, "no file is left");

    let killed = Binary::start(&["demo", "--transactions", "1000000", "--duration", "60s"], &environment);
    // Between the directory and its watchdog, a killed demo leaves an empty directory.
    eventually("the watchdog", async || !processes_on(temporary.path()).is_empty()).await;
    killed.kill();
    let is_empty = || fs::read_dir(temporary.path()).expect("readable").next().is_none();
    eventually("the directory of a killed demo is removed", async || is_empty()).await;
    nothing_runs_on(temporary.path()).await;
}
