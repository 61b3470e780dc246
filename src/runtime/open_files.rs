//! The number of files that the process may open. A connection of a client, of PostgreSQL or of Kafka is a file too.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to the largest value that the system allows the process (`ulimit -Hn`). Most systems start a process
/// with 1,024, for the sake of programs that call `select`; this one does not. Returns the limit that is in force.
pub fn raise_open_files_limit() -> usize {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, soft, hard, "the limit of open files stays as it is");
            }
        },
        _ => {}
    }
    open_files_max()
}

/// Returns how many files the process may open.
pub fn open_files_max() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(soft).unwrap_or(usize::MAX)
}
