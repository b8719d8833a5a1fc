//! The real binary, in a folder with a home of its own, and without settings of whoever runs the tests.

use std::path::Path;
use std::process::{Command, Output};

/// `${DIR}` in its SQL is the folder.
pub(crate) fn watershed(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
        command.env_remove(name);
    }
    command
        .current_dir(dir)
        .env("DIR", dir)
        .env("WATERSHED_HOME", dir.join("home"))
        .env("WATERSHED_PARALLELISM", "2")
        .args(arguments);
    command
}

/// Both of its streams.
pub(crate) fn all_said(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
