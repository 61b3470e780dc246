//! The operating-system user that runs a private PostgreSQL. PostgreSQL refuses to run as root, so root starts it as an
//! unprivileged user; any other user starts it as itself. Deliberately absent: the creation of users.

use std::{
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail};
use nix::unistd::{Uid, User};

/// Service users without a log-in, in the order of preference.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The user that runs the server.
#[derive(Debug, Clone)]
pub(super) enum OsUser {
    /// The user of this process.
    Own,
    /// An unprivileged user, because this process runs as root.
    Other {
        /// For messages.
        name: String,
        uid: u32,
        /// The primary group.
        gid: u32,
    },
}

impl OsUser {
    /// Chooses the user of this process, or for root the first candidate that exists.
    pub(super) fn choose() -> anyhow::Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self::Own);
        }
        for name in CANDIDATES {
            if let Some(user) =
                User::from_name(name).with_context(|| format!("cannot look up user {name}"))?
            {
                return Ok(Self::Other {
                    name: name.to_owned(),
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                });
            }
        }
        bail!(
            "PostgreSQL refuses to run as root, and there is no user postgres or nobody; run as another user"
        )
    }

    /// Makes a command run as this user.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            std::os::unix::process::CommandExt::uid(command, *uid);
            std::os::unix::process::CommandExt::gid(command, *gid);
        }
    }

    /// Makes this user the owner of a file or directory.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { name, uid, gid } => chown(path, Some(*uid), Some(*gid))
                .with_context(|| format!("cannot give {} to user {name}", path.display())),
        }
    }

    /// Checks that this user can enter every existing directory above `path`. The error names the first directory that
    /// the user cannot enter.
    pub(super) fn check_access(&self, path: &Path, purpose: &str) -> anyhow::Result<()> {
        let Self::Other { name, uid, gid } = self else { return Ok(()) };
        let shown = path.display();
        let absolute = std::path::absolute(path).with_context(|| format!("cannot find {shown}"))?;
        let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        let real = existing.canonicalize().with_context(|| format!("cannot find {shown}"))?;
        // The path itself is given to the user later; only the directories above it must be accessible.
        let above = real.ancestors().skip(usize::from(existing == absolute));
        let closed = above.into_iter().find(|directory| match directory.metadata() {
            Ok(metadata) => !may_enter(&metadata, *uid, *gid),
            Err(_) => true,
        });
        match closed {
            None => Ok(()),
            Some(directory) => bail!(
                "PostgreSQL does not run as root, and user {name} cannot enter {} to reach {purpose} {shown}; choose a \
                 directory that is open to other users, or run as another user",
                directory.display(),
            ),
        }
    }
}

/// Returns whether the execute bit that applies to this user is set.
fn may_enter(metadata: &std::fs::Metadata, uid: u32, gid: u32) -> bool {
    let bit = if metadata.uid() == uid {
        0o100
    } else if metadata.gid() == gid {
        0o010
    } else {
        0o001
    };
    metadata.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_error_names_the_directory_that_is_closed_to_the_user() {
        let outer = tempfile::tempdir().expect("directory");
        let inner = outer.path().join("data");
        std::fs::create_dir(&inner).expect("directory");
        let stranger = OsUser::Other { name: "stranger".into(), uid: 4_000_000_000, gid: 4_000_000_000 };
        std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o700)).expect("mode");
        let error = stranger.check_access(&inner, "the data in").expect_err("closed").to_string();
        assert!(error.contains(&outer.path().display().to_string()), "{error}");
        std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o711)).expect("mode");
        stranger.check_access(&inner, "the data in").expect("open");
        stranger.check_access(&inner.join("not/yet"), "the data in").expect("open");
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).expect("mode");
        stranger.check_access(&inner, "the data in").expect("the directory itself is given to the user");
        stranger.check_access(&inner.join("not/yet"), "the data in").expect_err("closed");
        OsUser::Own.check_access(&inner, "the data in").expect("own");
    }
}
