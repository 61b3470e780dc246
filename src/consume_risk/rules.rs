//! The rules in use: read at start, watched while running. A file that cannot be used leaves the old rules in place.

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

/// How soon a change of the file is seen. The file is small, so it is simply read: a mounted ConfigMap changes by a
/// symbolic link, which times and sizes do not always tell.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A rule file is some kilobytes.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// Reads the file, or takes what the binary carries.
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

/// Publishes the rules whenever the file holds new ones; says once about each content that cannot be used. Each content
/// is tried once, for that takes a while.
pub(super) async fn watch_file(path: PathBuf, rules: watch::Sender<Arc<Ruleset>>, stop: Stop) {
    let mut refused = String::new();
    let mut tried = None;
    while !stop.is_requested() {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
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
                    tracing::error!(%error, ruleset = %rules.borrow().version(), "keeping the rules in use");
                    metrics::counter!("ledger_risk_rules_reloads_total", "outcome" => "refused").increment(1);
                    refused = error;
                }
            }
        }
    }
}
