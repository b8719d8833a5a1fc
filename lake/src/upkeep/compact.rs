//! Compaction: small files, and files with many marked rows, become few without any.
//!
//! What another writer does meanwhile is respected: rows that it marks in a file that was rewritten are marked in the new
//! one, found by counting; a file that it removed, or brought rows back in, leaves its whole bin as it was.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use serde_json::{Value, json};
use watershed_core::clock::Clock;
use watershed_core::epoch::CommitDecision;
use watershed_core::sink::Committed;
use watershed_core::{Error, Result};

use super::choose::{Candidate, Worth, choose};
use super::order::{RowOrder, TAG};
use super::rewrite::{Rewritten, rewrite};
use crate::history::statistics_of;
use crate::keyed::live::{LiveFile, LiveFiles, identity};
use crate::keyed::{KeySpec, SEQUENCE_BY, vectors};
use crate::log::{LogCommit, Refreshed, TableState, features};
use crate::stores::{Place, Stores};
use crate::table::SinkOptions;
use crate::table::commit::{self, Actions, Change, Conflict, Identified, Rules, add, body};
use crate::table::encode::Encoding;
use crate::table::shape::{Key, Shape};

/// Bins that are rewritten at once, at most.
const MOST_BINS: usize = 4;

/// What is compacted.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Bytes that files shall have; those of less than half are put together.
    pub target_file_size: u64,
    /// Part of marked rows from which on a file is rewritten whatever its size.
    pub dead_rows: f64,
    /// Puts the rows of whole partitions in order.
    pub order: Option<RowOrder>,
}

impl Default for CompactOptions {
    fn default() -> Self {
        CompactOptions { target_file_size: 128 << 20, dead_rows: 0.2, order: None }
    }
}

impl CompactOptions {
    fn worth(&self, sequenced: bool) -> Worth {
        let order = self.order.as_ref().map(RowOrder::tag);
        Worth { target: self.target_file_size, dead: self.dead_rows, keep_dead: sequenced, order }
    }

    /// Whether a table's files are worth it.
    pub(crate) fn are_due(&self, live: &LiveFiles, sequenced: bool, least: usize) -> bool {
        !choose(candidates(live), &self.worth(sequenced), |_| least).is_empty()
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that were rewritten, with their bytes and marked rows.
    pub files: u64,
    pub bytes: u64,
    pub marked: u64,
    /// Files that took their place.
    pub new_files: u64,
    pub new_bytes: u64,
    /// Files that were rewritten in vain, because another changed the table meanwhile.
    pub yielded: u64,
    /// The version that it made; `None`: there was nothing to do, or all was in vain.
    pub version: Option<u64>,
}

/// Compacts a table.
pub async fn compact(stores: &Stores, location: &str, options: CompactOptions, clock: &dyn Clock) -> Result<Compacted> {
    compact_where(&stores.open(location)?, location, options, &|_| 0, all_cores(), clock).await
}

/// Bins that are rewritten at once where nothing else goes on: each has an encoder, which is a task of its own.
pub(crate) fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_BINS)
}

/// Compacts those partitions of a table that have a file to be rewritten for its marks, or at least so many small ones. `at_once`
/// bins are rewritten side by side, each of which holds row groups in memory.
pub(crate) async fn compact_where(
    place: &Place,
    location: &str,
    options: CompactOptions,
    least: &(dyn Fn(&Key) -> usize + Sync),
    at_once: usize,
    clock: &dyn Clock,
) -> Result<Compacted> {
    let none = || Error::input(format!("{location} is not a Delta table: it has no _delta_log"));
    let mut state = TableState::load(place).await?.ok_or_else(none)?;
    features::check_appendable(location, &state.protocol, &state.metadata)?;
    let columns = &state.metadata.partition_columns;
    let live = LiveFiles::load(place, state.version, columns).await?;
    let schema = state.schema(place)?;
    let shape = Arc::new(Shape::of_table(location, schema, columns, KeySpec::of(&state.metadata.configuration))?);
    if let Some(order) = &options.order {
        order.check(location, &shape.file_schema)?;
    }
    let tag = options.order.as_ref().map(RowOrder::tag);
    let sequenced = state.metadata.configuration.contains_key(SEQUENCE_BY);
    let bins = choose(candidates(&live), &options.worth(sequenced), least);
    if bins.is_empty() {
        return Ok(Compacted::default());
    }
    // A bin may come out a little larger than it was thought to, and is still one file.
    let sink = SinkOptions { target_file_size: options.target_file_size.saturating_mul(2), ..SinkOptions::default() };
    let encoding = Arc::new(Encoding::new(place.clone(), shape.clone(), &sink, clock.id()).named("compacted"));
    let rewriting = bins.into_iter().map(|bin| {
        let files: Vec<_> = bin.iter().filter_map(|file| live.get(&file.path).cloned()).collect();
        let (encoding, order) = (&encoding, options.order.as_ref());
        async move { rewrite(place, encoding, &files, order).await }
    });
    let rewritten: Vec<Rewritten> = futures::stream::iter(rewriting).buffered(at_once).try_collect().await?;
    let (id, version) = (state.metadata.id.clone(), state.version);
    let curve = match &options.order {
        Some(RowOrder::ZOrder(columns)) => columns.clone(),
        _ => vec![],
    };
    let mut change = Compaction { place, rewritten, tag, curve, live, version, clock, report: Compacted::default() };
    let judge = |now: &TableState| {
        features::check_appendable(location, &now.protocol, &now.metadata)?;
        if now.metadata.id != id || now.schema(place)? != shape.table_schema {
            return Err(Error::stopped(format!(
                "table {location} was made anew or its columns were changed while it was compacted; compact it again"
            )));
        }
        Ok(())
    };
    let (info, decide) = (BTreeMap::new(), |_: &TableState| CommitDecision::Commit);
    let identified = Identified { transactions: vec![], info: &info };
    let rules = Rules { judge: &judge, decide: &decide };
    let committed = commit::commit(place, &mut state, &identified, &mut change, clock, rules).await;
    match committed {
        Ok(Committed::Now { version }) => {
            // What the log says of the old files is history from here on; readers need not replay it.
            if let Err(failure) = commit::write_checkpoint(place, version).await {
                tracing::warn!(table = location, version, "no log checkpoint was written: {failure}");
            }
            Ok(Compacted { version: Some(version), ..change.report })
        }
        Ok(Committed::Before) => Err(Error::bug("a compaction that was done before")),
        Err(_) if change.is_in_vain() => Ok(Compacted { yielded: change.report.yielded, ..Compacted::default() }),
        Err(e) => Err(e),
    }
}

fn candidates(live: &LiveFiles) -> Vec<Candidate> {
    let of = |file: &Arc<crate::keyed::live::LiveFile>| {
        let marked = file.add.deletion_vector.as_ref().map_or(0, |v| u64::try_from(v.cardinality).unwrap_or_default());
        Candidate {
            path: file.add.path.clone(),
            partition: file.partition.clone(),
            bytes: u64::try_from(file.add.size).unwrap_or_default(),
            rows: statistics_of(file.add.stats.as_deref(), None).0,
            marked,
            order: file.add.tags.as_ref().and_then(|tags| tags.get(TAG)?.clone()),
        }
    };
    live.iter().map(of).collect()
}

/// Rewritten files on their way into the table.
struct Compaction<'a> {
    place: &'a Place,
    rewritten: Vec<Rewritten>,
    /// How rows were put in order, and the columns of a Z-order.
    tag: Option<String>,
    curve: Vec<String>,
    /// At `version`.
    live: LiveFiles,
    version: u64,
    clock: &'a dyn Clock,
    report: Compacted,
}

impl Compaction<'_> {
    fn is_in_vain(&self) -> bool {
        self.report.files == 0 && self.report.yielded > 0
    }

    /// A bin's files as they are now, with their marks; `None` if one is gone, or has rows back that were marked when it was
    /// read and are not in the new files.
    async fn still_there(&self, bin: &Rewritten) -> Result<Option<Vec<(Arc<LiveFile>, Arc<RoaringTreemap>)>>> {
        let mut there = Vec::with_capacity(bin.inputs.len());
        for input in &bin.inputs {
            let Some(file) = self.live.get(&input.file.add.path) else { return Ok(None) };
            let marks = match identity(&file.add.deletion_vector) == identity(&input.file.add.deletion_vector) {
                true => input.marks.clone(),
                false => file.marks(self.place).await?,
            };
            if !input.marks.is_subset(&marks) {
                return Ok(None);
            }
            there.push((file.clone(), marks));
        }
        Ok(Some(there))
    }

    fn follow_commit(&mut self, commit: &LogCommit) {
        self.live.apply(commit);
        self.version = commit.version;
    }
}

#[async_trait]
impl Change for Compaction<'_> {
    async fn follow(&mut self, _: &[&str], came: &Refreshed) -> Result<Conflict> {
        let Refreshed::Commits(commits) = came else {
            return Err(Error::stopped(format!(
                "the log of table {} was cleaned up or made anew while it was compacted; compact it again",
                self.place.url
            )));
        };
        let table = commits.iter().any(|c| c.metadata.is_some() || c.protocol.is_some());
        commits.iter().for_each(|commit| self.follow_commit(commit));
        Ok(if table { Conflict::Table } else { Conflict::None })
    }

    async fn actions(&mut self, state: &TableState, now: i64) -> Result<Actions> {
        if self.version != state.version {
            return Err(Error::bug(format!("files of version {} beside version {}", self.version, state.version)));
        }
        let mut report = Compacted::default();
        let (mut actions, mut marked, mut vectors_of): (Vec<(&'static str, Value)>, Vec<Add>, Vec<_>) =
            (vec![], vec![], vec![]);
        for bin in &self.rewritten {
            let Some(there) = self.still_there(bin).await? else {
                report.yielded += bin.inputs.len() as u64;
                continue;
            };
            let mut carried = vec![RoaringTreemap::new(); bin.outputs.len()];
            for (i, (input, (file, marks))) in bin.inputs.iter().zip(there).enumerate() {
                actions.push(("remove", body(&file.remove_action(now, false))?));
                report.files += 1;
                report.bytes += u64::try_from(file.add.size).unwrap_or_default();
                report.marked += input.marks.len();
                for (all, more) in carried.iter_mut().zip(bin.carried(i, &marks)) {
                    *all |= more;
                }
            }
            for (output, rows) in bin.outputs.iter().zip(carried) {
                report.new_files += 1;
                report.new_bytes += output.size;
                let tags = self.tag.clone().map(|tag| HashMap::from([(TAG.to_string(), Some(tag))]));
                let add = Add { data_change: false, tags, ..add(output, now)? };
                if rows.is_empty() {
                    actions.push(("add", body(&add)?));
                } else {
                    let stats = add.stats.as_deref().map(vectors::loose);
                    marked.push(Add { stats, ..add });
                    vectors_of.push(Arc::new(rows));
                }
            }
        }
        self.report = report;
        if actions.is_empty() {
            return Err(Error::stopped("all files that were compacted have been changed meanwhile"));
        }
        let written = vectors::write(self.place, self.clock.id(), &vectors_of).await?;
        for (add, vector) in marked.into_iter().zip(written) {
            actions.push(("add", body(&Add { deletion_vector: Some(vector), ..add })?));
        }
        Ok(Actions {
            operation: "OPTIMIZE",
            parameters: json!({"predicate": "[]", "zOrderBy": json!(self.curve).to_string()}),
            blind: false,
            actions,
        })
    }
}
