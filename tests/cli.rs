//! The command line: every command has help, and every error is one clear line with the right exit code.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{Read as _, Write as _},
    process::Output,
};

use nix::sys::signal::Signal;

use crate::support::{
    DEADLINE,
    binary::{self, Binary},
    eventually,
    postgres::TestDatabase,
};

/// Commands that use the database.
const DATABASE_COMMANDS: &[&[&str]] = &[
    &["migrate"],
    &["serve"],
    &["relay"],
    &["consume-risk"],
    &["aggregate"],
    &["verify"],
    &["topics"],
    &["consumers"],
    &["lanes"],
    &["dlq", "list"],
    &["republish", "--missing"],
];

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Asserts exit code 1 and one line on stderr, and returns the line. The warning about the server of the tests, which is
/// not durable, is left out.
fn one_error_line(output: &Output, doing: &str) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{doing}: {stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains("accept_data_loss allows")).collect();
    let [line] = lines.as_slice() else { panic!("{doing} is not reported in one line:\n{stderr}") };
    assert!(line.starts_with("error: "), "{doing}: {line}");
    (*line).to_owned()
}

/// Returns the commands that the help lists, in groups or not.
fn subcommands(help: &str) -> BTreeSet<String> {
    let listed = help.lines().skip_while(|line| !line.starts_with("Usage:")).skip(1);
    let listed = listed.take_while(|line| *line != "Options:");
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split_once("  ")).map(|(name, _)| name);
    names.filter(|name| name.starts_with(char::is_lowercase) && *name != "help").map(str::to_owned).collect()
}

/// Returns every command and its help text.
fn all_commands() -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let output = binary::run(&arguments, &[]);
        assert!(output.status.success(), "{arguments:?}");
        let help = stdout(&output);
        for name in subcommands(&help) {
            open.push(words.iter().cloned().chain([name]).collect());
        }
        found.push((words, help));
    }
    assert!(found.len() > 8, "the commands were found: {found:?}");
    found
}

#[test]
fn every_command_has_an_example_and_every_flag_a_variable() {
    for (words, help) in all_commands() {
        assert!(help.contains("Example"), "ledger {words:?} --help has no example:\n{help}");
        // Long help prints each flag on its own line and its variable below it.
        let flags: Vec<&str> = help.split("\n  -").skip(1).collect();
        for flag in flags.iter().filter(|flag| !flag.contains("--help") && !flag.contains("--version")) {
            let name = flag.lines().next().unwrap_or_default();
            assert!(flag.contains("[env: LEDGER_"), "ledger {words:?}: {name} has no variable:\n{help}");
        }
    }
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    for role in DATABASE_COMMANDS {
        let output = binary::run(role, &[("LEDGER_DATABASE__ULR", "postgres://localhost/ledger")]);
        let line = one_error_line(&output, "an unknown key");
        assert!(
            line.contains("LEDGER_DATABASE__ULR") && line.contains("did you mean LEDGER_DATABASE__URL?"),
            "{line}"
        );
    }
}

#[test]
fn a_missing_database_is_named_without_its_password() {
    let environment = [
        ("LEDGER_DATABASE__URL", "postgres://u:hunter2@127.0.0.1:1/ledger"),
        ("LEDGER_ADMIN__LISTEN", "off"),
    ];
    for role in DATABASE_COMMANDS {
        let line = one_error_line(&binary::run(role, &environment), "a missing database");
        assert!(line.contains("cannot connect to PostgreSQL at 127.0.0.1:1"), "{role:?}: {line}");
        assert!(!line.contains("hunter2"), "{role:?}: {line}");
    }
}

#[test]
fn a_file_to_import_that_does_not_exist_is_named_although_no_database_answers() {
    let database = ("LEDGER_DATABASE__URL", "postgres://127.0.0.1:1/ledger");
    for arguments in [["import", "no-such.csv"].as_slice(), &["import", "Cargo.toml", "--map", "no-such.csv"]]
    {
        let line = one_error_line(&binary::run(arguments, &[database]), "a missing file");
        assert!(line.starts_with("error: cannot read no-such.csv: "), "{line}");
    }
}

#[test]
fn traces_that_would_need_tls_are_refused() {
    for (variable, endpoint) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
    ] {
        let line = one_error_line(&binary::run(&["serve"], &[(variable, endpoint)]), "TLS for traces");
        assert!(
            line.contains(&format!("{variable} is {endpoint}")) && line.contains("without TLS"),
            "{line}"
        );
    }
}

#[test]
fn a_sampler_that_does_not_exist_is_refused() {
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_TRACES_SAMPLER", "sometimes")];
    let line = one_error_line(&binary::run(&["serve"], &environment), "an unknown sampler");
    assert!(line.contains("OTEL_TRACES_SAMPLER is sometimes, but must be one of: always_on"), "{line}");
}

/// A container without a shell is probed with the binary itself.
#[tokio::test]
async fn health_tells_by_its_exit_code_whether_the_role_is_ready() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let ask = |arguments: &[&str], listen: &str| {
        binary::run(&[&["health"], arguments].concat(), &[("LEDGER_ADMIN__LISTEN", listen)])
    };
    let line = one_error_line(&ask(&["--timeout", "300ms"], &address), "a listener that does not answer");
    assert!(line.contains(&format!("http://{address}/readyz does not answer")), "{line}");
    drop(listener);
    // No port that another test could get.
    let line = one_error_line(&ask(&[], "127.0.0.1:1"), "no listener");
    assert!(line.contains("is the role running?"), "{line}");
    let line = one_error_line(&ask(&[], "off"), "a listener that is off");
    assert!(line.contains("admin.listen is off"), "{line}");
    let unready = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = unready.local_addr().expect("an address").to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = unready.accept().expect("a connection");
        assert!(stream.read(&mut [0; 1024]).expect("a request") > 0);
        let answer =
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\nconnection: close\r\n\r\nstarting";
        stream.write_all(answer.as_bytes()).expect("sent");
    });
    let line = one_error_line(&ask(&["--timeout", "60s"], &address), "a role that is not ready");
    assert!(line.contains("answers 503") && line.ends_with("starting"), "{line}");
    answering.join().expect("answered");

    let database = TestDatabase::new().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0"),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
    ];
    let mut serve = Binary::start(&["serve"], &environment);
    let admin = serve.field("admin");
    serve.answers(&admin, "/readyz");
    for (arguments, answer) in [(&[][..], "ready"), (&["--live"], "ok")] {
        let output = ask(arguments, &admin);
        assert!(output.status.success() && stdout(&output).trim() == answer, "{output:?}");
    }
}

#[tokio::test]
async fn a_database_without_the_schema_is_refused_with_the_command_to_run() {
    let database = TestDatabase::empty().await;
    let environment = [("LEDGER_DATABASE__URL", database.url.as_str()), ("LEDGER_ADMIN__LISTEN", "off")];
    for role in DATABASE_COMMANDS.iter().filter(|role| **role != ["migrate"]) {
        let line = one_error_line(&binary::run(role, &environment), "a missing schema");
        assert!(line.contains("run `ledger migrate`"), "{role:?}: {line}");
    }
    let migrated = binary::run(&["migrate"], &environment);
    assert!(migrated.status.success() && stdout(&migrated).starts_with("applied "), "{}", stdout(&migrated));
    let again = binary::run(&["migrate"], &environment);
    assert_eq!(stdout(&again), "the schema is up to date\n");
}

#[tokio::test]
async fn an_occupied_port_is_reported_with_its_key() {
    let database = TestDatabase::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (command, key, other) in [
        (&["serve"][..], "serve.listen", "LEDGER_SERVE__LISTEN"),
        (&["serve"], "admin.listen", "LEDGER_ADMIN__LISTEN"),
        (&["relay"], "admin.listen", "LEDGER_ADMIN__LISTEN"),
        (&["consume-risk"], "admin.listen", "LEDGER_ADMIN__LISTEN"),
        (&["aggregate", "--every", "1h"], "admin.listen", "LEDGER_ADMIN__LISTEN"),
    ] {
        let environment = [
            ("LEDGER_DATABASE__URL", database.url.as_str()),
            ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
            ("LEDGER_ADMIN__LISTEN", "off"),
        ];
        let environment =
            environment.map(|(name, value)| (name, if name == other { &address } else { value }));
        let line = one_error_line(&binary::run(command, &environment), "an occupied port");
        assert!(line.contains(&address) && line.contains(key), "{command:?}: {line}");
    }
}

#[test]
fn misuse_is_exit_code_2() {
    let replay = ["dlq", "replay", "01a206a6-4f5f-7c41-87f5-c48b0979c33c"];
    for arguments in [
        &["serve", "--nonsense"][..],
        &["nonsense"],
        &["simulate", "--hot-share", "2"],
        &["aggregate", "--every", "0s"],
        &[&replay[..], &["--topic", "transactions.v1"]].concat(),
        &[&replay[..], &["--reason", "process_ended"]].concat(),
        &[&replay[..], &["--group", "risk"]].concat(),
        &[&replay[..], &["--since", "2h"]].concat(),
        &[&replay[..], &["--until", "2h"]].concat(),
        &[&replay[..], &["--limit", "1"]].concat(),
        // Filters without --all select nothing.
        &["dlq", "replay", "--reason", "process_ended"],
        &["republish"],
        &[],
    ] {
        let output = binary::run(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: errors go to stderr");
    }
}

#[test]
fn a_refused_value_of_a_flag_from_a_variable_names_the_variable() {
    let output = binary::run(&["simulate"], &[("LEDGER_SIMULATE_RATE", "quick")]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("LEDGER_SIMULATE_RATE") && stderr.contains("'quick'"), "{stderr}");
    let output = binary::run(&["simulate", "--rate", "quick"], &[("LEDGER_SIMULATE_RATE", "1")]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!stderr.contains("LEDGER_SIMULATE_RATE"), "the flag has the value: {stderr}");
}

#[test]
fn a_refused_value_of_a_file_is_one_line_with_file_and_line() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "[serve]\nwriters = 2\nlisten = \"localhost\"\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let line = one_error_line(&binary::run(&["serve", "--config", path], &[]), "a wrong address");
    let expected = format!("serve.listen is \"localhost\" in {path}:3, but must be an IP address and a port");
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn a_configuration_is_printed_without_secrets_and_checked() {
    let secret = [("LEDGER_DATABASE__URL", "postgres://u:hunter2@db/ledger"), ("LEDGER_SERVE__WRITERS", "3")];
    let printed = stdout(&binary::run(&["config", "print"], &secret));
    assert!(
        printed.contains("postgres://u:***@db/ledger") && printed.contains("\nwriters = 3\n"),
        "{printed}"
    );
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), &printed).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let line = one_error_line(&binary::run(&["config", "check", "--config", path], &[]), "a hidden secret");
    assert!(line.contains("database.url") && line.contains(path) && line.contains("***"), "{line}");
    std::fs::write(file.path(), printed.replace("***", "hunter2")).expect("written");
    assert_eq!(
        stdout(&binary::run(&["config", "check", "--config", path], &[])),
        "the configuration is valid\n"
    );
    std::fs::write(file.path(), "[serve]\nwritters = 3\n").expect("written");
    let line = one_error_line(&binary::run(&["config", "check", "--config", path], &[]), "a wrong file");
    assert!(line.contains("serve.writters") && line.contains("did you mean serve.writers?"), "{line}");
    let missing =
        one_error_line(&binary::run(&["config", "check", "--config", "/none.toml"], &[]), "no file");
    assert!(missing.contains("/none.toml"), "{missing}");
}

#[test]
fn completions_need_no_valid_configuration() {
    for shell in ["bash", "zsh", "fish"] {
        let output = binary::run(&["completions", shell], &[("LEDGER_DATABASE__ULR", "x")]);
        assert!(output.status.success() && stdout(&output).contains("simulate"), "{shell}");
    }
}

/// Seen to fail with `println!`: `ledger openapi | head -1` panicked when `head` had closed the pipe.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_no_error() {
    let succeeds = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = binary::run_without_reader(arguments, environment);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !stderr.contains("error"),
            "{arguments:?}: {}: {stderr}",
            output.status
        );
    };
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["openapi"],
        &["schemas"],
        &["schemas", "TransactionCreated.v1"],
        &["completions", "zsh"],
        &["config", "print"],
        &["config", "check"],
        &["risk", "check"],
    ] {
        succeeds(arguments, &[]);
    }
    let database = TestDatabase::empty().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_ADMIN__LISTEN", "off"),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
    ];
    for _ in ["applies the migrations", "is up to date"] {
        succeeds(&["migrate"], &environment);
    }
    let file = tempfile::Builder::new().suffix(".csv").tempfile().expect("file");
    std::fs::write(
        file.path(),
        "account_id,idempotency_key,direction,amount,currency\na,1,credit,1.00,EUR\n",
    )
    .expect("written");
    let file = file.path().to_str().expect("UTF-8");
    for arguments in [
        &["import", file][..],
        &["import", file, "--output", "json"],
        &["aggregate"],
        &["aggregate", "--output", "json"],
        &["verify"],
        &["verify", "--output", "json"],
        &["topics"],
        &["topics", "create"],
        &["consumers"],
        &["lanes"],
        &["lanes", "--output", "json"],
        &["dlq", "list"],
        &["dlq", "replay", "--all", "--dry-run"],
        &["republish", "--missing", "--dry-run"],
        &["risk", "assess", "--dry-run"],
    ] {
        succeeds(arguments, &environment);
    }
    assert_eq!(database.value("SELECT count(*) FROM transactions").await, "1", "the work is done");
    let mut serve = Binary::start(&["serve"], &environment);
    let url = format!("http://{}", serve.field("listen"));
    for output in ["table", "json"] {
        succeeds(&["simulate", "--url", &url, "--transactions", "20", "--output", output], &[]);
    }
    serve.stop();
}

/// Seen to fail when the driver took the rest of the password for the host, which the error and the start line show.
#[test]
fn a_url_with_a_plain_at_sign_in_its_password_is_refused_without_showing_it() {
    let environment = [("LEDGER_DATABASE__URL", "postgres://u:pa@ss@h/db")];
    for command in DATABASE_COMMANDS.iter().copied().chain([&["config", "check"][..], &["config", "print"]]) {
        let line = one_error_line(&binary::run(command, &environment), "an ambiguous URL");
        assert!(line.contains("LEDGER_DATABASE__URL") && line.contains("%40"), "{command:?}: {line}");
        assert!(!line.contains("pa@") && !line.contains("ss@h"), "{command:?}: {line}");
    }
}

/// Without the check, the error named localhost:5432 and a missing host of the driver, not the empty key.
#[test]
fn an_empty_database_url_is_refused_with_its_origin() {
    let directory = tempfile::tempdir().expect("directory");
    let (config, secret) = (directory.path().join("ledger.toml"), directory.path().join("url"));
    std::fs::write(&config, "[database]\nurl = \"\"\n").expect("written");
    std::fs::write(&secret, "\n").expect("written");
    let (config, secret) = (config.to_str().expect("UTF-8"), secret.to_str().expect("UTF-8"));
    for role in DATABASE_COMMANDS {
        for (variable, value, origin) in [
            ("LEDGER_DATABASE__URL", "", "LEDGER_DATABASE__URL"),
            ("LEDGER_CONFIG", config, config),
            ("LEDGER_DATABASE__URL_FILE", secret, secret),
        ] {
            let line = one_error_line(&binary::run(role, &[(variable, value)]), "an empty URL");
            assert!(
                line.contains("database.url is not set") && line.contains(origin),
                "{role:?}, {variable}: {line}"
            );
        }
    }
    let unused = binary::run(&["openapi"], &[("LEDGER_DATABASE__URL", "")]);
    assert!(unused.status.success(), "a command without the database runs");
}

/// A command without a stop of its own would end only at a time limit.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_waits_ends_with_130_after_ctrl_c() {
    let file = tempfile::Builder::new().suffix(".csv").tempfile().expect("file");
    std::fs::write(file.path(), "account_id,idempotency_key,direction,amount,currency\n").expect("written");
    let (file, id) = (file.path().to_str().expect("UTF-8"), "01a206a6-4f5f-7c41-87f5-c48b0979c33c");
    let commands: [&[&str]; 19] = [
        &["migrate"],
        &["aggregate"],
        &["import", file],
        &["verify"],
        &["broker"],
        &["broker", "switch", "--dry-run"],
        &["topics"],
        &["topics", "create"],
        &["lanes"],
        &["consumers"],
        &["consumers", "reset", "--group", "risk", "--to", "earliest"],
        &["consumers", "forget", "risk"],
        &["dlq", "list"],
        &["dlq", "show", id],
        &["dlq", "replay", id],
        &["dlq", "dismiss", id, "--note", "none"],
        &["republish", id],
        &["risk", "assess"],
        &["simulate"],
    ];
    let mut running = Vec::new();
    for command in commands {
        // It accepts a connection and never answers, as the server of a database or of an API that hangs.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        silent.set_nonblocking(true).expect("set");
        let address = silent.local_addr().expect("an address");
        let (database, api) = (format!("postgres://u@{address}/ledger"), format!("http://{address}"));
        let environment = [
            ("LEDGER_DATABASE__URL", database.as_str()),
            ("LEDGER_DATABASE__CONNECT_TIMEOUT", "60s"),
            ("LEDGER_SIMULATE_URL", api.as_str()),
        ];
        running.push((Binary::start(command, &environment), silent));
    }
    let connections = RefCell::new(Vec::new());
    for (binary, silent) in &running {
        let accepts = || silent.accept().map(|connection| connections.borrow_mut().push(connection)).is_ok();
        eventually("the command connects", async || accepts() || binary.has_ended()).await;
        binary.signal(Signal::SIGINT);
    }
    for ((binary, _), command) in running.into_iter().zip(commands) {
        let (status, stderr) = binary.ended_within(DEADLINE);
        assert_eq!(status.code(), Some(130), "{command:?}: {stderr}");
        assert!(stderr.contains("error: ") || command == ["simulate"], "{command:?}: {stderr}");
    }
}

#[test]
fn simulate_without_a_server_fails_with_one_line() {
    let output = binary::run(&["simulate", "--url", "http://127.0.0.1:1"], &[]);
    let line = one_error_line(&output, "no server");
    assert!(line.contains("cannot reach http://127.0.0.1:1; is `ledger serve`"), "{line}");
}
