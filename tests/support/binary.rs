//! The real binary as a process with a clean environment: starts it, reads its output, sends signals, waits for its end.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::DEADLINE;

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The variable that names another build of the binary, such as the release build.
const OTHER_BINARY: &str = "LEDGER_TEST_BINARY";

/// Accepts the servers of the tests, which run without fsync.
const ACCEPT_DATA_LOSS: (&str, &str) = ("LEDGER_DATABASE__ACCEPT_DATA_LOSS", "true");

/// Returns the path of the binary.
pub fn program() -> OsString {
    std::env::var_os(OTHER_BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_ledger").into())
}

/// Removes the `LEDGER_…` and `OTEL_…` variables of the developer.
pub fn remove_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("LEDGER_") || name.starts_with("OTEL_") {
            command.env_remove(&*name);
        }
    }
}

/// Returns a command with these arguments and variables, and no other settings.
pub fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program());
    remove_settings(&mut command);
    command.args(arguments).envs([ACCEPT_DATA_LOSS]).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// Runs a command until it exits.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run_within(arguments, environment, DEADLINE)
}

/// Runs a command that may take this long.
pub fn run_within(arguments: &[&str], environment: &[(&str, &str)], limit: Duration) -> Output {
    let mut child = command(arguments, environment)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut out = capture(child.stdout.take().expect("piped"));
    let mut err = capture(child.stderr.take().expect("piped"));
    let status = wait(&mut child, limit).unwrap_or_else(|| {
        child.kill().expect("killed");
        panic!("ledger {arguments:?} did not end; stderr: {}", err.text());
    });
    Output { status, stdout: out.finished().into_bytes(), stderr: err.finished().into_bytes() }
}

/// Runs a command whose stdout is a pipe without a reader, as `ledger … | head` ends.
pub fn run_without_reader(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = command(arguments, environment);
    command.stdout(writer).stderr(Stdio::piped()).spawn().expect("starts").wait_with_output().expect("ended")
}

/// A running `ledger`. Killed when dropped.
pub struct Binary {
    child: Child,
    arguments: String,
    stdout: CapturedOutput,
    stderr: CapturedOutput,
}

impl Binary {
    /// Starts a role.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(command(arguments, environment), arguments)
    }

    /// Starts a role in a shell that limits its open files first: `-Sn 1024` sets the soft limit, `-n 1024` both limits.
    pub fn start_with_ulimit(ulimit: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let role = command(arguments, environment);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit {ulimit} && exec \"$0\" \"$@\""));
        shell.arg(role.get_program()).args(role.get_args()).stdin(Stdio::null());
        for (name, value) in role.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Self::spawn(shell, arguments)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stdout = capture(child.stdout.take().expect("piped"));
        let stderr = capture(child.stderr.take().expect("piped"));
        Self { child, arguments: arguments.join(" "), stdout, stderr }
    }

    /// Returns the output on stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Returns the output on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Returns the process id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line of stdout or stderr that contains `part`, and returns it.
    pub fn line_with(&mut self, part: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let ended = self.child.try_wait().expect("status");
            let text = format!("{}{}", self.stdout(), self.stderr());
            // The last line may be incomplete.
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = whole.into_iter().find(|line| line.contains(part)) {
                return line.trim_end().to_owned();
            }
            let name = &self.arguments;
            assert!(ended.is_none(), "ledger {name} ended without printing {part:?}:\n{text}");
            assert!(Instant::now() < deadline, "ledger {name} did not print {part:?}:\n{text}");
            pause();
        }
    }

    /// Waits for the first line with `name=…`, such as the start line with `listen=127.0.0.1:41234`. Returns the value.
    pub fn field(&mut self, name: &str) -> String {
        let line = self.line_with(&format!("{name}="));
        let value = line.split(&format!("{name}=")).nth(1).expect("there");
        value.split_whitespace().next().expect("a value").trim_matches('"').to_owned()
    }

    /// Waits until `GET path` at `address` (host:port) answers 200.
    pub fn answers(&mut self, address: &str, path: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !matches!(get(address, path), Some((200, _))) {
            let ended = self.child.try_wait().expect("status");
            assert!(ended.is_none(), "ledger {} ended:\n{}", self.arguments, self.stderr());
            assert!(Instant::now() < deadline, "http://{address}{path} is not 200:\n{}", self.stderr());
            pause();
        }
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("status")
    }

    /// Returns whether SIGSTOP has frozen the process.
    pub fn is_frozen(&self) -> bool {
        self.state() == Some('T')
    }

    /// Returns whether the process has ended, without waiting.
    pub fn has_ended(&self) -> bool {
        matches!(self.state(), None | Some('Z'))
    }

    /// Returns the state letter of the kernel.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        stat.rsplit(')').next()?.trim_start().chars().next()
    }

    /// Kills the process with SIGKILL and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }

    /// Waits at most `limit` for the end, and returns the status and stderr.
    pub fn ended_within(mut self, limit: Duration) -> (ExitStatus, String) {
        let status = wait(&mut self.child, limit)
            .unwrap_or_else(|| panic!("ledger {} runs after {limit:?}:\n{}", self.arguments, self.stderr()));
        (status, self.stderr.finished())
    }

    /// Sends SIGTERM. The process must end with success within six times its own limit, because the machine may be busy.
    pub fn stop(self) {
        self.stop_within(Duration::from_secs(30));
    }

    /// Sends SIGTERM. The process must end with success within this time.
    pub fn stop_within(self, limit: Duration) {
        self.terminate();
        let arguments = self.arguments.clone();
        let (status, stderr) = self.ended_within(limit);
        assert!(status.success(), "ledger {arguments} ended with {status}:\n{stderr}");
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // Fails if the process has ended, which does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a `GET` request. Returns status and body, or None without an answer.
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("status") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "these functions wait for processes, on the thread of a test")]
fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}

struct CapturedOutput {
    text: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl CapturedOutput {
    fn text(&self) -> String {
        self.text.lock().expect("not poisoned").clone()
    }

    /// Waits until the process closes the pipe, and returns the whole text.
    fn finished(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("read");
        }
        self.text()
    }
}

fn capture(stream: impl Read + Send + 'static) -> CapturedOutput {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            sink.lock().expect("not poisoned").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    CapturedOutput { text, reader: Some(reader) }
}
