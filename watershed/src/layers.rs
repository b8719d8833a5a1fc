//! Which value of a setting counts: a flag over `SET`, `SET` over `WITH`, `WITH` over the environment, all over the default.
//!
//! The names and their meaning are `core`'s ([`Settings`]); here is only who may say what. A setting has one place where it
//! makes sense, and is refused in the `WITH` of a statement that could not heed it:
//!
//! | of | settings |
//! |---|---|
//! | a source | `bounded`, `max_leak`, `time_partition`, `time_zone`, `on_error`, `idle_timeout` |
//! | the process | `memory_limit`, `spill_dir`, `disk_limit` |
//! | a job | all others |
//!
//! `SET`, flags and the environment take any of them, and reach whatever heeds them.

use std::collections::BTreeMap;

use watershed_core::secrets;
use watershed_core::settings::Settings;
use watershed_core::{Error, Result};
use watershed_lake::stores;

use crate::tails;

/// Of the environment's names that are ours.
const PREFIX: &str = "WATERSHED_";

/// Names in the environment that are not settings: the command line's own, and those of scripts around it.
const RESERVED: [&str; 16] = [
    "home",
    "log",
    "log_format",
    "cache",
    "python",
    "spark",
    "duckdb",
    "minio",
    "azurite",
    "kafka",
    "on",
    "chaos",
    "keyed",
    "seed",
    "queries",
    "slt",
];
const RESERVED_PREFIX: &str = "test_";

const OF_SOURCES: [&str; 6] = ["bounded", "max_leak", "time_partition", "time_zone", "on_error", "idle_timeout"];
const OF_THE_PROCESS: [&str; 3] = ["memory_limit", "spill_dir", "disk_limit"];

/// Names and values, as text, in the order in which they were given.
pub(crate) type Values = Vec<(String, String)>;

/// Who may heed a `WITH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Source,
    Job,
    /// A job whose result is a topic, or lines.
    Sink,
}

/// The layers that are the same for every statement of a text, but for `SET`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    environment: Values,
    set: Values,
    flags: Values,
}

impl Layers {
    /// `environment` are all variables of the process; those of ours are taken, and an unknown one is an error.
    pub(crate) fn new(environment: impl IntoIterator<Item = (String, String)>, flags: Values) -> Result<Self> {
        let mut ours = vec![];
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            let name = name.to_ascii_lowercase();
            if !RESERVED.contains(&name.as_str()) && !name.starts_with(RESERVED_PREFIX) {
                ours.push((name, value));
            }
        }
        ours.sort();
        let layers = Layers { environment: ours, set: vec![], flags };
        layers.settings()?;
        Ok(layers)
    }

    /// `SET name = value`, from here on.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        Settings::default().set(name, value)?;
        self.set.push((name.to_string(), value.to_string()));
        Ok(())
    }

    /// What holds outside of any statement.
    pub(crate) fn settings(&self) -> Result<Settings> {
        self.resolve(&[])
    }

    /// What holds for a statement with these settings in its `WITH`.
    pub(crate) fn resolve(&self, with: &[(String, String)]) -> Result<Settings> {
        let mut settings = Settings::default();
        for (name, value) in &self.environment {
            let named = |e| Error::input(format!("environment variable {PREFIX}{}: {e}", name.to_ascii_uppercase()));
            settings.set(name, value).map_err(named)?;
        }
        for (name, value) in with.iter().chain(&self.set).chain(&self.flags) {
            settings.set(name, value)?;
        }
        Ok(settings)
    }
}

/// The options of a `WITH`, told apart.
#[derive(Debug, Default)]
pub(crate) struct With {
    own: BTreeMap<String, String>,
    /// Settings, for [`Layers::resolve`].
    pub(crate) settings: Values,
    /// Options of the object store.
    pub(crate) store: BTreeMap<String, String>,
    /// Options of a log, and for sources of its messages' format.
    pub(crate) log: BTreeMap<String, String>,
}

impl With {
    /// `own` are the names that the statement itself knows. `what` is the statement, for messages.
    pub(crate) fn sort(options: &[(String, String)], own: &[&str], scope: Scope, what: &str) -> Result<Self> {
        let mut with = With::default();
        for (name, value) in options {
            if own.contains(&name.as_str()) {
                if with.own.insert(name.clone(), value.clone()).is_some() {
                    return Err(Error::sql(format!("{what}: option `{name}` is given twice; give it once")));
                }
            } else if (scope != Scope::Sink && stores::is_option(name)) || is_of_log(name, scope) {
                if secrets::is_secret(name) && secrets::variable(value).is_none() {
                    return Err(Error::sql(format!(
                        "{what}: `{name}` would be written to the catalog; write {name} = '${{NAME}}', which keeps the name \
                         only, or give credentials in the environment or with --store-option"
                    )));
                }
                let of = if is_of_log(name, scope) { &mut with.log } else { &mut with.store };
                of.insert(name.clone(), value.clone());
            } else {
                check_scope(name, scope, what)?;
                Settings::default().set(name, value).map_err(|e| in_statement(e, name, own, what))?;
                with.settings.push((name.clone(), value.clone()));
            }
        }
        Ok(with)
    }

    /// An option of the statement itself.
    pub(crate) fn own(&self, name: &str) -> Option<&str> {
        self.own.get(name).map(String::as_str)
    }
}

fn is_of_log(name: &str, scope: Scope) -> bool {
    match scope {
        Scope::Source => tails::is_option(name),
        Scope::Sink => tails::is_of_broker(name),
        Scope::Job => false,
    }
}

/// Refuses a setting where nobody would heed it; of names that are none, [`Settings::set`] knows better what to say.
fn check_scope(name: &str, scope: Scope, what: &str) -> Result<()> {
    let refuse = |because: &str| Err(Error::sql(format!("{what}: `{name}` {because}")));
    match scope {
        _ if OF_THE_PROCESS.contains(&name) => {
            refuse("is one for the whole process; give it with SET, as a flag or in the environment")
        }
        Scope::Job | Scope::Sink if OF_SOURCES.contains(&name) => {
            refuse("is a setting of sources; give it in CREATE SOURCE … WITH")
        }
        Scope::Source if Settings::NAMES.contains(&name) && !OF_SOURCES.contains(&name) => {
            refuse("is a setting of jobs; give it in CREATE MATERIALIZED VIEW … WITH, or with SET")
        }
        _ => Ok(()),
    }
}

/// An unknown name may also have been meant for one of the statement's own options.
fn in_statement(e: Error, name: &str, own: &[&str], what: &str) -> Error {
    match Settings::NAMES.contains(&name) {
        true => Error::sql(format!("{what}: {e}")),
        false => Error::sql(format!("{what}: {e} (besides settings it takes {})", own.join(", "))),
    }
}

/// Every setting with what it means in a line, for `--help`.
pub fn settings_help() -> &'static [(&'static str, &'static str)] {
    &[
        ("slice", "Join time partitions, or cut them, to slices of about this width, such as '7 days'"),
        ("from", "Begin at this event time; fixed when a view is made"),
        ("to", "End the run when the watermark reaches this time"),
        ("parallelism", "Workers; without it one a core"),
        ("commit_interval", "How long an epoch lasts before it is committed [default: 10 s]"),
        ("max_leak", "How far into later partitions rows may leak and are still waited for"),
        ("max_ahead", "Event times later than now plus this are bad rows [default: 1 day]"),
        ("grace", "How long after its end a source's last partition is taken for closed [default: 1 hour]"),
        ("bounded", "Sources get no more rows: an ended one does not hold the others up"),
        ("time_partition", "What carries time in a history: columns, a grain, or a pattern such as '{%Y/%m/%d}'"),
        ("time_zone", "The zone of the calendar by which a history is partitioned [default: UTC]"),
        (
            "on_error",
            "Messages and records of text that cannot be read: 'table' keeps them beside the result, 'fail' or 'skip'",
        ),
        ("idle_timeout", "How long a part of a log may be quiet before nobody waits for it [default: 30 s]"),
        ("late", "Late rows: 'table' keeps them beside the result, 'repair' computes their windows anew"),
        (
            "on_change",
            "When rows that were read are removed or rewritten: 'stop', 'ignore', or 'repair' what came of them",
        ),
        ("memory_limit", "Memory for all jobs together, such as '4 GB' [default: 60 % of the machine or cgroup]"),
        (
            "spill_dir",
            "A local folder for state that does not fit the memory limit [default: the system's, for temporary files]",
        ),
        ("disk_limit", "Bytes of such state on disk, at most [default: 100 GB]"),
        ("throttle_rows", "Rows read a second, at most"),
        ("throttle_bytes", "Bytes read a second, at most"),
        ("schedule", "Hours in which the job may run, such as '22:00-06:00' or 'Mon-Fri 22:00-06:00 Europe/Berlin'"),
        ("target_file_size", "Size of data files [default: 128 MB]"),
        (
            "compact_files",
            "Small files of a partition from which on they are put together, once it gets no more rows; 0: never [default: 16]",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use watershed_core::time::Span;

    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Values {
        of.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn sort(options: &[(&str, &str)], scope: Scope) -> Result<With> {
        With::sort(&pairs(options), &["lake"], scope, "source s")
    }

    #[test]
    fn flag_over_set_over_with_over_environment() {
        let seconds = |layers: &Layers, with: &Values| layers.resolve(with).unwrap().grace.0 / Span::SECOND.0;
        let environment = pairs(&[("WATERSHED_GRACE", "1 s"), ("WATERSHED_HOME", "/x"), ("PATH", "/bin")]);
        let mut layers = Layers::new(environment.clone(), vec![]).unwrap();
        let with = pairs(&[("grace", "2 s")]);
        assert_eq!(seconds(&layers, &vec![]), 1);
        assert_eq!(seconds(&layers, &with), 2);
        layers.set("grace", "3 s").unwrap();
        assert_eq!(seconds(&layers, &with), 3);
        let mut layers = Layers::new(environment, pairs(&[("grace", "4 s")])).unwrap();
        layers.set("grace", "3 s").unwrap();
        assert_eq!(seconds(&layers, &with), 4);
    }

    #[test]
    fn names_that_are_none_are_errors_wherever_they_stand() {
        let error = Layers::new(pairs(&[("WATERSHED_GARCE", "1 s")]), vec![]).unwrap_err().to_string();
        assert!(error.contains("WATERSHED_GARCE") && error.contains("did you mean grace?"), "{error}");
        assert!(Layers::new(vec![], pairs(&[("garce", "1 s")])).is_err());
        assert!(Layers::default().set("garce", "1 s").is_err());
        let error = sort(&[("laek", "x")], Scope::Source).unwrap_err().to_string();
        assert!(error.starts_with("source s: unknown setting laek") && error.contains("takes lake"), "{error}");
    }

    #[test]
    fn options_are_told_apart() {
        let with = sort(&[("lake", "x"), ("endpoint", "http://h"), ("max_leak", "1 h")], Scope::Source).unwrap();
        assert_eq!((with.own("lake"), with.store.len(), with.settings.len()), (Some("x"), 1, 1));
        let with =
            sort(&[("lake", "x"), ("secret_access_key", "${KEY}"), ("max_retries", "2")], Scope::Source).unwrap();
        assert_eq!(with.store.get("secret_access_key").map(String::as_str), Some("${KEY}"));
        for (option, scope, words) in [
            ("grace", Scope::Source, "a setting of jobs"),
            ("bounded", Scope::Job, "a setting of sources"),
            ("memory_limit", Scope::Job, "the whole process"),
            ("secret_access_key", Scope::Source, "written to the catalog; write secret_access_key = '${NAME}'"),
            ("azure_storage_sas_token", Scope::Source, "written to the catalog"),
        ] {
            let error = sort(&[(option, "1")], scope).unwrap_err().to_string();
            assert!(error.contains(words), "{option}: {error}");
        }
        assert!(sort(&[("lake", "x"), ("lake", "y")], Scope::Source).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn every_setting_is_explained() {
        let explained: Vec<&str> = settings_help().iter().map(|(name, _)| *name).collect();
        assert_eq!(explained, Settings::NAMES);
    }
}
