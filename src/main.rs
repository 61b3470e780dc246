//! Command line in, role out.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Huge pages are given to the allocator whole: they cost a third of the resident memory and gained no speed. Where
    // the kernel does not know the question, they stay as they are.
    let _ = nix::sys::prctl::set_thp_disable(true);
    ledger::cli::run().await
}
