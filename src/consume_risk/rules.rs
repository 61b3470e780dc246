//! The rules in use: loaded at start, read again when the file changes and at SIGHUP. If the file is refused, the rules
//! in use stay.

use std::{
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::Signal,
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    risk::{self, Mode, Ruleset, SHIPPED_RULES},
    runtime::Stop,
};

/// How often the file is read to find changes. The content is compared, because a mounted ConfigMap changes through a
/// symbolic link, which does not always change the file's time or size.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A usual rule file has a few kilobytes.
const FILE_SIZE_MAX: u64 = 4 << 20;
/// A list of a million account numbers has about 25 MiB.
const LIST_SIZE_MAX: u64 = 64 << 20;
/// How long checking a file may take. The checks are bounded, so only a machine without free cores gets here.
const PARSE_TIME_MAX: Duration = Duration::from_secs(30);
/// The stack of the thread that checks a file.
const PARSE_STACK_BYTES: usize = 8 << 20;

/// Loads the rules from the file, or the rules in the binary.
pub(super) async fn load(path: Option<&Path>) -> anyhow::Result<Ruleset> {
    match path {
        None => Ok(Ruleset::parse(SHIPPED_RULES)?),
        Some(path) => parse(path, read(path).await?).await,
    }
}

/// Checks a file in a thread of its own, so that a large file delays no other work of the process.
async fn parse(path: &Path, text: String) -> anyhow::Result<Ruleset> {
    let (sender, parsed) = oneshot::channel();
    let file = path.to_owned();
    let check = move || {
        let _ = sender.send(Ruleset::parse_with(&text, &|name| read_list_file(Some(&file), name)));
    };
    std::thread::Builder::new().name("rules".into()).stack_size(PARSE_STACK_BYTES).spawn(check)?;
    let parsed = timeout(PARSE_TIME_MAX, parsed)
        .await
        .with_context(|| {
            format!("checking the rules in {} takes longer than {PARSE_TIME_MAX:?}", path.display())
        })?
        .with_context(|| format!("checking the rules in {} failed", path.display()))?;
    parsed.with_context(|| format!("the rules in {} are refused", path.display()))
}

async fn read(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read the rules from {} (risk.rules)", path.display());
    let size = tokio::fs::metadata(path).await.with_context(unreadable)?.len();
    anyhow::ensure!(size <= FILE_SIZE_MAX, "the rules in {} are larger than 4 MiB", path.display());
    tokio::fs::read_to_string(path).await.with_context(unreadable)
}

/// Reads a list file. Its name is relative to the directory of the rule file.
pub fn read_list_file(rules: Option<&Path>, name: &str) -> Result<Vec<u8>, String> {
    let path = list_path(rules, name);
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(&path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LIST_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LIST_SIZE_MAX {
        return Err(format!("{} is larger than 64 MiB", path.display()));
    }
    Ok(bytes)
}

fn list_path(rules: Option<&Path>, name: &str) -> PathBuf {
    rules.and_then(Path::parent).unwrap_or(Path::new("")).join(name)
}

/// Returns a text that changes with the rules: the rule file, and the inode, size and time of each list file. A ConfigMap
/// that changes puts another inode under the same name.
fn fingerprint(path: &Path, text: &str) -> String {
    let state = |name: &String| match std::fs::metadata(list_path(Some(path), name)) {
        Ok(found) => format!("{} {} {}.{}", found.ino(), found.size(), found.mtime(), found.mtime_nsec()),
        Err(error) => error.to_string(),
    };
    let lists: Vec<String> = risk::list_files(text).iter().map(state).collect();
    format!("{}\n{text}", lists.join("\n"))
}

/// Shows the metrics of the rules in use, so that a counter exists before its rule fails for the first time.
pub(super) fn show(ruleset: &Ruleset) {
    metrics::gauge!("ledger_risk_rules_refused").set(0.0);
    for rule in ruleset.summaries().filter(|rule| rule.mode != Mode::Off) {
        metrics::counter!("ledger_risk_rule_errors_total", "rule" => rule.id.to_owned(), "mode" => rule.mode.as_str())
            .increment(0);
    }
}

/// Sends the file's rules whenever they change, and at SIGHUP.
pub(super) async fn follow(
    path: Option<PathBuf>,
    rules: watch::Sender<Arc<Ruleset>>,
    mut hangup: Option<Signal>,
    stop: Stop,
) {
    let mut file = path.map(|path| RuleFile { path, rules, checked: None, logged: None });
    while !stop.is_requested() {
        let is_asked = tokio::select! {
            () = next_check(file.is_some()) => false,
            () = next_signal(hangup.as_mut()) => true,
            () = stop.requested() => return,
        };
        match &mut file {
            Some(file) => file.check(is_asked).await,
            None => {
                tracing::info!("SIGHUP: the rules are those of the binary, there is no file to read again")
            }
        }
    }
}

async fn next_check(has_file: bool) {
    match has_file {
        true => tokio::time::sleep(CHECK_INTERVAL).await,
        false => std::future::pending().await,
    }
}

async fn next_signal(hangup: Option<&mut Signal>) {
    if let Some(hangup) = hangup
        && hangup.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// The rule file of a running consumer.
struct RuleFile {
    path: PathBuf,
    rules: watch::Sender<Arc<Ruleset>>,
    /// The fingerprint of the content that was checked last, and why it is refused. The same content is checked once,
    /// unless SIGHUP asks.
    checked: Option<(String, Option<String>)>,
    /// The error that is in the log.
    logged: Option<String>,
}

impl RuleFile {
    /// Reads the file. `is_asked`: by SIGHUP, so that the result is logged even if nothing has changed.
    async fn check(&mut self, is_asked: bool) {
        let found = match read(&self.path).await {
            Err(error) => Err(format!("{error:#}")),
            Ok(text) => self.check_text(text, is_asked).await,
        };
        metrics::gauge!("ledger_risk_rules_refused").set(if found.is_err() { 1.0 } else { 0.0 });
        match found {
            Ok(new) => self.accept(new, is_asked),
            Err(error) => self.refuse(error, is_asked),
        }
    }

    /// Returns the rules of the file, or None if its content was checked before.
    async fn check_text(&mut self, text: String, is_asked: bool) -> Result<Option<Ruleset>, String> {
        // A large file takes a while to parse, and a file system may hang.
        let (path, written) = (self.path.clone(), text.clone());
        let fingerprint = tokio::task::spawn_blocking(move || fingerprint(&path, &written))
            .await
            .map_err(|error| format!("cannot look for changes: {error}"))?;
        if let Some((known, refused)) = &self.checked
            && *known == fingerprint
            && !is_asked
        {
            return refused.clone().map_or(Ok(None), Err);
        }
        let parsed = parse(&self.path, text).await.map_err(|error| format!("{error:#}"));
        self.checked = Some((fingerprint, parsed.as_ref().err().cloned()));
        parsed.map(Some)
    }

    fn accept(&mut self, new: Option<Ruleset>, is_asked: bool) {
        self.logged = None;
        let old = self.rules.borrow().version();
        match new {
            Some(new) if new.version() != old => {
                tracing::info!(ruleset = %new.version(), replaces = %old, "rules reloaded");
                metrics::counter!("ledger_risk_rules_reloads_total", "outcome" => "loaded").increment(1);
                show(&new);
                self.rules.send_replace(Arc::new(new));
            }
            _ if is_asked => tracing::info!(ruleset = %old, "SIGHUP: the rule file has the rules in use"),
            _ => {}
        }
    }

    fn refuse(&mut self, error: String, is_asked: bool) {
        let is_new = self.logged.as_ref() != Some(&error);
        if is_new {
            metrics::counter!("ledger_risk_rules_reloads_total", "outcome" => "refused").increment(1);
        }
        if is_new || is_asked {
            tracing::error!(%error, ruleset = %self.rules.borrow().version(), "the changed rule file is refused; the rules in use stay");
        }
        self.logged = Some(error);
    }
}
