//! A keyed table as its writer knows it: the live files, the key index, and what it takes to commit changes.
//!
//! ```text
//!  PreparedCommit ─ changes (kept by the writer, or read back) ─ resolve ─▶ marks ─▶ vectors ─▶ actions
//! ```
//!
//! **Invariant:** actions hold for the version they were worked out on. They are kept for the next attempt only if what came
//! in between is no matter to them ([`super::conflict`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use deltalake::kernel::Add;
use roaring::{RoaringBitmap, RoaringTreemap};
use serde_json::{Value, json};
use watershed_core::clock::Clock;
use watershed_core::sink::{PreparedCommit, WrittenFile};
use watershed_core::{Error, Result};

use super::conflict::{Footing, conflict};
use super::files::{At, TableFiles};
use super::images::{self, Joining};
use super::index::{self, Entry, Group, KeyIndex};
use super::key::KeyHash;
use super::live::LiveFiles;
use super::resolve::{ChangeFile, Changes, Resolved, group, resolve};
use super::scan::{self, KeyColumns, KeyFile};
use super::spec::{KeySpec, WriteMode};
use super::{copies, partial, vectors};
use crate::history::marks;
use crate::log::{Refreshed, TableState, features};
use crate::stores::Place;
use crate::table::SinkOptions;
use crate::table::commit::{Actions, Change, Conflict, add, body};
use crate::table::shape::{Key, Shape};

/// Changes of epochs that were finished and not yet committed, by the first file of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending(Arc<Mutex<HashMap<String, Changes>>>);

impl Pending {
    pub(crate) fn put(&self, first: &str, changes: Changes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(first.to_string(), changes);
    }

    fn take(&self, first: &str) -> Option<Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(first)
    }
}

/// What a writer knows of its table between commits.
#[derive(Debug)]
pub(crate) struct KeyedTable {
    place: Place,
    keys: Arc<KeyColumns>,
    spec: KeySpec,
    partition_columns: Vec<String>,
    options: SinkOptions,
    pub(crate) pending: Pending,
    /// At `version`; `None` until it is needed.
    live: Option<LiveFiles>,
    version: u64,
    index: KeyIndex,
    /// The version that this writer made last, and the marks that it gave to files.
    own: Option<(u64, BTreeMap<String, Arc<RoaringTreemap>>)>,
}

impl KeyedTable {
    pub(crate) fn new(
        place: Place,
        keys: Arc<KeyColumns>,
        spec: KeySpec,
        partition_columns: Vec<String>,
        options: SinkOptions,
    ) -> KeyedTable {
        KeyedTable {
            place,
            keys,
            spec,
            partition_columns,
            options,
            pending: Pending::default(),
            live: None,
            version: 0,
            index: KeyIndex::new(options.index),
            own: None,
        }
    }

    /// The changes that a prepared commit stands for.
    pub(crate) async fn changes(&self, prepared: &PreparedCommit) -> Result<Changes> {
        let Some(first) = prepared.files.first() else { return Ok(Changes::default()) };
        if let Some(known) = self.pending.take(&first.path) {
            return Ok(known);
        }
        let mut files = vec![];
        for file in &prepared.files {
            let value = |column| file.values.get(column).cloned().flatten();
            let partition: Key = self.partition_columns.iter().map(value).collect();
            let from = KeyFile { path: &file.path, size: file.size, partition: &partition };
            let keys = scan::all(&self.place, &self.keys, &from).await?;
            let mut outdone = RoaringBitmap::new();
            if let Some(vector) = &file.marks {
                let marked = marks::bitmap(&self.place, self.place.url.as_str(), &file.path, vector).await?;
                outdone.extend(marked.iter().filter_map(|row| u32::try_from(row).ok()));
            }
            let (path, statistics) = (file.path.clone(), file.stats.clone());
            let WrittenFile { deletes, whole, .. } = *file;
            files.push(ChangeFile { path, partition, statistics, keys, outdone, deletes, whole });
        }
        Ok(Changes { files })
    }

    /// The files of the version that it stands at, if it has had to know them.
    pub(crate) fn live(&self) -> Option<&LiveFiles> {
        self.live.as_ref()
    }

    /// Puts changes back that were not committed.
    pub(crate) fn put_back(&self, changes: Changes) {
        if let Some(first) = changes.files.first().map(|file| file.path.clone()) {
            self.pending.put(&first, changes);
        }
    }

    /// Takes in what came since it was last told; whoever refreshes the table's state has to tell.
    pub(crate) fn follow(&mut self, came: &Refreshed) {
        let Refreshed::Commits(commits) = came else {
            self.live = None;
            self.index.clear();
            self.own = None;
            return;
        };
        for commit in commits {
            let Some(live) = &mut self.live else { return };
            if commit.version != self.version + 1 {
                self.live = None;
                self.index.clear();
                return;
            }
            let own = self.own.take_if(|(version, _)| *version == commit.version);
            if own.is_none() {
                let paths = commit.removes.iter().map(|r| &r.path).chain(commit.adds.iter().map(|a| &a.path));
                let before: Vec<Group> = paths
                    .filter_map(|path| live.get(path))
                    .map(|file| group(self.keys.fixes_partition, &file.partition))
                    .collect();
                before.iter().for_each(|group| self.index.forget(group));
            }
            live.apply(commit);
            for add in &commit.adds {
                let Some(file) = live.get(&add.path) else { continue };
                match own.as_ref().and_then(|(_, marks)| marks.get(&add.path)) {
                    Some(marks) => file.know_marks(marks.clone()),
                    None if own.is_none() => self.index.forget(&group(self.keys.fixes_partition, &file.partition)),
                    None => {}
                }
            }
            for remove in &commit.removes {
                if live.get(&remove.path).is_none() {
                    let id = live.id_of(&remove.path);
                    self.index.forget_file(id);
                }
            }
            self.version = commit.version;
        }
    }
}

/// A commit of changes.
pub(crate) struct KeyedChange<'a> {
    table: &'a mut KeyedTable,
    prepared: &'a PreparedCommit,
    changes: &'a Changes,
    clock: &'a dyn Clock,
    worked_out: Option<WorkedOut>,
}

/// Actions, and what they hold by.
struct WorkedOut {
    footing: Footing,
    resolved: Resolved,
    /// Files beside those of the epoch, which join the table too.
    merged: Vec<(WrittenFile, ChangeFile)>,
    actions: Vec<(&'static str, Value)>,
    marks: BTreeMap<String, Arc<RoaringTreemap>>,
    was_empty: bool,
}

/// How a file joins the table.
enum Joins {
    Not,
    Unmarked,
    Marked(RoaringTreemap),
}

impl<'a> KeyedChange<'a> {
    pub(crate) fn new(
        table: &'a mut KeyedTable,
        prepared: &'a PreparedCommit,
        changes: &'a Changes,
        clock: &'a dyn Clock,
    ) -> KeyedChange<'a> {
        KeyedChange { table, prepared, changes, clock, worked_out: None }
    }

    async fn work_out(&mut self, state: &TableState, now: i64) -> Result<WorkedOut> {
        let KeyedTable { place, keys, spec, live, index, partition_columns, options, version, .. } = &mut *self.table;
        if live.is_none() {
            *live = Some(LiveFiles::load(place, state.version, partition_columns).await?);
            *version = state.version;
        }
        let Some(live) = live else { return Err(Error::bug("live files that were loaded are not there")) };
        if *version != state.version {
            return Err(Error::bug(format!("files of version {version} beside version {}", state.version)));
        }
        let mut resolved = resolve(place, keys, live, index, self.changes).await?;
        let groups = self.changes.files.iter().map(|f| group(keys.fixes_partition, &f.partition)).collect();
        let mut footing = Footing { touched: BTreeSet::new(), groups, fixes_partition: keys.fixes_partition };
        let copies = spec.write_mode == WriteMode::CopyOnWrite;
        let feed = features::feeds_changes(&state.metadata) && !resolved.marks.is_empty();
        let files = match keys.partial || copies || feed {
            false => None,
            true => {
                let schema = state.schema(place)?;
                let shape = Shape::of_table(place.url.as_str(), schema, partition_columns, Some(spec.clone()))?;
                Some(TableFiles { place, keys, shape: shape.into(), options, attempt: self.clock.id() })
            }
        };
        let merged = match &files {
            Some(files) if keys.partial => {
                partial::with_table(files, live, self.changes, &self.prepared.files, &mut resolved).await?
            }
            _ => vec![],
        };
        let joining = joining(self.prepared, self.changes, &resolved, &merged);
        let copying = match &files {
            Some(files) if copies => Some((files, Arc::new(files.encoding("copied")))),
            _ => None,
        };
        let (mut actions, mut vectors_of, mut vectored) = (vec![], vec![], vec![]);
        let mut marks = BTreeMap::new();
        let mut add_marked = |add: Add, rows: RoaringTreemap| {
            let rows = Arc::new(rows);
            marks.insert(add.path.clone(), rows.clone());
            vectored.push(Add { stats: add.stats.as_deref().map(vectors::loose), deletion_vector: None, ..add });
            vectors_of.push(rows);
        };
        for (id, rows) in &resolved.marks {
            let file = live.by_id(*id).ok_or_else(|| Error::bug(format!("file {id} is marked and not live")))?;
            footing.touched.insert(file.add.path.clone());
            actions.push(("remove", body(&file.remove_action(now, true))?));
            let all = &*file.marks(place).await? | rows;
            let (count, _) = crate::history::statistics_of(file.add.stats.as_deref(), None);
            // With its last row the file goes.
            if count == Some(all.len()) {
                continue;
            }
            match &copying {
                None => add_marked(Add { data_change: true, ..file.add.clone() }, all),
                Some((files, encoding)) => {
                    for copy in copies::without(files, encoding, At::live(file), &all).await? {
                        actions.push(("add", body(&add(&copy, now)?)?));
                    }
                }
            }
        }
        for join in &joining {
            let file = add(join.file, now)?;
            match (joins(join, keys.sequence.is_some()), &copying) {
                (Joins::Not, _) => {}
                (Joins::Unmarked, _) => actions.push(("add", body(&file)?)),
                (Joins::Marked(rows), None) => add_marked(file, rows),
                (Joins::Marked(rows), Some((files, encoding))) => {
                    for copy in copies::without(files, encoding, At::written(join.file, join.change), &rows).await? {
                        actions.push(("add", body(&add(&copy, now)?)?));
                    }
                }
            }
        }
        if let Some(files) = files.as_ref().filter(|_| feed) {
            for file in images::write(files, live, self.changes, &resolved, &joining).await? {
                actions.push(("cdc", body(&file)?));
            }
        }
        let written = vectors::write(place, self.clock.id(), &vectors_of).await?;
        for (add, vector) in vectored.into_iter().zip(written) {
            actions.push(("add", body(&Add { deletion_vector: Some(vector), ..add })?));
        }
        if !vectors_of.is_empty()
            && let Some((protocol, metadata)) =
                features::with_deletion_vectors(place.url.as_str(), state, spec.upgrade)?
        {
            actions.push(("protocol", body(&protocol)?));
            actions.push(("metaData", body(&metadata)?));
        }
        Ok(WorkedOut { footing, resolved, merged, actions, marks, was_empty: live.is_empty() })
    }

    /// Carries what was committed into the index.
    pub(crate) fn committed(mut self, version: u64) {
        let Some(WorkedOut { footing, resolved, merged, marks, was_empty, .. }) = self.worked_out.take() else {
            return;
        };
        let KeyedTable { keys, spec, live, index, own, .. } = &mut *self.table;
        *own = Some((version, marks));
        if spec.write_mode == WriteMode::CopyOnWrite {
            // Rows that were copied lie elsewhere now.
            footing.groups.iter().for_each(|group| index.forget(group));
            return;
        }
        let Some(live) = live else { return };
        for join in joining(self.prepared, self.changes, &resolved, &merged) {
            let change = join.change;
            let file = live.id_of(&change.path);
            let group = group(keys.fixes_partition, &change.partition);
            let standing = keys.sequence.is_some();
            let rows = change.keys.hashes.iter().enumerate().filter(|(row, _)| !join.marked.contains(*row as u32));
            let entry = |(row, hash): (usize, &KeyHash)| {
                let entry = Entry { file, row: row as u32, sequence: change.keys.sequence(row) };
                (*hash, (!change.deletes || standing).then_some(entry))
            };
            index.carry(&group, rows.map(entry));
            if !was_empty && !keys.fixes_partition && (!change.deletes || standing) {
                index.put_filter(file, index::filter(change.keys.hashes.len(), change.keys.hashes.iter()));
            }
        }
    }
}

#[async_trait]
impl Change for KeyedChange<'_> {
    async fn follow(&mut self, applications: &[&str], came: &Refreshed) -> Result<Conflict> {
        let judged = match (came, &self.worked_out) {
            (Refreshed::Anew, _) => Conflict::Table,
            (Refreshed::Commits(winning), Some(worked_out)) => {
                conflict(applications, &worked_out.footing, &self.table.partition_columns, winning)
            }
            (Refreshed::Commits(winning), None) => {
                conflict(applications, &Footing::default(), &self.table.partition_columns, winning)
            }
        };
        self.table.follow(came);
        if judged != Conflict::None {
            self.worked_out = None;
        }
        Ok(judged)
    }

    async fn actions(&mut self, state: &TableState, now: i64) -> Result<Actions> {
        let worked_out = match self.worked_out.take() {
            Some(still_holds) => still_holds,
            None => self.work_out(state, now).await?,
        };
        let worked_out = self.worked_out.insert(worked_out);
        Ok(Actions {
            operation: "MERGE",
            parameters: json!({"predicate": json!(self.table.keys.names()).to_string()}),
            blind: false,
            actions: worked_out.actions.clone(),
        })
    }
}

/// The files of a commit with their rows that do not count: those of the epoch, and those that were merged.
fn joining<'a>(
    prepared: &'a PreparedCommit,
    changes: &'a Changes,
    resolved: &Resolved,
    merged: &'a [(WrittenFile, ChangeFile)],
) -> Vec<Joining<'a>> {
    let own = prepared.files.iter().zip(&changes.files).zip(&resolved.stale);
    let own = own.map(|((file, change), stale)| Joining { file, change, marked: &change.outdone | stale });
    let merged = merged.iter().map(|(file, change)| Joining { file, change, marked: RoaringBitmap::new() });
    own.chain(merged).collect()
}

fn joins(join: &Joining<'_>, sequenced: bool) -> Joins {
    if join.file.deletes {
        // Nobody but later writers has a use for what it says.
        return if sequenced { Joins::Marked((0..join.file.rows).collect()) } else { Joins::Not };
    }
    match join.marked.len() {
        0 => Joins::Unmarked,
        all if all == join.file.rows => Joins::Not,
        _ => Joins::Marked(join.marked.iter().map(u64::from).collect()),
    }
}
