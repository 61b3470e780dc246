//! The real binary as a process: started with an environment of its own, watched, killed, checked to have ended.

use std::{
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

/// Another build of the binary than the one that cargo made for the tests, such as the release.
const OTHER_BINARY: &str = "LEDGER_TEST_BINARY";

/// A command of the binary with a clean environment: nothing of the developer's own `LEDGER_…` or `OTEL_…` leaks in.
pub fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let program = std::env::var_os(OTHER_BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_ledger").into());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("LEDGER_") || name.starts_with("OTEL_") {
            command.env_remove(&*name);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut child = command(arguments, environment)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut out = gather(child.stdout.take().expect("piped"));
    let mut err = gather(child.stderr.take().expect("piped"));
    let status = wait(&mut child, DEADLINE * 4).unwrap_or_else(|| {
        child.kill().expect("killed");
        panic!("ledger {arguments:?} did not end; stderr: {}", err.text());
    });
    Output { status, stdout: out.finished().into_bytes(), stderr: err.finished().into_bytes() }
}

/// A running `ledger`. Killed when dropped.
pub struct Binary {
    child: Child,
    arguments: String,
    stdout: Gathered,
    stderr: Gathered,
}

impl Binary {
    /// Starts a role.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command(arguments, environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = gather(child.stdout.take().expect("piped"));
        let stderr = gather(child.stderr.take().expect("piped"));
        Self { child, arguments: arguments.join(" "), stdout, stderr }
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The first line of stdout or stderr with `part` in it, once there is one.
    pub fn line_with(&mut self, part: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let ended = self.child.try_wait().expect("status");
            let text = format!("{}{}", self.stdout(), self.stderr());
            // A last line without its end may still grow.
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = whole.into_iter().find(|line| line.contains(part)) {
                return line.trim_end().to_owned();
            }
            let name = &self.arguments;
            assert!(ended.is_none(), "ledger {name} ended without saying {part:?}:\n{text}");
            assert!(Instant::now() < deadline, "ledger {name} did not say {part:?}:\n{text}");
            pause();
        }
    }

    /// The value of `name=…` in the first line that has it, as the start-up line says `listen=127.0.0.1:41234`.
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

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("status")
    }

    /// Whether a signal has frozen it.
    pub fn is_frozen(&self) -> bool {
        self.state() == Some('T')
    }

    /// Whether it has ended, without waiting for it.
    pub fn has_ended(&self) -> bool {
        matches!(self.state(), None | Some('Z'))
    }

    /// As the kernel says it.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        stat.rsplit(')').next()?.trim_start().chars().next()
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }

    /// Waits for its end, at most `limit`.
    pub fn ended_within(mut self, limit: Duration) -> (ExitStatus, String) {
        let status = wait(&mut self.child, limit)
            .unwrap_or_else(|| panic!("ledger {} runs after {limit:?}:\n{}", self.arguments, self.stderr()));
        (status, self.stderr.finished())
    }

    /// SIGTERM; it must end within 5 s with success.
    pub fn stop(self) {
        self.terminate();
        let arguments = self.arguments.clone();
        let (status, stderr) = self.ended_within(Duration::from_secs(5));
        assert!(status.success(), "ledger {arguments} ended with {status}:\n{stderr}");
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // Either it has ended or it must; both are fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A plain `GET`: status and body, or None where nobody answers.
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

#[expect(clippy::disallowed_methods, reason = "these functions wait for processes, on a test's own thread")]
fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}

struct Gathered {
    text: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Gathered {
    fn text(&self) -> String {
        self.text.lock().expect("not poisoned").clone()
    }

    /// All of it, once the other side has closed.
    fn finished(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("read");
        }
        self.text()
    }
}

fn gather(stream: impl Read + Send + 'static) -> Gathered {
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
    Gathered { text, reader: Some(reader) }
}
