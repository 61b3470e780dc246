//! A clean stop: the first SIGTERM or Ctrl-C asks, the second insists.

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

/// Asks `stop` at the first SIGTERM or SIGINT and ends the process at the second.
pub fn stop_on_signals(stop: &Stop) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if stop.is_requested() {
                tracing::warn!(signal = name, "asked again, ending at once");
                std::process::exit(EXIT_INSISTED);
            }
            tracing::info!(signal = name, "stopping");
            stop.request();
        }
    });
    Ok(())
}
