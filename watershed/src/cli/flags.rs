//! Flags that several commands share: every setting as `--name VALUE`, `NAME=VALUE` pairs, and texts from files.

use std::io::Read;
use std::sync::LazyLock;

use clap::{Arg, ArgMatches, Command, FromArgMatches};
use watershed::settings_help;
use watershed_core::{Error, Result};

/// The settings' names with dashes.
static FLAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| settings_help().iter().map(|(name, _)| name.replace('_', "-")).collect());

/// Settings given as flags; [`settings_help`] is the table they come from, so no setting can be without its flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingFlags {
    pub(crate) given: Vec<(String, String)>,
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        settings_help().iter().zip(FLAGS.iter()).fold(command, |command, ((name, help), flag)| {
            let arg = Arg::new(*name).long(flag.as_str()).value_name("VALUE").help(*help);
            let arg = match *name {
                "bounded" => arg.num_args(0..=1).default_missing_value("true").require_equals(true),
                _ => arg,
            };
            command.arg(arg.help_heading("Settings"))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |name: &str| matches.get_one::<String>(name).map(|value| (name.to_string(), value.clone()));
        Ok(SettingFlags { given: settings_help().iter().filter_map(|(name, _)| value(name)).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The settings that a command without jobs heeds.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ProcessFlags {
    /// Workers; without it one a core
    #[arg(long, value_name = "N")]
    parallelism: Option<String>,

    /// Memory, such as '4 GB' [default: 60 % of the machine or cgroup]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
}

impl ProcessFlags {
    pub(crate) fn given(&self) -> Vec<(String, String)> {
        let named = |name: &str, value: &Option<String>| Some((name.to_string(), value.clone()?));
        [named("parallelism", &self.parallelism), named("memory_limit", &self.memory_limit)]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// `NAME=VALUE`
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("write it as NAME=VALUE".to_string()),
    }
}

/// The text of a file, or of standard input.
pub(crate) fn read_text(file: &str) -> Result<String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        path => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|e| {
        Error::input(format!("could not read {}: {e}", if file == "-" { "standard input" } else { file }))
    })?;
    Ok(text)
}
