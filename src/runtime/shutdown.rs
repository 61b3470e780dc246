//! Clean shutdown: the first SIGTERM or SIGINT requests a stop, a later one ends the process at once.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a command may take to end after the first signal.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// A request to stop, shared by all parts of a role. Cheap to clone. A child stops with its parent, but a parent does
/// not stop with its child.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    requested_at: Arc<OnceLock<Instant>>,
}

impl Stop {
    /// Returns a stop that is not requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the stop.
    pub fn request(&self) {
        self.requested_at.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// Returns whether the stop was requested.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the stop is requested.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Returns a child: it can be requested alone, and is requested with this one.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), requested_at: Arc::default() }
    }

    /// Returns how much of the time to end is left: all of it before this stop is requested.
    pub fn time_left(&self) -> Duration {
        let elapsed = self.requested_at.get().map_or(Duration::ZERO, Instant::elapsed);
        STOP_TIME_MAX.saturating_sub(elapsed)
    }
}

/// The first signal. Empty if no signal requested the stop.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<OnceLock<Signal>>);

impl StopSignal {
    /// Returns the exit code of a command that the signal interrupted, as shells report it: 130 after SIGINT, 143 after
    /// SIGTERM.
    pub fn exit_code(&self) -> Option<u8> {
        self.0.get().map(|signal| exit_code(*signal))
    }
}

fn exit_code(signal: Signal) -> u8 {
    match signal {
        Signal::SIGINT => 130,
        _ => 143,
    }
}

/// Signals within this time of the first count as the same request: a terminal and a parent process such as `make` or
/// `timeout` may both send one.
const SECOND_SIGNAL_AFTER: Duration = Duration::from_millis(500);

/// Requests `stop` at the first SIGTERM or SIGINT, and ends the process at a later one.
pub fn stop_on_signals(stop: &Stop) -> std::io::Result<StopSignal> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    let received = StopSignal::default();
    let first = received.clone();
    tokio::spawn(async move {
        let mut requested_at: Option<Instant> = None;
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => Signal::SIGTERM,
                _ = interrupt.recv() => Signal::SIGINT,
            };
            match requested_at {
                Some(at) if at.elapsed() < SECOND_SIGNAL_AFTER => continue,
                Some(_) => {
                    tracing::warn!(signal = signal.as_str(), "second signal, ending at once");
                    std::process::exit(exit_code(signal).into());
                }
                None => requested_at = Some(Instant::now()),
            }
            tracing::info!(signal = signal.as_str(), "stopping");
            first.0.get_or_init(|| signal);
            stop.request();
        }
    });
    Ok(received)
}
