//! The rules in use: loaded at start, reloaded when the file changes. If the new file is refused, the old rules stay in
//! use.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::watch;

use crate::{
    risk::{Ruleset, SHIPPED_RULES},
    runtime::Stop,
};

/// How often the file is read to find changes. The content is compared, because a mounted ConfigMap changes through a
/// symbolic link, which does not always change the file's time or size.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A usual rule file has a few kilobytes.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// Loads the rules from the file, or the rules in the binary.
pub(super) async fn load(path: Option<&Path>) -> anyhow::Result<Ruleset> {
    match path {
        None => Ok(Ruleset::parse(SHIPPED_RULES)?),
        Some(path) => {
            let text = read(path).await?;
            parse(path, &text)
        }
    }
}

fn parse(path: &Path, text: &str) -> anyhow::Result<Ruleset> {
    Ruleset::parse(text).with_context(|| format!("the rules in {} are refused", path.display()))
}

async fn read(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read the rules from {} (risk.rules)", path.display());
    let size = tokio::fs::metadata(path).await.with_context(unreadable)?.len();
    anyhow::ensure!(size <= FILE_SIZE_MAX, "the rules in {} are larger than 4 MiB", path.display());
    tokio::fs::read_to_string(path).await.with_context(unreadable)
}

/// Sends the file's rules whenever they change. Refused content is logged once. The same content is parsed only once,
/// because the trial of the rules takes a while.
pub(super) async fn watch_file(path: PathBuf, rules: watch::Sender<Arc<Ruleset>>, stop: Stop) {
    let mut refused = String::new();
    let mut tried = None;
    while !stop.is_requested() {
        tokio::select! {
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
            () = stop.requested() => return,
        }
        let changed = match read(&path).await {
            Ok(text) if tried.as_ref() == Some(&text) => Ok(None),
            Ok(text) => parse(&path, tried.insert(text)).map(Some),
            Err(error) => Err(error),
        };
        match changed {
            Ok(None) => refused.clear(),
            Ok(Some(new)) => {
                refused.clear();
                let old = rules.borrow().version();
                if new.version() != old {
                    tracing::info!(ruleset = %new.version(), replaces = %old, "rules reloaded");
                    metrics::counter!("ledger_risk_rules_reloads_total", "outcome" => "loaded").increment(1);
                    rules.send_replace(Arc::new(new));
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                if error != refused {
                    tracing::error!(%error, ruleset = %rules.borrow().version(), "the changed rule file is refused; the rules in use stay");
                    metrics::counter!("ledger_risk_rules_reloads_total", "outcome" => "refused").increment(1);
                    refused = error;
                }
            }
        }
    }
}
