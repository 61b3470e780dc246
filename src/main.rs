//! The entry point: sets the allocator and runs the command line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Without huge pages the resident memory is a third smaller, at the same speed. A kernel that does not support the
    // call returns an error, which does not matter.
    let _ = nix::sys::prctl::set_thp_disable(true);
    ledger::cli::run().await
}
