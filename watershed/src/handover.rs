//! Where a source's history ends and its log begins, asked without running anything: `EXPLAIN HANDOVER` shows it before a
//! job is made, and `watershed retention` says what of a log may be forgotten.
//!
//! Both are decided as a job decides it (`core::log`), over the newest version of the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::Serialize;
use watershed_core::history::Version;
use watershed_core::log;
use watershed_core::sink::Archived;
use watershed_core::tail::Part;
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};

use crate::catalog::Kind;
use crate::engine::{Engine, RunOptions, relation, unknown};
use crate::execute::Session;
use crate::relations::{open_source, query_of, reached};
use crate::sources::OpenSource;

/// Where the history and the log of a source meet.
#[derive(Clone, Debug, Serialize)]
pub struct Handover {
    pub source: String,
    /// The table, and its newest version.
    pub lake: String,
    pub version: String,
    pub log: String,
    /// How long the log keeps messages, in microseconds, as it says or as was asked; `None`: not asked, or for ever.
    pub keeps: Option<Span>,
    /// The name under which the table's writer records offsets; `None`: it has written none yet.
    pub archive: Option<String>,
    /// They are joined by event time, since the table's writer records no offsets.
    pub by_time: Option<ByTime>,
    pub parts: BTreeMap<Part, PartHandover>,
}

/// How a history and a log are joined where only event times tell.
#[derive(Clone, Debug, Serialize)]
pub struct ByTime {
    /// The columns by which facts are known that both have.
    pub key: Vec<String>,
    /// Earlier facts of the log are taken to be in the table.
    pub from: EventTime,
    /// The latest event time in the table.
    pub newest: EventTime,
}

/// Where they meet in one part.
#[derive(Clone, Debug, Serialize)]
pub struct PartHandover {
    /// The offset of the last message that is in the table, and the latest event time, as far as recorded.
    pub archived: Option<i64>,
    pub newest: Option<EventTime>,
    /// What the log has.
    pub has: Range<i64>,
    /// Where a job would begin to read.
    pub begins: i64,
    /// Messages that are neither in the table nor in the log.
    pub missing: Option<Range<i64>>,
    /// Messages that the log forgets within the asked time, and that are not in the table.
    pub about_to_go: Option<Range<i64>>,
}

impl Handover {
    /// Whether a job could be handed over.
    pub fn closes(&self) -> bool {
        self.parts.values().all(|part| part.missing.is_none())
    }

    /// Whether the log is about to forget what the table does not have.
    pub fn is_in_danger(&self) -> bool {
        self.parts.values().any(|part| part.about_to_go.is_some())
    }
}

impl fmt::Display for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "source {}: from version {} of {} to {}", self.source, self.version, self.lake, self.log)?;
        match (&self.archive, &self.by_time) {
            (Some(archive), _) => writeln!(f, "offsets are recorded as {archive}-PART")?,
            (None, None) => writeln!(f, "the table has no facts yet: the log is begun at its oldest message")?,
            (None, Some(ByTime { key, from, newest })) => writeln!(
                f,
                "no offsets are recorded: joined by event time from {from} on (the table has facts up to {newest}), and facts that both \
                 have are known by {}. This is weaker than offsets: a fact that came to the log later than that after it happened is \
                 missed, unless the table has it, and facts with the same key are taken for one",
                key.join(", ")
            )?,
        }
        for (part, at) in &self.parts {
            let archived = at.archived.map_or("nothing archived".to_string(), |last| format!("archived up to {last}"));
            let newest = at.newest.map_or(String::new(), |newest| format!(" (event time {newest})"));
            let has = match at.has.is_empty() {
                true => format!("the log has nothing, and goes on at {}", at.has.end),
                false => format!("the log has {} to {}", at.has.start, at.has.end - 1),
            };
            write!(f, "part {part}: {archived}{newest}; {has}; ")?;
            match &at.missing {
                None => {
                    writeln!(f, "read from {} on, {} messages behind the newest", at.begins, at.has.end - at.begins)?
                }
                Some(missing) => writeln!(f, "GAP: {} to {} are in neither", missing.start, missing.end - 1)?,
            }
        }
        let times: Option<Vec<EventTime>> = self.parts.values().map(|part| part.newest).collect();
        let until = times.and_then(|times| times.into_iter().min());
        match until {
            Some(until) => {
                write!(f, "until the log is read, windows stay open from {until} on, less the source's delay")
            }
            None => {
                write!(f, "until the log is read, windows stay open as far back as the grace (setting grace) reaches")
            }
        }
    }
}

/// The handover of a source, or of each source that a job reads.
pub(crate) async fn of(engine: &Engine, name: &str, forgets: Option<Forgets>) -> Result<Vec<Handover>> {
    let options = RunOptions::default();
    let session = Session::new(engine, &options).await?;
    let entry = session.entries.iter().find(|e| e.kind.is_job() && e.name == name);
    let entry = entry.or_else(|| relation(&session.entries, name));
    let entry = entry.ok_or_else(|| unknown(&session.entries, name))?;
    let sources = match entry.kind {
        Kind::Source => vec![entry],
        Kind::Table | Kind::ExternalTable => {
            return Err(Error::input(format!("{name} is {}; give a source, or a view over some", entry.kind.one())));
        }
        _ => reached(&session.entries, &query_of(entry)?)?.into_iter().filter(|e| e.kind == Kind::Source).collect(),
    };
    let mut found = vec![];
    for source in sources {
        let source = open_source(engine, &session.layers, source).await?;
        if source.tail.is_some() && source.has_history {
            found.push(handover(engine, &source, forgets).await?);
        }
    }
    if found.is_empty() {
        return Err(Error::input(format!(
            "{name}: nothing is handed over, for no source of it has both a history and a log (lake = '…', tail = '…')"
        )));
    }
    Ok(found)
}

/// By what a log forgets: how long it keeps messages (`None`: as it says itself), and how far ahead is looked.
#[derive(Clone, Copy, Debug)]
pub struct Forgets {
    pub keeps: Option<Span>,
    pub within: Span,
}

async fn handover(engine: &Engine, source: &OpenSource, forgets: Option<Forgets>) -> Result<Handover> {
    let Some(tail) = &source.tail else { return Err(Error::bug("a source without a log is handed over")) };
    let snapshot = source.history.pin(None).await?;
    let records = source.history.records(&snapshot.version).await?;
    let location = &source.layout().location;
    let found = log::archive(&records, tail.archive(), location)?;
    let empty = snapshot.partitions.is_empty() && snapshot.timeless.is_empty();
    let by_time = match found {
        None if !empty && forgets.is_none() && !tail.key().is_empty() => {
            let newest = snapshot.newest(engine.clock().now());
            let from = log::overlaps_from(newest, tail.grace(), source.delay);
            Some(ByTime { key: tail.key().to_vec(), from, newest })
        }
        _ => None,
    };
    if found.is_none() && !empty && by_time.is_none() {
        return Err(Error::input(format!(
            "source {}: {location} has no record of how far {} is in it, so where the two meet is not known",
            source.name,
            tail.log().location()
        )));
    }
    let state = tail.log().look().await?;
    let begins = match &by_time {
        Some(ByTime { from, newest, .. }) => {
            let from = tail.log().at_time(*from).await?;
            let open = tail.log().at_time(newest.minus(tail.grace())).await?;
            log::seam_by_time(&from, &open, &state, tail.log().location())?
        }
        None => BTreeMap::new(),
    };
    let (archive, archived) = found.map_or((None, BTreeMap::new()), |(name, parts)| (Some(name), parts));
    let keeps = match forgets {
        Some(Forgets { keeps: None, .. }) => tail.log().keeps().await?,
        other => other.and_then(|forgets| forgets.keeps),
    };
    let goes = match forgets.zip(keeps) {
        Some((Forgets { within, .. }, keeps)) => {
            tail.log().at_time(engine.clock().now().minus(keeps).plus(within)).await?
        }
        None => BTreeMap::new(),
    };
    let parts: BTreeSet<Part> = archived.keys().chain(state.parts.keys()).copied().collect();
    let of_part = |part: Part| {
        let has = state.parts.get(&part).cloned().unwrap_or(0..0);
        let last = archived.get(&part).copied();
        let next = match (begins.get(&part), &archive) {
            (Some(begins), _) => *begins,
            (None, None) => has.start,
            (None, Some(_)) => last.map_or(0, |last| last + 1),
        };
        let name = archive.as_deref().map(|archive| Archived::application(archive, part));
        let forgotten = goes.get(&part).copied().unwrap_or(has.start);
        let at = PartHandover {
            archived: last,
            newest: name.and_then(|name| records.newest.get(&name).copied()),
            begins: next.max(has.start),
            missing: (next < has.start).then_some(next..has.start),
            about_to_go: (next.max(has.start) < forgotten).then_some(next.max(has.start)..forgotten),
            has,
        };
        (part, at)
    };
    let parts = parts.into_iter().map(of_part).collect();
    Ok(Handover {
        source: source.name.clone(),
        lake: location.clone(),
        version: match &snapshot.version {
            Version::Delta { version, .. } => version.to_string(),
            Version::Listing { digest } => digest.clone(),
            Version::Nothing => "none".to_string(),
        },
        log: tail.log().location().to_string(),
        keeps,
        archive,
        by_time,
        parts,
    })
}
