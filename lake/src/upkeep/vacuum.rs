//! Vacuum: files that nobody needs any more are removed, beside whoever writes to the table.
//!
//! ```text
//!  now ─ listing ─ newest version ─ pinned versions ─ the log's mentions ─▶ unneeded ─▶ removed
//! ```
//!
//! Data files, files of deletion vectors and change files go that the newest version does not name, once the retention is over:
//! since the log removed them, or, where the log never spoke of them, since they were written. A file that somebody has written
//! and not committed yet is known by its youth alone, which every writer of Delta tables relies on. So a retention that is
//! shorter than the table's must be asked for.
//!
//! Jobs are heeded besides: what a version names at which one stands, what one has still to read or has prepared, what the
//! versions changed that one has still to read as changes, and what was written or removed since a live run began ([`Pins`]).
//!
//! **Why the order is right.** Pins are gathered first, and the cut-off is not later than that. Then the folder is listed, and only
//! then the newest version read: a file of the listing that it does not name was removed before, or waits to be committed. In the
//! first case the log, which is listed last, says when, and it is named again only by a RESTORE; in the second it is young. A job that pins a version after the pins were
//! gathered stands at files that were all there then, so their removals are later than the cut-off, and they stay.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use watershed_core::clock::Clock;
use watershed_core::history::{DataFile, DeletionVector};
use watershed_core::settings::parse_span;
use watershed_core::sink::PreparedCommit;
use watershed_core::tail::TailPosition;
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};

use super::entries::{self, CleanedLog};
use super::unneeded::{Fate, Found, Known, is_data, names_of, names_of_vector, table_around};
use crate::changes::{Needs, needs};
use crate::log::{self, LogMetadata, LogProtocol, features, state};
use crate::stores::{Place, Stores};

const RETENTION: &str = "delta.deletedFileRetentionDuration";
const DEFAULT_RETENTION: Span = Span(7 * Span::DAY.0);

/// How a table is vacuumed.
#[derive(Clone, Copy, Debug, Default)]
pub struct VacuumOptions {
    /// How long files are kept; `None` is the table's own `delta.deletedFileRetentionDuration`, or seven days.
    pub retention: Option<Span>,
    /// The retention may be shorter than that.
    pub allow_shorter: bool,
    /// Old entries of the log stay as well.
    pub keep_log: bool,
    /// Nothing is removed.
    pub dry_run: bool,
}

/// What jobs need of tables, whichever these are.
#[derive(Clone, Debug)]
pub struct Pins {
    pub versions: Vec<Pin>,
    /// Files that jobs have still to read, though the versions at which they stand may not have them any more.
    pub pending: Vec<DataFile>,
    /// What waits to be committed, to whichever table.
    pub prepared: Vec<PreparedCommit>,
    /// Where jobs stand in logs, by their names: those count that read the table's changes.
    pub logs: Vec<(String, TailPosition)>,
    /// When they were gathered, or before, when the first of the live runs began that read or write the table. A run may stand at
    /// a version, and have written files, that no checkpoint names yet: what was removed or written since stays.
    pub since: EventTime,
}

/// A version at which a job stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    pub job: String,
    pub table_id: String,
    pub version: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Files that were removed, or would have been.
    pub files: Vec<UnneededFile>,
    pub bytes: u64,
    /// Files that would go, but stay for versions at which jobs stand.
    pub held: u64,
    pub held_bytes: u64,
    /// The versions at which jobs stand.
    pub pins: Vec<Pin>,
    /// Those of them that the log does not reach back to any more.
    pub lost: Vec<Pin>,
    /// What became of the log; `None` if it was left alone as asked.
    pub log: Option<CleanedLog>,
}

/// A file that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnneededFile {
    /// From the table's root.
    pub path: String,
    pub bytes: u64,
}

/// Vacuums a table.
pub async fn vacuum(
    stores: &Stores,
    location: &str,
    options: VacuumOptions,
    pins: &Pins,
    clock: &dyn Clock,
) -> Result<Vacuumed> {
    let now = clock.now();
    let place = stores.open(location)?;
    let table = Table::load(&place, location).await?;
    let cutoff = now.minus(table.retention(&options)?).min(pins.since);
    let listed = old_files(&place, &table, cutoff).await?;
    let newest = Table::load(&place, location).await?;
    if (&newest.metadata.id, &newest.metadata.partition_columns)
        != (&table.metadata.id, &table.metadata.partition_columns)
    {
        return Err(Error::stopped(format!("table {location} was made anew while it was vacuumed; vacuum it again")));
    }
    let mut known = Known { needed: names(&place, None).await?, ..Known::default() };
    // Not before: what a version removed that came in between would be neither there nor spoken of.
    let log_files = log::list_log(&place, None).await?;
    for file in pins.prepared.iter().flat_map(|prepared| &prepared.files) {
        known.needed.extend(names_of(&file.path, place.path.as_ref()));
        known.needed.extend(of_marks(&place, &file.path, file.marks.as_ref())?);
    }
    let (mut standing, mut lost) = (vec![], vec![]);
    let needs = pins.logs.iter().filter_map(|(job, position)| Some((job, needs(position, &table.metadata.id)?)));
    let needs: BTreeSet<(&String, Needs)> = needs.collect();
    let pin = |job: &String, version| Pin { job: job.clone(), table_id: table.metadata.id.clone(), version };
    let held = needs.iter().filter_map(|(job, needs)| Some(pin(job, needs.content?)));
    for pin in pins.versions.iter().cloned().chain(held).filter(|pin| pin.table_id == table.metadata.id) {
        let there = entries::reaches(&log_files, pin.version);
        if there { standing.push(pin) } else { lost.push(pin) }
    }
    for version in standing.iter().map(|pin| pin.version).collect::<BTreeSet<u64>>() {
        known.pinned.extend(names(&place, Some(version)).await?);
    }
    // Who has read all stands at a version that is still to come.
    let behind = needs.iter().filter(|(_, needs)| needs.changes <= newest.version);
    let mut first = None;
    for pin in behind.map(|(job, needs)| pin(job, needs.changes)) {
        if !(pin.version..=newest.version).all(|version| entries::has(&log_files, version)) {
            lost.push(pin);
            continue;
        }
        first = Some(first.map_or(pin.version, |first: u64| first.min(pin.version)));
        standing.push(pin);
    }
    if let Some(first) = first {
        known.pinned.extend(changed(&place, first..=newest.version).await?);
    }
    for file in &pins.pending {
        known.pinned.extend(names_of(&format!("/{}", file.path), place.path.as_ref()));
        known.pinned.extend(of_marks(&place, &file.path, file.deletion_vector.as_ref())?);
    }
    known.mentioned = mentioned(&place, &log_files, cutoff).await?;
    let mut done = Vacuumed { pins: standing, lost, ..Vacuumed::default() };
    for file in listed {
        match known.fate(&file, cutoff) {
            Fate::Stays => {}
            Fate::Held => {
                done.held += 1;
                done.held_bytes += file.bytes;
            }
            Fate::Goes => {
                done.bytes += file.bytes;
                done.files.push(UnneededFile { path: file.path, bytes: file.bytes });
            }
        }
    }
    done.files.sort();
    if !options.dry_run {
        let paths = done.files.iter().map(|file| place.at(&file.path)).collect::<Result<Vec<Path>>>()?;
        remove(&place, paths).await?;
    }
    if !options.keep_log {
        let pinned = done.pins.iter().map(|pin| pin.version).min();
        let of = entries::Of { place: &place, metadata: &newest.metadata, protocol: &newest.protocol };
        let cutoff = now.minus(entries::retention(location, &newest.metadata)?);
        let cutoff = cutoff.min(pins.since);
        done.log = Some(entries::clean(of, newest.version, cutoff, pinned, options.dry_run).await?);
    }
    Ok(done)
}

/// What a table is.
struct Table<'a> {
    location: &'a str,
    version: u64,
    metadata: LogMetadata,
    protocol: LogProtocol,
}

impl<'a> Table<'a> {
    async fn load(place: &Place, location: &'a str) -> Result<Table<'a>> {
        let none = || Error::input(format!("{location} is not a Delta table: it has no _delta_log"));
        let snapshot = log::snapshot(place, None).await?.ok_or_else(none)?;
        let metadata = state::plain(place, snapshot.metadata())?;
        let protocol = state::plain(place, snapshot.protocol())?;
        features::check_vacuumable(location, &protocol)?;
        Ok(Table { location, version: snapshot.version(), metadata, protocol })
    }

    fn retention(&self, options: &VacuumOptions) -> Result<Span> {
        let own = span(self.location, &self.metadata, RETENTION)?;
        let least = own.unwrap_or(DEFAULT_RETENTION);
        let asked = options.retention.unwrap_or(least);
        if asked < least && !options.allow_shorter {
            let whose = if own.is_some() { RETENTION } else { "the default" };
            return Err(Error::input(format!(
                "table {}: a retention of {asked} is shorter than {least} ({whose}), and could take files that others have written \
                 and not committed yet, or still read; if nobody else works on the table, allow it: --allow-shorter-retention",
                self.location
            )));
        }
        Ok(asked)
    }
}

/// A property of the table that is a span, such as `interval 7 days`.
pub(super) fn span(location: &str, metadata: &LogMetadata, property: &str) -> Result<Option<Span>> {
    let Some(text) = metadata.configuration.get(property) else { return Ok(None) };
    let trimmed = text.trim();
    let words =
        trimmed.get(..9).filter(|start| start.eq_ignore_ascii_case("interval ")).map_or(trimmed, |_| &trimmed[9..]);
    parse_span(words).map(Some).ok_or_else(|| {
        Error::input(format!(
            "table {location}: its property {property} = '{text}' is no span; write it as 'interval 7 days'"
        ))
    })
}

/// The files of the table that are older than the cut-off.
async fn old_files(place: &Place, table: &Table<'_>, cutoff: EventTime) -> Result<Vec<Found>> {
    let failed = |e| Error::storage("cannot list", place.url.as_str(), e);
    let root = place.path.as_ref();
    let mut listing = place.store.list(Some(&place.path));
    let (mut found, mut tables) = (vec![], BTreeSet::new());
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        let ObjectMeta { location, last_modified, size, .. } = meta;
        let whole = location.as_ref();
        let within =
            if root.is_empty() { Some(whole) } else { whole.strip_prefix(root).and_then(|p| p.strip_prefix('/')) };
        let Some(path) = within else { continue };
        if let Some(other) = table_around(path) {
            tables.insert(other.to_string());
        }
        let written = EventTime(last_modified.timestamp_micros());
        // Whether it is another table's is known only at the end.
        if written < cutoff && is_data(path, &table.metadata.partition_columns, &BTreeSet::new()) {
            found.push(Found { path: path.to_string(), bytes: size, written });
        }
    }
    found.retain(|file| is_data(&file.path, &table.metadata.partition_columns, &tables));
    Ok(found)
}

/// The folded names of all files of a version: data and deletion vectors.
async fn names(place: &Place, version: Option<u64>) -> Result<HashSet<String>> {
    let gone = || Error::stopped(format!("the log of table {} is gone", place.url));
    let snapshot = log::snapshot(place, version).await?.ok_or_else(gone)?;
    let log_store = log::log_store(place);
    let mut views = snapshot.file_views(log_store.as_ref(), None);
    let mut names = HashSet::new();
    let fail = |e| Error::storage("cannot list the files of", place.url.as_str(), e);
    while let Some(view) = views.try_next().await.map_err(fail)? {
        names.extend(names_of(&view.path(), place.path.as_ref()));
        if let Some(vector) = view.deletion_vector_descriptor() {
            names.extend(of_vector(place, &view.path(), &log::place_of(vector))?);
        }
    }
    Ok(names)
}

/// The folded names of all files by which these versions changed rows.
async fn changed(place: &Place, versions: RangeInclusive<u64>) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for version in versions {
        let gone = || Error::stopped(format!("log entry {version} of table {} vanished while it was read", place.url));
        let commit = log::read_commit(place, version).await?.ok_or_else(gone)?;
        let removes = commit.removes.into_iter().filter(|r| r.data_change).map(|r| (r.path, r.deletion_vector));
        let adds = commit.adds.into_iter().filter(|a| a.data_change).map(|a| (a.path, a.deletion_vector));
        let told = commit.changes.into_iter().map(|file| (file.path, None));
        for (path, vector) in removes.chain(adds).chain(told) {
            names.extend(names_of(&path, place.path.as_ref()));
            if let Some(vector) = vector {
                names.extend(of_vector(place, &path, &log::place_of(vector))?);
            }
        }
    }
    Ok(names)
}

fn of_marks(place: &Place, file: &str, marks: Option<&DeletionVector>) -> Result<Vec<String>> {
    let place_of = |marks: &DeletionVector| (marks.storage.clone(), marks.path_or_inline.clone());
    marks.map_or(Ok(vec![]), |marks| of_vector(place, file, &place_of(marks)))
}

fn of_vector(place: &Place, file: &str, (storage, text): &(String, String)) -> Result<Vec<String>> {
    names_of_vector(storage, text, place.path.as_ref())
        .map_err(|why| Error::stopped(format!("file {file} of table {}: {why}; nothing was removed", place.url)))
}

/// When the log last spoke of files that are not there any more, or came since the cut-off; by folded name.
async fn mentioned(
    place: &Place,
    log_files: &[(u64, ObjectMeta)],
    cutoff: EventTime,
) -> Result<HashMap<String, EventTime>> {
    let mut last: HashMap<String, EventTime> = HashMap::new();
    for mention in log::mentions(place, log_files, cutoff).await? {
        let mut names = names_of(&mention.path, place.path.as_ref());
        if let Some(vector) = &mention.vector {
            names.extend(of_vector(place, &mention.path, vector)?);
        }
        for name in names {
            let at = last.entry(name).or_insert(mention.at);
            *at = mention.at.max(*at);
        }
    }
    Ok(last)
}

/// Removes files, as many at once as the store is good for. What is not there is as good as removed.
pub(super) async fn remove(place: &Place, paths: Vec<Path>) -> Result<()> {
    let all = paths.len();
    let mut gone = place.store.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
    let (mut failures, mut first) = (0, None);
    while let Some(done) = gone.next().await {
        match done {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => {
                failures += 1;
                first.get_or_insert(e);
            }
        }
    }
    match first {
        None => Ok(()),
        Some(e) => {
            let what = format!("{failures} of {all} files could not be removed (vacuum again) from");
            Err(Error::storage(what, place.url.as_str(), e))
        }
    }
}
