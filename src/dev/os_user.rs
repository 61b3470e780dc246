//! The operating-system user that a private PostgreSQL runs as. PostgreSQL refuses to run as root, so root lends it
//! to an unprivileged user; everybody else runs it as themselves. Nothing here creates users.

use std::{
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail};
use nix::unistd::{Uid, User};

/// Whose processes may have to be stopped is not ours to decide: both are service users without a log-in.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// Who the server runs as.
#[derive(Debug, Clone)]
pub(super) enum OsUser {
    /// Ourselves.
    Own,
    /// Another one, because we are root.
    Other {
        /// In messages.
        name: String,
        /// User id.
        uid: u32,
        /// Its primary group.
        gid: u32,
    },
}

impl OsUser {
    /// Ourselves, or the first unprivileged user there is if we are root.
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

    /// Has a command run as this user.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            std::os::unix::process::CommandExt::uid(command, *uid);
            std::os::unix::process::CommandExt::gid(command, *gid);
        }
    }

    /// Gives it a file or directory of ours.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { name, uid, gid } => chown(path, Some(*uid), Some(*gid))
                .with_context(|| format!("cannot give {} to user {name}", path.display())),
        }
    }

    /// Checks that it can pass through every directory on the way to `path`, as far as they exist yet; names the
    /// first that bars it.
    pub(super) fn check_reach(&self, path: &Path, purpose: &str) -> anyhow::Result<()> {
        let Self::Other { name, uid, gid } = self else { return Ok(()) };
        let shown = path.display();
        let absolute = std::path::absolute(path).with_context(|| format!("cannot find {shown}"))?;
        let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        let real = existing.canonicalize().with_context(|| format!("cannot find {shown}"))?;
        // The end of the path will be the user's own; what lies on the way must let it pass.
        let on_the_way = real.ancestors().skip(usize::from(existing == absolute));
        let barring = on_the_way.into_iter().find(|directory| match directory.metadata() {
            Ok(metadata) => !may_pass(&metadata, *uid, *gid),
            Err(_) => true,
        });
        match barring {
            None => Ok(()),
            Some(directory) => bail!(
                "PostgreSQL does not run as root, and user {name} cannot pass through {} to {purpose} {shown}; choose a \
                 directory open to others, or run as another user",
                directory.display(),
            ),
        }
    }
}

/// Whether the execute bit that counts for this user is set.
fn may_pass(metadata: &std::fs::Metadata, uid: u32, gid: u32) -> bool {
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
    fn a_directory_closed_to_others_is_named() {
        let outer = tempfile::tempdir().expect("directory");
        let inner = outer.path().join("data");
        std::fs::create_dir(&inner).expect("directory");
        let stranger = OsUser::Other { name: "stranger".into(), uid: 4_000_000_000, gid: 4_000_000_000 };
        std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o700)).expect("mode");
        let error = stranger.check_reach(&inner, "the data in").expect_err("barred").to_string();
        assert!(error.contains(&outer.path().display().to_string()), "{error}");
        std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o711)).expect("mode");
        stranger.check_reach(&inner, "the data in").expect("passes");
        stranger.check_reach(&inner.join("not/yet"), "the data in").expect("passes");
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).expect("mode");
        stranger.check_reach(&inner, "the data in").expect("the end itself is given to it");
        stranger.check_reach(&inner.join("not/yet"), "the data in").expect_err("barred");
        OsUser::Own.check_reach(&inner, "the data in").expect("own");
    }
}
