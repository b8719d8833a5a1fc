//! The catalog: what has been created, by name, kept in the home as one small JSON object a generation.
//!
//! ```text
//! {home}/catalog/{kind}/{name}/{generation:06}.json
//! ```
//!
//! The newest generation of a name counts. Creating, replacing and dropping all *add* a generation with put-if-absent, a
//! drop's being a tombstone; nothing is ever overwritten. So any object store will do as a home, two processes that create
//! the same thing at once cannot both succeed, and what a name meant before can still be read.
//!
//! Sources, views, materialized views and tables share one space of names, as in SQL; INSERT jobs and sinks have their own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use watershed_core::epoch::{AfterPut, ReadBack, after_put};
use watershed_core::{Error, EventTime, Result};

/// The format of entries that this version writes and reads.
const FORMAT: u32 = 1;

/// How often a put is tried whose effect nobody can see.
const PUT_TRIES: usize = 5;

/// How many entries are read at once.
const READS: usize = 16;

/// What a catalog entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `CREATE SOURCE`
    Source,
    /// `CREATE VIEW`: a name for a query
    View,
    /// `CREATE MATERIALIZED VIEW`: a job and its table
    MaterializedView,
    /// `CREATE TABLE`
    Table,
    /// `CREATE EXTERNAL TABLE`: files that are somebody else's
    ExternalTable,
    /// `INSERT INTO … SELECT`: a job
    Insert,
    /// `CREATE SINK`: a job whose rows go into a topic, into files, or to standard output
    Sink,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Source, Kind::View, Kind::MaterializedView, Kind::Table, Kind::ExternalTable, Kind::Insert, Kind::Sink];

    fn folder(self) -> &'static str {
        match self {
            Kind::Source => "source",
            Kind::View => "view",
            Kind::MaterializedView => "materialized_view",
            Kind::Table => "table",
            Kind::ExternalTable => "external_table",
            Kind::Insert => "insert",
            Kind::Sink => "sink",
        }
    }

    /// The kind with its article.
    pub(crate) fn one(self) -> String {
        let article = if self == Kind::ExternalTable { "an" } else { "a" };
        format!("{article} {self}")
    }

    /// Whether entries of this kind run.
    pub fn is_job(self) -> bool {
        matches!(self, Kind::MaterializedView | Kind::Insert | Kind::Sink)
    }

    /// Whether a table of the home is behind the name, which Watershed writes.
    pub fn has_table(self) -> bool {
        matches!(self, Kind::Table | Kind::MaterializedView)
    }

    /// Whether the name can stand in a FROM.
    pub fn is_relation(self) -> bool {
        !matches!(self, Kind::Insert | Kind::Sink)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Source => "source",
            Kind::View => "view",
            Kind::MaterializedView => "materialized view",
            Kind::Table => "table",
            Kind::ExternalTable => "external table",
            Kind::Insert => "job",
            Kind::Sink => "sink",
        })
    }
}

/// One generation of a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub format: u32,
    pub kind: Kind,
    pub name: String,
    /// From 1.
    pub generation: u64,
    /// The normalised text of the statement, without OR REPLACE and IF NOT EXISTS.
    pub statement: String,
    /// Where its table, topic or history lies, as a URL; `None` for views and for tables in their default place, so that a home
    /// can be moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Drawn anew with each generation. For jobs, the incarnation by which tables know their commits.
    pub incarnation: Uuid,
    /// The statement said OR REPLACE: said again, it goes on with what it made.
    #[serde(default)]
    pub or_replace: bool,
    /// Incarnations of earlier generations whose tables, if they are still there, are this one's to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Uuid>,
    /// What is fixed when it is made, as text: settings of a job (`from`), and the `columns` of a log that were inferred.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed: BTreeMap<String, String>,
    /// Statements of the views that a job's query went through: they are part of what it means.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub views: BTreeMap<String, String>,
    /// Wall time of creation; what `now()` means in a job's query.
    pub created: EventTime,
    #[serde(default)]
    pub dropped: bool,
}

impl Entry {
    /// This incarnation and those that it may clear away.
    fn and_replaced(&self) -> Vec<Uuid> {
        [self.replaced.as_slice(), &[self.incarnation]].concat()
    }
}

/// What a new entry says; generation and format are the catalog's affair.
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: Kind,
    pub name: String,
    pub statement: String,
    pub location: Option<String>,
    pub incarnation: Uuid,
    pub or_replace: bool,
    pub fixed: BTreeMap<String, String>,
    pub views: BTreeMap<String, String>,
    pub created: EventTime,
}

/// The catalog of one home. Holds nothing but where it lies.
#[derive(Clone, Debug)]
pub struct Catalog {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// For messages.
    home: String,
}

impl Catalog {
    /// The catalog in `root` of `store`; `home` is what messages call it.
    pub fn new(store: Arc<dyn ObjectStore>, root: Path, home: impl Into<String>) -> Self {
        Catalog { store, root, home: home.into() }
    }

    /// Everything there is, newest generations without tombstones, by kind and name.
    pub async fn list(&self) -> Result<Vec<Entry>> {
        let mut newest: BTreeMap<String, Path> = BTreeMap::new();
        let root = self.root.clone().join("catalog");
        let mut objects = self.store.list(Some(&root));
        while let Some(object) = objects.try_next().await.map_err(|e| self.error("could not list the catalog in", e))? {
            let path = object.location;
            if generation_of(&path).is_none() {
                continue;
            }
            let folder = path.parent().map(|p| p.to_string()).unwrap_or_default();
            let newer = newest.get(&folder).is_none_or(|known| generation_of(known) < generation_of(&path));
            if newer {
                newest.insert(folder, path);
            }
        }
        let reads = stream::iter(newest.into_values()).map(|path| async move { self.read(&path).await });
        let entries: Vec<Option<Entry>> = reads.buffered(READS).try_collect().await?;
        let mut entries: Vec<Entry> = entries.into_iter().flatten().filter(|e| !e.dropped).collect();
        entries.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(entries)
    }

    /// The newest generation of a name, also when it is a tombstone.
    pub async fn newest(&self, kind: Kind, name: &str) -> Result<Option<Entry>> {
        let mut objects = self.store.list(Some(&self.folder(kind, name)));
        let mut newest: Option<Path> = None;
        while let Some(object) = objects.try_next().await.map_err(|e| self.error("could not list the catalog in", e))? {
            if generation_of(&object.location) > newest.as_ref().and_then(generation_of) {
                newest = Some(object.location);
            }
        }
        match newest {
            Some(path) => self.read(&path).await,
            None => Ok(None),
        }
    }

    /// The entry of a name, unless there is none or it was dropped.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Option<Entry>> {
        Ok(self.newest(kind, name).await?.filter(|entry| !entry.dropped))
    }

    /// Adds a generation: a first one, or one that takes the place of what was there when that was decided, `over`. What
    /// another made meanwhile is not replaced.
    pub async fn put(&self, draft: Draft, over: Option<&Entry>) -> Result<Entry> {
        let before = self.newest(draft.kind, &draft.name).await?;
        let live = before.as_ref().filter(|entry| !entry.dropped).map(|entry| entry.incarnation);
        if live.is_some() && live != over.map(|entry| entry.incarnation) {
            return Err(self.changed_meanwhile(draft.kind, &draft.name));
        }
        let replaced = match &before {
            Some(entry) if entry.dropped => entry.replaced.clone(),
            Some(entry) => entry.and_replaced(),
            None => vec![],
        };
        let Draft { kind, name, statement, location, incarnation, or_replace, fixed, views, created } = draft;
        let entry = Entry {
            format: FORMAT,
            kind,
            name,
            generation: before.map_or(0, |e| e.generation) + 1,
            statement,
            location,
            incarnation,
            or_replace,
            replaced,
            fixed,
            views,
            created,
            dropped: false,
        };
        self.create(&entry).await?;
        Ok(entry)
    }

    /// Adds a tombstone over `entry`, known by an id of its own. Unless its table is kept, whoever has the name next may
    /// remove what was left of it.
    pub async fn drop(&self, entry: &Entry, id: Uuid, keep_table: bool) -> Result<()> {
        let replaced = if keep_table { vec![] } else { entry.and_replaced() };
        let generation = entry.generation + 1;
        let tombstone = Entry { generation, incarnation: id, replaced, dropped: true, ..entry.clone() };
        self.create(&tombstone).await
    }

    /// Creates the entry's object, once: unknown is not failed, so what cannot be told is read back.
    async fn create(&self, entry: &Entry) -> Result<()> {
        let path = self.folder(entry.kind, &entry.name).join(format!("{:06}.json", entry.generation));
        let bytes = serde_json::to_vec_pretty(entry).map_err(|e| Error::bug(format!("catalog entry: {e}")))?;
        let mut last = None;
        for _ in 0..PUT_TRIES {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.store.put_opts(&path, PutPayload::from(bytes.clone()), options).await {
                Ok(_) => return Ok(()),
                Err(e) => last = Some(e),
            }
            let found = match self.read(&path).await? {
                Some(found) => ReadBack::Attempt(found.incarnation),
                None => ReadBack::Absent,
            };
            match after_put(entry.incarnation, &found) {
                AfterPut::Ours => return Ok(()),
                AfterPut::Retry => continue,
                AfterPut::Fenced => return Err(self.changed_meanwhile(entry.kind, &entry.name)),
            }
        }
        let why = last.map_or_else(|| "no answer".to_string(), |e| e.to_string());
        Err(Error::storage_unknown("could not write the catalog entry", self.at(&path), why))
    }

    fn changed_meanwhile(&self, kind: Kind, name: &str) -> Error {
        let message = format!("{kind} {name} was changed in {} meanwhile; run again", self.home);
        Error::Fenced { job: name.to_string(), message }
    }

    async fn read(&self, path: &Path) -> Result<Option<Entry>> {
        let found = match self.store.get(path).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => Err(e),
        };
        let bytes = found.map_err(|e| Error::storage("could not read the catalog entry", self.at(path), e))?;
        let broken =
            |e| Error::stopped(format!("catalog entry {} cannot be read: {e}; restore it from a copy", self.at(path)));
        let entry: Entry = serde_json::from_slice(&bytes).map_err(broken)?;
        match entry.format {
            FORMAT => Ok(Some(entry)),
            other => Err(Error::stopped(format!(
                "catalog entry {} has format {other}, this version knows {FORMAT}; use the version that wrote it, or a newer one",
                self.at(path)
            ))),
        }
    }

    fn folder(&self, kind: Kind, name: &str) -> Path {
        self.root.clone().join("catalog").join(kind.folder()).join(name)
    }

    fn at(&self, path: &Path) -> String {
        let below = path.as_ref().strip_prefix(self.root.as_ref()).unwrap_or(path.as_ref());
        format!("{}/{}", self.home.trim_end_matches('/'), below.trim_start_matches('/'))
    }

    fn error(&self, what: &str, e: object_store::Error) -> Error {
        Error::storage(what, &self.home, e)
    }
}

/// The generation that a path's name carries; `None` for what is not an entry, such as a half-written file.
fn generation_of(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn catalog() -> Catalog {
        Catalog::new(Arc::new(InMemory::new()), Path::from("a/home"), "memory:///a/home")
    }

    fn draft(kind: Kind, name: &str, statement: &str, id: u128) -> Draft {
        Draft {
            kind,
            name: name.into(),
            statement: statement.into(),
            location: None,
            incarnation: Uuid::from_u128(id),
            or_replace: false,
            fixed: BTreeMap::new(),
            views: BTreeMap::new(),
            created: EventTime(0),
        }
    }

    #[tokio::test]
    async fn newest_generation_counts_and_a_drop_is_one() {
        let catalog = catalog();
        assert_eq!(catalog.get(Kind::View, "v").await.unwrap(), None);
        let one = catalog.put(draft(Kind::View, "v", "one", 1), None).await.unwrap();
        let two = catalog.put(draft(Kind::View, "v", "two", 2), Some(&one)).await.unwrap();
        assert_eq!((two.generation, two.statement.as_str()), (2, "two"));
        assert_eq!(two.replaced, [Uuid::from_u128(1)]);
        assert_eq!(catalog.get(Kind::View, "v").await.unwrap().unwrap(), two);
        catalog.drop(&two, Uuid::from_u128(3), false).await.unwrap();
        assert_eq!(catalog.get(Kind::View, "v").await.unwrap(), None);
        assert!(catalog.list().await.unwrap().is_empty());
        let again = catalog.put(draft(Kind::View, "v", "three", 4), None).await.unwrap();
        assert_eq!((again.generation, &again.replaced[..]), (4, &[Uuid::from_u128(1), Uuid::from_u128(2)][..]));
        catalog.drop(&again, Uuid::from_u128(5), true).await.unwrap();
        let last = catalog.put(draft(Kind::View, "v", "four", 6), None).await.unwrap();
        assert_eq!(last.replaced, Vec::<Uuid>::new());
    }

    #[tokio::test]
    async fn names_may_hold_anything() {
        let catalog = catalog();
        for (i, name) in ["a/b", "..", "Ä ö", "x%2Fy", "a.b"].iter().enumerate() {
            catalog.put(draft(Kind::Source, name, name, i as u128), None).await.unwrap();
        }
        let names: Vec<String> = catalog.list().await.unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        for name in ["a/b", "..", "Ä ö", "x%2Fy", "a.b"] {
            assert_eq!(catalog.get(Kind::Source, name).await.unwrap().unwrap().statement, name);
        }
    }

    #[tokio::test]
    async fn the_second_of_two_creators_is_told() {
        let catalog = catalog();
        let one = catalog.put(draft(Kind::Source, "s", "one", 1), None).await.unwrap();
        // Also one who decided to make it before it was there, and puts it when it is.
        let late = catalog.put(draft(Kind::Source, "s", "one", 2), None).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
        assert_eq!(catalog.get(Kind::Source, "s").await.unwrap().unwrap(), one);
        let theirs = Entry { incarnation: Uuid::from_u128(9), ..one.clone() };
        assert!(matches!(catalog.create(&theirs).await, Err(Error::Fenced { .. })));
        // Our own put, repeated after an answer that was lost, is ours.
        catalog.create(&one).await.unwrap();
    }

    #[tokio::test]
    async fn an_unknown_format_is_refused() {
        let catalog = catalog();
        let one = catalog.put(draft(Kind::Source, "s", "one", 1), None).await.unwrap();
        catalog.create(&Entry { format: 99, generation: 2, ..one }).await.unwrap();
        let error = catalog.get(Kind::Source, "s").await.unwrap_err().to_string();
        assert!(error.contains("format 99"), "{error}");
    }
}
