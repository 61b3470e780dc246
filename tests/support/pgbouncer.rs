//! A PgBouncer of one test, in front of the PostgreSQL of a URL, with the defaults of its configuration.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::eventually;

/// Debian's package puts the program where few users have it in their path.
const PROGRAMS: [&str; 2] = ["pgbouncer", "/usr/sbin/pgbouncer"];

/// A running PgBouncer. It ends when it is dropped.
pub struct PgBouncer {
    child: Child,
    port: u16,
    /// The URL of the database behind it.
    url: String,
    _directory: TempDir,
}

impl PgBouncer {
    /// Starts it with a pool mode. Returns None, with a warning on the terminal, if it is not installed; in CI that is a
    /// failure.
    pub async fn start(url: &str, pool_mode: &str) -> Option<Self> {
        let Some(program) = installed() else {
            let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
            assert!(!ci, "the tests of poolers cannot run in CI without PgBouncer");
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // The test harness hides the output of passing tests, so the warning goes to the terminal.
            let _ = std::fs::write(
                "/dev/stderr",
                format!("\nSKIPPED {test}: no pgbouncer (Debian: apt-get install pgbouncer)\n"),
            );
            return None;
        };
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let directory = configure(url, port, pool_mode);
        let mut command = Command::new(program);
        if nix::unistd::Uid::effective().is_root() {
            // It refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        let child = command
            .arg(directory.path().join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        eventually("PgBouncer listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        Some(Self { child, port, url: url.to_owned(), _directory: directory })
    }

    /// Returns the URL of the database through this pooler.
    pub fn url(&self) -> String {
        let server = address(&self.url);
        self.url.replace(&format!("@{server}/"), &format!("@127.0.0.1:{}/", self.port))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn installed() -> Option<&'static str> {
    let runs = |program: &&str| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    PROGRAMS.into_iter().find(|program| runs(program))
}

/// Returns `host:port` of a URL.
fn address(url: &str) -> &str {
    url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("a host")
}

fn configure(url: &str, port: u16, pool_mode: &str) -> TempDir {
    let login = url.split("://").nth(1).and_then(|rest| rest.split('@').next()).expect("a login");
    let (user, password) = login.split_once(':').expect("a password");
    let (host, server_port) = address(url).split_once(':').expect("a port");
    let directory = tempfile::Builder::new().prefix("ledger-test-pgbouncer-").tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let users = path("users.txt");
    let settings = format!(
        "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {pool_mode}\ndefault_pool_size = 60\n",
        users.display()
    );
    std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).expect("written");
    std::fs::write(path("pgbouncer.ini"), settings).expect("written");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("mode");
    directory
}
