//! How many connections the API accepts. Each takes a file of the process, and the database and the admin listener need
//! files too.

use anyhow::ensure;

use crate::{
    config::Config,
    runtime::{
        ADMIN_FILES_MAX,
        http_server::{CONNECTIONS_SPARE, ConnectionLimits},
    },
};

/// The most connections unless `serve.connections_max` says otherwise.
const DEFAULT_MAX: usize = 10_000;
/// An API with fewer connections would be of no use.
const AT_LEAST: usize = 64;
/// The files of everything that has no number in the configuration: timers and wake-ups of the threads, log, rule file,
/// traces, certificates, and the other roles in the process of `ledger dev`.
const OTHER_FILES: usize = 256;

/// Returns the limits for a process that may open `files_max` files. Refuses limits that need more files.
pub fn connection_limits(config: &Config, files_max: usize) -> anyhow::Result<ConnectionLimits> {
    let (serve, database) = (&config.serve, &config.database);
    let reserved = database.pool_size_max + serve.writers + ADMIN_FILES_MAX + CONNECTIONS_SPARE + OTHER_FILES;
    let left = files_max.saturating_sub(reserved);
    let remedy = "raise the limit (`ulimit -Hn`, LimitNOFILE= of systemd)";
    ensure!(
        left >= AT_LEAST,
        "the process may open {files_max} files, but serve needs {} of them: {remedy}",
        reserved + AT_LEAST
    );
    let all = match serve.connections_max {
        0 => left.min(DEFAULT_MAX),
        configured => configured,
    };
    ensure!(
        all <= left,
        "serve.connections_max is {all}, but the process may open {files_max} files and needs {reserved} of them for other \
         uses: {remedy} to {} or lower serve.connections_max",
        all.saturating_add(reserved)
    );
    let per_peer = match serve.peer_connections_max {
        0 => all.div_ceil(2),
        configured => configured,
    };
    Ok(ConnectionLimits { all, per_peer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};

    fn limits(overrides: &[(&str, &str)], files_max: usize) -> Result<ConnectionLimits, String> {
        let overrides: Overrides =
            overrides.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let config = load(None, std::iter::empty(), &overrides).expect("valid");
        connection_limits(&config, files_max).map_err(|error| error.to_string())
    }

    #[test]
    fn the_limit_of_open_files_bounds_the_connections() {
        assert_eq!(limits(&[], 1024), Ok(ConnectionLimits { all: 566, per_peer: 283 }));
        assert_eq!(limits(&[], usize::MAX), Ok(ConnectionLimits { all: 10_000, per_peer: 5_000 }));
        let set = [("serve.connections_max", "20000"), ("serve.peer_connections_max", "7")];
        assert_eq!(limits(&set, 20_458), Ok(ConnectionLimits { all: 20_000, per_peer: 7 }));
        let refused = limits(&set, 20_457).expect_err("refused");
        assert!(
            refused.contains("serve.connections_max is 20000") && refused.contains("to 20458"),
            "{refused}"
        );
        let refused = limits(&[], 256).expect_err("refused");
        assert!(refused.contains("256 files") && refused.contains("522"), "{refused}");
    }
}
