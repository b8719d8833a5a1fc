//! A Delta table as core's sink: appended to, or, if it is keyed, upserted into, exactly once an epoch.
//!
//! What the table is was judged when the sink was opened; a commit judges it again whenever its metadata changed, and
//! stops when it is another table, another's table, or has other columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::kernel::Transaction;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tokio::sync::Mutex;
use uuid::Uuid;
use watershed_core::clock::Clock;
use watershed_core::epoch::{CommitDecision, decide_commit};
use watershed_core::history::Records;
use watershed_core::log;
use watershed_core::sink::{CommitIdentity, Committed, EpochWriter, LastCommit, PreparedCommit, Sink, WrittenFile};
use watershed_core::tail::Part;
use watershed_core::{Error, Result};

use super::archive;
use super::commit::{self, Append, Identified, Rules};
use super::create::{check_properties, create, differing};
use super::encode::Encoding;
use super::replace::{Known, Replace, Which};
use super::shape::{Key, Shape};
use super::tidy::Tidy;
use super::writer::DeltaEpochWriter;
use super::{Create, INCARNATION, SinkOptions, TableSpec};
use crate::keyed::{Keyed, KeyedChange};
use crate::log::{TableState, features};
use crate::stores::{Place, Stores};
use crate::upkeep::{self, CompactOptions};

/// Files whose presence is asked for at once.
const CONCURRENT: usize = 16;

/// Partitions that still get rows wait for so many times as many small files.
const OPEN: usize = 4;

/// A Delta table that is written to.
#[derive(Debug)]
pub struct DeltaSink {
    name: String,
    location: String,
    place: Place,
    spec: TableSpec,
    options: SinkOptions,
    clock: Arc<dyn Clock>,
    shape: Arc<Shape>,
    keyed: Option<Keyed>,
    shape_up: Tidy,
    /// For rows that take the place of others.
    known: Mutex<Known>,
    /// `None` while the table is not made.
    state: Mutex<Option<TableState>>,
}

impl DeltaSink {
    /// Opens a table, or makes it now or with its first rows. Errors if it is there and cannot be appended to, belongs
    /// to another incarnation, or has other columns.
    pub async fn open(
        stores: &Stores,
        name: &str,
        location: &str,
        spec: TableSpec,
        options: SinkOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<DeltaSink> {
        check_properties(&spec.properties)?;
        let (mut spec, operation) = Keyed::rows(spec)?;
        if let Some(key) = &spec.key {
            spec.properties.extend(key.properties());
        }
        let place = stores.open(location)?;
        let mut state = TableState::load(&place).await?;
        if state.is_none() && options.create == Create::Now {
            let shape = Shape::of_new(location, &spec)?;
            if let Some(key) = &spec.key {
                // Before there is a table that nobody could write to.
                Keyed::columns(location, key, &shape, clock.id())?;
            }
            state = Some(make(&place, &shape, &spec, clock.as_ref()).await?);
        }
        let shape = match &state {
            None => Shape::of_new(location, &spec)?,
            Some(state) => {
                check_owner(location, &spec, state)?;
                features::check_appendable(location, &state.protocol, &state.metadata)?;
                let ignored = differing(&spec, &state.metadata.configuration);
                if !ignored.is_empty() {
                    tracing::warn!(
                        table = location,
                        ?ignored,
                        "the table is there; these properties are left as they are"
                    );
                }
                Shape::of_existing(location, state.schema(&place)?, &state.metadata.partition_columns, &spec)?
            }
        };
        let keyed = match spec.key.clone() {
            None => None,
            Some(key) => Some(Keyed::new(&place, location, key, operation, &shape, clock.id(), &options)?),
        };
        if let (Some(keyed), Some(state)) = (&keyed, &state) {
            keyed.check(&state.metadata)?;
        }
        Ok(DeltaSink {
            name: name.to_string(),
            location: location.to_string(),
            place,
            spec,
            options,
            clock,
            shape: Arc::new(shape),
            keyed,
            shape_up: Tidy::default(),
            known: Mutex::default(),
            state: Mutex::new(state),
        })
    }

    /// The table's columns, partition columns included.
    pub fn table_schema(&self) -> arrow::datatypes::SchemaRef {
        self.shape.table_schema.clone()
    }

    /// The version of each of the applications that the table has.
    pub async fn applications(&self, ids: &[String]) -> Result<BTreeMap<String, u64>> {
        let mut state = self.state.lock().await;
        self.refreshed(&mut state).await?;
        let found = |id: &String| {
            let version = state.as_ref()?.transactions.get(id)?;
            Some((id.clone(), u64::try_from(*version).ok()?))
        };
        Ok(ids.iter().filter_map(found).collect())
    }

    /// Commits files under several applications at once, each with the version that it will have: what `watershed load`
    /// does, with one application a file. All of them done means done; some done means that another loaded them
    /// meanwhile, and stops.
    pub async fn commit_load(
        &self,
        applications: &[(String, u64)],
        prepared: &PreparedCommit,
        info: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Committed> {
        let transactions = applications.iter().map(|(id, version)| transaction(id, *version)).collect::<Result<_>>()?;
        let decide = |state: &TableState| {
            let has = |(id, version): &&(String, u64)| {
                state.transactions.get(id).and_then(|v| u64::try_from(*v).ok()).is_some_and(|v| v >= *version)
            };
            let done: Vec<&str> = applications.iter().filter(has).map(|(id, _)| id.as_str()).collect();
            match done.len() {
                0 => CommitDecision::Commit,
                n if n == applications.len() => CommitDecision::Done,
                _ => CommitDecision::Stop(format!(
                    "another loaded some of the same files meanwhile ({}); load again, and they are skipped",
                    done.join(", ")
                )),
            }
        };
        self.append(transactions, prepared, info, decide).await
    }

    async fn append(
        &self,
        transactions: Vec<Transaction>,
        prepared: &PreparedCommit,
        info: &BTreeMap<String, serde_json::Value>,
        decide: impl Fn(&TableState) -> CommitDecision + Sync,
    ) -> Result<Committed> {
        let mut guard = self.state.lock().await;
        if guard.is_none() {
            let state = make(&self.place, &self.shape, &self.spec, self.clock.as_ref()).await?;
            self.judge(None, &state)?;
            *guard = Some(state);
        }
        let Some(state) = guard.as_mut() else { return Err(Error::bug("a table that was made is not there")) };
        let id = state.metadata.id.clone();
        let identified = Identified { transactions, info };
        let judge = |state: &TableState| self.judge(Some(&id), state);
        let (rules, clock) = (Rules { judge: &judge, decide: &decide }, self.clock.as_ref());
        let Some(keyed) = &self.keyed else {
            if let Some(which) = Which::of(prepared)? {
                let (place, shape) = (&self.place, self.shape.as_ref());
                let known = &mut *self.known.lock().await;
                let mut replace = Replace { place, prepared, which, shape, known, clock };
                return commit::commit(place, state, &identified, &mut replace, clock, rules).await;
            }
            let mut append = Append { prepared, partition_columns: &self.shape.partition_columns };
            return commit::commit(&self.place, state, &identified, &mut append, clock, rules).await;
        };
        if Which::of(prepared)?.is_some() {
            return Err(Error::bug("rows of a keyed table are replaced by their keys"));
        }
        let mut table = keyed.table.lock().await;
        let changes = table.changes(prepared).await?;
        let mut change = KeyedChange::new(&mut table, prepared, &changes, clock);
        let committed = commit::commit(&self.place, state, &identified, &mut change, clock, rules).await;
        match committed {
            Ok(Committed::Now { version }) => change.committed(version),
            Ok(Committed::Before) => {}
            Err(_) => table.put_back(changes),
        }
        committed
    }

    /// Puts small files together and is rid of marked rows, where it is worth it in a keyed table that this sink has just
    /// committed to: for writers that commit once and are gone.
    pub async fn keep_in_shape(&self) -> Result<()> {
        let (Some(keyed), least) = (&self.keyed, self.options.compact_files) else { return Ok(()) };
        let sequenced = self.spec.key.as_ref().is_some_and(|key| key.sequence_by.is_some());
        let due = keyed.table.lock().await.live().is_some_and(|live| self.compaction().are_due(live, sequenced, least));
        if least == 0 || !due {
            return Ok(());
        }
        self.compact(&|_| least, upkeep::all_cores()).await
    }

    fn compaction(&self) -> CompactOptions {
        CompactOptions { target_file_size: self.options.target_file_size, ..CompactOptions::default() }
    }

    async fn compact(&self, least: &(dyn Fn(&Key) -> usize + Sync), at_once: usize) -> Result<()> {
        let (options, clock) = (self.compaction(), self.clock.as_ref());
        let done = upkeep::compact_where(&self.place, &self.location, options, least, at_once, clock).await?;
        if let Some(version) = done.version {
            let (files, new_files) = (done.files, done.new_files);
            tracing::info!(table = self.location, version, files, new_files, "small files put together");
        }
        Ok(())
    }

    /// Errors unless the table still is the one that the shape was made for.
    fn judge(&self, id: Option<&str>, state: &TableState) -> Result<()> {
        let location = &self.location;
        if let Some(id) = id.filter(|id| *id != state.metadata.id) {
            return Err(Error::stopped(format!(
                "table {location} was made anew while the job ran: its id is {}, and was {id}",
                state.metadata.id
            )));
        }
        check_owner(location, &self.spec, state)?;
        features::check_appendable(location, &state.protocol, &state.metadata)?;
        if let Some(keyed) = &self.keyed {
            keyed.check(&state.metadata)?;
        }
        let schema = state.schema(&self.place)?;
        let now = Shape::of_existing(location, schema, &state.metadata.partition_columns, &self.spec)?;
        if now.file_schema != self.shape.file_schema || now.partition_columns != self.shape.partition_columns {
            return Err(Error::stopped(format!(
                "the columns of table {location} were changed while the job ran (version {}); run it again",
                state.version
            )));
        }
        Ok(())
    }

    async fn verify_file(&self, file: &WrittenFile) -> Result<()> {
        let found = match self.place.store.head(&self.place.at(&file.path)?).await {
            Ok(meta) => Some(meta.size),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(e) => return Err(Error::storage("cannot look for", format!("{}{}", self.place.url, file.path), e)),
        };
        if found == Some(file.size) {
            return Ok(());
        }
        let what = found.map_or("is gone".to_string(), |size| format!("has {size} bytes, not {}", file.size));
        Err(Error::stopped(format!(
            "{}{} {what}: it was written for a commit that is to be redone; restore it, or build the view anew \
             (CREATE OR REPLACE)",
            self.place.url, file.path
        )))
    }

    /// Brings the state up to date, also from a table that another made meanwhile.
    async fn refreshed(&self, state: &mut Option<TableState>) -> Result<()> {
        match state {
            Some(state) => {
                let came = state.refresh(&self.place).await?;
                if let Some(keyed) = &self.keyed {
                    keyed.table.lock().await.follow(&came);
                }
                Ok(())
            }
            None => {
                *state = TableState::load(&self.place).await?;
                state.as_ref().map_or(Ok(()), |state| self.judge(None, state))
            }
        }
    }
}

#[async_trait]
impl Sink for DeltaSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self) -> &str {
        &self.location
    }

    fn writer(&self) -> Result<Arc<dyn EpochWriter>> {
        let id = self.clock.id();
        if let Some(keyed) = &self.keyed {
            return Ok(keyed.writer(&self.place, &self.shape, &self.options, id));
        }
        let encoding = Encoding::new(self.place.clone(), self.shape.clone(), &self.options, id);
        Ok(Arc::new(DeltaEpochWriter::new(Arc::new(encoding), self.options.lanes)))
    }

    async fn commit(
        &self,
        identity: &CommitIdentity,
        prepared: &PreparedCommit,
        info: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Committed> {
        let mut transactions = vec![transaction(&identity.application, identity.epoch)?];
        let mut info = info.clone();
        if let Some(archived) = &prepared.archived {
            transactions.extend(archive::transactions(archived));
            info.insert(archive::ARCHIVED.to_string(), archive::recorded(archived)?);
        }
        let decide = |state: &TableState| match state.transactions.get(&identity.application) {
            Some(odd) if *odd < 0 => {
                CommitDecision::Stop(format!("its transaction record says {odd}, which no epoch is"))
            }
            found => {
                let found = found.and_then(|v| u64::try_from(*v).ok());
                match (decide_commit(identity.epoch, identity.after, found), &prepared.archived) {
                    (CommitDecision::Commit, Some(archived)) => archive::decide(archived, &state.transactions),
                    (decided, _) => decided,
                }
            }
        };
        let committed = self.append(transactions, prepared, &info, decide).await?;
        self.shape_up.committed(prepared.files.iter().map(|file| self.shape.key_of(&file.values)));
        Ok(committed)
    }

    async fn last_committed(&self, application: &str) -> Result<Option<LastCommit>> {
        let mut guard = self.state.lock().await;
        self.refreshed(&mut guard).await?;
        let Some(state) = guard.as_ref() else { return Ok(None) };
        let Some(version) = state.transactions.get(application).copied() else { return Ok(None) };
        let epoch = u64::try_from(version).map_err(|_| {
            Error::stopped(format!("table {}: {application} stands at {version}, which no epoch is", self.location))
        })?;
        let found = commit::find(&self.place, state, application, version).await?;
        Ok(Some(LastCommit { epoch, info: found.as_ref().map(commit::info).unwrap_or_default() }))
    }

    async fn archived(&self, archive: &str) -> Result<BTreeMap<Part, i64>> {
        let mut guard = self.state.lock().await;
        self.refreshed(&mut guard).await?;
        let Some(state) = guard.as_ref() else { return Ok(BTreeMap::new()) };
        let records = Records { transactions: state.transactions.clone(), ..Records::default() };
        Ok(log::parts_of(&records, archive))
    }

    async fn tidy(&self) -> Result<()> {
        let files = self.options.compact_files;
        let Some(open) = self.shape_up.due(files) else { return Ok(()) };
        let least = |partition: &Key| if open.contains(partition) { files.saturating_mul(OPEN) } else { files };
        // Beside a job there is memory for one at a time.
        self.compact(&least, 1).await
    }

    async fn verify(&self, prepared: &PreparedCommit) -> Result<()> {
        let checks: Vec<BoxFuture<'_, Result<()>>> =
            prepared.files.iter().map(|file| self.verify_file(file).boxed()).collect();
        futures::stream::iter(checks).buffer_unordered(CONCURRENT).try_collect().await
    }
}

/// Makes a table, and loads whichever is there then.
async fn make(place: &Place, shape: &Shape, spec: &TableSpec, clock: &dyn Clock) -> Result<TableState> {
    let created = create(place, shape, spec, clock).await;
    match (TableState::load(place).await?, created) {
        (Some(state), _) => Ok(state),
        (None, Err(e)) => Err(e),
        (None, Ok(())) => Err(Error::stopped(format!("table {} was made and is gone again", place.url))),
    }
}

fn check_owner(location: &str, spec: &TableSpec, state: &TableState) -> Result<()> {
    let Some(owner) = spec.owner else { return Ok(()) };
    let found = state.metadata.configuration.get(INCARNATION);
    if found.and_then(|text| text.parse::<Uuid>().ok()) == Some(owner) {
        return Ok(());
    }
    let whose = match found {
        Some(other) => {
            format!("is the result of another view or of an earlier build of this one (incarnation {other})")
        }
        None => "was not made by this view".to_string(),
    };
    Err(Error::stopped(format!(
        "table {location} {whose}; this is incarnation {owner}. Give another location, drop the table, or replace it \
         on purpose (CREATE OR REPLACE)"
    )))
}

fn transaction(application: &str, version: u64) -> Result<Transaction> {
    let version = i64::try_from(version).map_err(|_| Error::bug(format!("{application}: version {version}")))?;
    Ok(Transaction::new(application, version))
}
