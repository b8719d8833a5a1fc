//! The `watershed` binary: the command line over the `watershed` library. See `cli` for the commands.

use std::process::ExitCode;

mod cli;

/// How it is set is in `.cargo/config.toml`: for its options there is no safe call.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
