//! Where the rows of a sink go: into a topic, or as lines into a folder of files or to standard output.
//!
//! Lines are rows as JSON objects. They are what views would have, rows that are final, so nothing is ever taken back and
//! they need no key.

use std::fmt;
use std::sync::Arc;

use watershed_core::sink::Sink;
use watershed_core::{Error, Result};
use watershed_files::{Folder, FolderSink, StdoutSink};
use watershed_formats::Encoder;
use watershed_lake::Place;
use watershed_plan::{Lowered, Statement};

use super::Asked;
use super::topic::Topic;
use crate::bindings::Changed;
use crate::catalog::Entry;
use crate::engine::{Engine, shown};
use crate::tables::RESULT;

/// The location that is no folder.
const STDOUT: &str = "stdout";

/// Where rows go, as a statement says it.
pub(super) enum Outlet {
    Topic(Topic),
    Stdout(Encoder),
    Folder(Place, Encoder),
}

impl Outlet {
    pub(super) fn of(engine: &Engine, asked: &Asked<'_>, lowered: &Lowered) -> Result<Outlet> {
        let what = format!("sink {}", asked.name);
        let own = |name: &str| asked.with.own(name);
        let refuse = |because: &str| Err(Error::sql(format!("{what}: {because}")));
        let location = match (own("topic"), own("location")) {
            (Some(_), None) => return Topic::of(asked, lowered).map(Outlet::Topic),
            (None, Some(location)) => location.trim(),
            (Some(_), Some(_)) => return refuse("topic and location are two places; make a sink for each"),
            (None, None) => {
                return refuse(
                    "say where its rows go: WITH (topic = 'kafka://broker:9092/topic'), or location = 'a folder' or 'stdout'",
                );
            }
        };
        if own("key").is_some() {
            return refuse("`key` is for messages of a topic; a line has none");
        }
        if let Some(option) = asked.with.log.keys().next() {
            return refuse(&format!("`{option}` is for a topic, and this one writes to {location}"));
        }
        match (location == STDOUT, own("delivery")) {
            (true, None | Some("at least once")) | (false, None | Some("exactly once")) => {}
            (true, _) => return refuse("standard output takes nothing back: its delivery is 'at least once'"),
            (false, _) => return refuse("files are written 'exactly once'; leave the delivery out"),
        }
        let encoder = Encoder::new(own("format").unwrap_or("json"), &lowered.output, &[]).map_err(|e| match e {
            Error::Input(message) => Error::sql(format!("{what}: {message}")),
            other => other,
        })?;
        match location {
            STDOUT => Ok(Outlet::Stdout(encoder)),
            folder => Ok(Outlet::Folder(engine.stores().open(folder)?, encoder)),
        }
    }

    /// As the catalog has it.
    pub(super) fn location(&self) -> String {
        match self {
            Outlet::Topic(topic) => topic.url.clone(),
            Outlet::Stdout(_) => STDOUT.to_string(),
            Outlet::Folder(place, _) => shown(place),
        }
    }

    /// Errors unless rows can be written there; nothing is.
    pub(super) async fn check(&self, engine: &Engine, job: &str) -> Result<()> {
        match self {
            Outlet::Topic(topic) => topic.check(engine, job).await,
            Outlet::Stdout(_) => Ok(()),
            Outlet::Folder(place, _) => folder(place, String::new(), 0).check().await,
        }
    }

    /// As a job's result, in files of about this size.
    pub(super) async fn open(self, engine: &Engine, entry: &Entry, file_size: u64) -> Result<Arc<dyn Sink>> {
        let (sink, encoder): (Arc<dyn Sink>, Encoder) = match self {
            Outlet::Topic(topic) => return topic.open(engine, entry).await,
            Outlet::Stdout(encoder) => (Arc::new(StdoutSink::new(RESULT)), encoder),
            Outlet::Folder(place, encoder) => {
                let folder = folder(&place, entry.incarnation.to_string(), file_size);
                (Arc::new(FolderSink::new(RESULT, folder, Arc::clone(engine.clock()))), encoder)
            }
        };
        Ok(Arc::new(Changed::new(sink, move |rows| encoder.encode(&rows))))
    }
}

/// Whether a statement's rows go to standard output.
pub(crate) fn prints_rows(statement: &Statement) -> bool {
    let is_stdout = |(name, value): &(String, String)| name == "location" && value.trim() == STDOUT;
    matches!(statement, Statement::CreateSink(sink) if sink.options.iter().any(is_stdout))
}

/// What is left of a sink that is dropped, by its location in the catalog.
pub(crate) fn what_stays(location: &str) -> String {
    match location {
        STDOUT => String::new(),
        topic if topic.starts_with("kafka://") => format!("; its messages stay in {topic}"),
        folder => format!("; its files stay in {folder}"),
    }
}

fn folder(place: &Place, stem: String, file_size: u64) -> Folder {
    let (store, path) = (Arc::clone(&place.store), place.path.clone());
    Folder { location: shown(place), store, path, stem, file_size }
}

/// A line of the job's plan.
impl fmt::Display for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outlet::Topic(topic) => topic.fmt(f),
            Outlet::Stdout(_) => f.write_str("standard output: a line a row, at least once, as rows come"),
            Outlet::Folder(place, _) => write!(f, "files: {}, a line a row, exactly once, by names", shown(place)),
        }
    }
}
