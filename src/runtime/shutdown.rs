//! A clean stop: the first SIGTERM or Ctrl-C asks, a later one insists.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Asks a role to stop. Cheap to clone; a child stops with its parent but not the other way round.
#[derive(Clone, Debug, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether somebody has asked.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns once somebody has asked.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// A stop of its own that also follows this one.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// Exit code after a second signal: 128 + SIGINT, as shells report it.
const EXIT_INSISTED: i32 = 130;

/// A signal that comes this soon after the first is the same one: a terminal and a parent such as `make` or `timeout`
/// may both send it.
const INSIST_AFTER: Duration = Duration::from_millis(500);

/// Asks `stop` at the first SIGTERM or SIGINT and ends the process at a later one.
pub fn stop_on_signals(stop: &Stop) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut asked_at: Option<Instant> = None;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            match asked_at {
                Some(at) if at.elapsed() < INSIST_AFTER => continue,
                Some(_) => {
                    tracing::warn!(signal = name, "asked again, ending at once");
                    std::process::exit(EXIT_INSISTED);
                }
                None => asked_at = Some(Instant::now()),
            }
            tracing::info!(signal = name, "stopping");
            stop.request();
        }
    });
    Ok(())
}
