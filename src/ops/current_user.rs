//! The user who runs a command, for the audit.

use nix::unistd::{User, gethostname, getuid};

/// Returns `name@host` from the operating system.
pub(super) fn user_and_host() -> String {
    let user = User::from_uid(getuid()).ok().flatten();
    let user = user.map_or_else(|| getuid().to_string(), |user| user.name);
    let host = gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    format!("{user}@{host}")
}
