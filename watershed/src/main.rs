//! The `watershed` binary: the command line over the `watershed` library. See `cli` for the commands.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
