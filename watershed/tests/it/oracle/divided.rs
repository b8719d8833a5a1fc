//! Cases whose facts are divided at random between a history and a log, over a real broker.
//!
//! Every source becomes a topic with messages in the order of time, but for facts that leak, and a few that are no facts. What
//! stands in it at first is archived in a table, and the case's view reads both as one source, while more is written, archived
//! and forgotten; its runs are stopped after some steps, dropped at some moment, and repeated with other workers. When
//! it has caught up, and at its end, the view is what the batch answer is over all facts but those that it lists as late.
//!
//! Which facts are late depends on how messages came. Each is known by its place in the log, which a late row has, or else the row
//! of the table's file that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::epoch::Manifest;
use watershed_lake::Stores;
use watershed_runtime::Summary;

use super::check::{Case, Missed, Used, Variant, World, answers, manifests, missed, stopped, table, with_missed};
use super::facts::{Dice, Fact, Facts, Layout};
use crate::kafka::broker::Broker;

/// What is no fact, of which there is one in so many messages.
const BROKEN: (u64, &[u8]) = (60, b"{\"n\": ");

/// What becomes of facts that some run has to be without: how many, so that a suite can tell whether it saw any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) late: usize,
    pub(crate) broken: usize,
    pub(crate) forgotten: usize,
    pub(crate) dropped: usize,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Seen) {
        self.late += other.late;
        self.broken += other.broken;
        self.forgotten += other.forgotten;
        self.dropped += other.dropped;
    }
}

/// Whether all of a case's sources can be messages: what is told by folders cannot, nor can columns that are not declared.
pub(crate) fn fits(case: &Case) -> bool {
    let source = |facts: &Facts| {
        let microseconds = facts.time == DataType::Timestamp(TimeUnit::Microsecond, None);
        let columns = || facts.batch([]).schema().fields().iter().all(|f| declared(f.data_type()).is_some());
        matches!(facts.layout, Layout::Hive(_)) && microseconds && !facts.wide && columns()
    };
    case.sources.values().all(source)
}

/// Takes a case through a division that a seed draws.
pub(crate) async fn check(case: &Case, broker: &Broker, seed: u64) -> Result<Seen, String> {
    let (mut dice, mut seen) = (Dice::new(seed), Seen::default());
    let id = SystemClock::default().id().simple().to_string();
    let topic = |(name, facts): (&String, &Facts)| (name.clone(), Topic::new(format!("{id}_{name}"), facts, &mut dice));
    let mut topics: BTreeMap<String, Topic> = case.sources.iter().map(topic).collect();
    topics.values().for_each(|topic| broker.create(&topic.name, topic.partitions, &[]));
    let world = World::new(case);
    let (both, archives) = (text(&world, case, &topics, broker), archives(&world, case, &topics, broker));
    let slice = ["0 s", "36 hours", "10000 days"][dice.below(3) as usize];
    let settings = vec![("commit_interval", "0 s".to_string()), ("slice", slice.to_string())];
    let variant = Variant { name: "divided", settings, stops: vec![], parallelism: vec![2, 1, 3] };
    let stages = 2 + dice.below(3);
    for stage in 0..=stages {
        let last = stage == stages;
        for topic in topics.values_mut() {
            topic.send(broker, if last { u64::MAX } else { dice.below(topic.messages.len() as u64) });
        }
        let engine = world.engine(&variant, stage as usize, Stores::default());
        // What has not begun to read a log may find that the log has forgotten what is in the table.
        if stage == 0 || dice.chance(400) {
            stopped(&engine, &archives, None, false).await.map_err(|e| format!("the archive: {e}"))?;
            if dice.chance(250) && !reads_logs(&world) {
                seen.forgotten += topics.values().map(|topic| topic.forget(broker)).sum::<usize>();
            }
        }
        let run = |steps| stopped(&engine, &both, steps, false);
        match dice.below(3) {
            _ if last => {}
            0 => {
                let steps = 1 + dice.below(6);
                run(Some(steps)).await?;
                continue;
            }
            1 => {
                let some = Duration::from_millis(20 + dice.below(400));
                match tokio::time::timeout(some, run(None)).await {
                    Ok(ended) => drop(ended?),
                    Err(_) => seen.dropped += 1,
                }
                continue;
            }
            _ => {}
        }
        let summary = run(None).await?;
        let used = used(&world, &topics, &summary, &mut seen).await?;
        answers(&world, case, &summary, false, used).await.map_err(|e| format!("caught up, stage {stage}: {e}"))?;
    }
    let ended = stopped(&world.engine(&variant, 0, Stores::default()), &both, None, true).await?;
    let used = used(&world, &topics, &ended, &mut seen).await?;
    answers(&world, case, &ended, true, used).await.map_err(|e| format!("at the end: {e}"))?;
    topics.values().for_each(|topic| broker.delete(&topic.name));
    Ok(seen)
}

/// Partition and offset.
type Place = (i32, i64);

/// A source as messages.
struct Topic {
    name: String,
    partitions: i32,
    /// The facts, with their places.
    columns: RecordBatch,
    places: Vec<Place>,
    /// In the order in which they are written: partition, and which fact, if it is one.
    messages: Vec<(i32, Option<usize>)>,
    /// How many have been written.
    sent: usize,
}

impl Topic {
    fn new(name: String, facts: &Facts, dice: &mut Dice) -> Topic {
        let mut rows: Vec<(i64, &Fact)> = vec![];
        for file in &facts.files {
            let interval: Range<i64> = facts.layout.start(file.partition)..facts.layout.start(file.partition + 1);
            // Facts that are in another partition than their own come at some time of that one's.
            let comes = |ts: Option<i64>, dice: &mut Dice| {
                let other = || interval.start + dice.below((interval.end - interval.start) as u64) as i64;
                ts.filter(|ts| interval.contains(ts)).unwrap_or_else(other)
            };
            rows.extend(file.rows.iter().map(|fact| (comes(fact.ts, dice), fact)));
        }
        rows.sort_by_key(|(comes, _)| *comes);
        let partitions = 1 + dice.below(3);
        let (mut messages, mut places, mut next) = (vec![], vec![], [0; 3]);
        for row in 0..rows.len() {
            let broken = (dice.below(BROKEN.0) == 0).then_some(None);
            for fact in broken.into_iter().chain([Some(row)]) {
                let part = dice.below(partitions) as usize;
                if fact.is_some() {
                    places.push((part as i32, next[part]));
                }
                messages.push((part as i32, fact));
                next[part] += 1;
            }
        }
        let columns = facts.batch(rows.iter().map(|(_, fact)| *fact));
        let parts = Int32Array::from_iter_values(places.iter().map(|place| place.0));
        let columns = with_column(&columns, "_part", Arc::new(parts));
        let offsets = Int64Array::from_iter_values(places.iter().map(|place| place.1));
        let columns = with_column(&columns, "_offset", Arc::new(offsets));
        Topic { name, partitions: partitions as i32, columns, places, messages, sent: 0 }
    }

    /// Writes so many messages more.
    fn send(&mut self, broker: &Broker, more: u64) {
        let until = self.messages.len().min(self.sent.saturating_add(usize::try_from(more).unwrap_or(usize::MAX)));
        // Where it is a message does not know itself.
        let own: Vec<usize> = (0..self.columns.num_columns() - 2).collect();
        let own = self.columns.project(&own).unwrap();
        let message = |(partition, row): &(i32, Option<usize>)| {
            let payload = row.map_or_else(|| BROKEN.1.to_vec(), |row| json(&own.slice(row, 1)));
            (*partition, None, Some(payload), None)
        };
        broker.produce(&self.name, self.messages[self.sent..until].iter().map(message));
        self.sent = until;
    }

    /// Has the log forget all that was written, which was archived; how many messages that are.
    fn forget(&self, broker: &Broker) -> usize {
        for (partition, (_, end)) in broker.ends(&self.name).into_iter().enumerate() {
            broker.delete_records(&self.name, partition as i32, end);
        }
        self.sent
    }

    /// The facts that have been written, by their numbers.
    fn facts(&self) -> impl Iterator<Item = usize> {
        self.messages[..self.sent].iter().filter_map(|(_, row)| *row)
    }

    fn broken(&self) -> usize {
        self.sent - self.facts().count()
    }

    fn declared(&self) -> String {
        let column = |f: &Arc<Field>| format!("{} {}", f.name(), declared(f.data_type()).unwrap());
        self.columns.schema().fields().iter().map(column).collect::<Vec<_>>().join(", ")
    }

    fn names(&self) -> String {
        self.columns.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(", ")
    }
}

/// A type as one declares it.
fn declared(of: &DataType) -> Option<String> {
    Some(match of {
        DataType::Boolean => "BOOLEAN".to_string(),
        DataType::Int8 => "TINYINT".to_string(),
        DataType::Int32 => "INT".to_string(),
        DataType::Int64 => "BIGINT".to_string(),
        DataType::Float32 => "REAL".to_string(),
        DataType::Float64 => "DOUBLE".to_string(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 | DataType::Utf8View => "VARCHAR".to_string(),
        DataType::Date32 => "DATE".to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "TIMESTAMP WITH TIME ZONE".to_string(),
        _ => return None,
    })
}

fn json(row: &RecordBatch) -> Vec<u8> {
    let mut writer = LineDelimitedWriter::new(vec![]);
    writer.write(row).unwrap();
    writer.finish().unwrap();
    writer.into_inner()
}

fn with_column(rows: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
    let columns = rows.columns().iter().cloned().chain([column]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn lake(world: &World, name: &str) -> String {
    world.folder.path().join(format!("{name}_lake")).display().to_string()
}

/// The statements that archive every topic.
fn archives(world: &World, case: &Case, topics: &BTreeMap<String, Topic>, broker: &Broker) -> String {
    let archive = |(name, topic): (&String, &Topic)| {
        let (columns, names) = (topic.declared(), topic.names());
        let by = match case.sources[name].layout {
            Layout::Hive(grain) => format!("{grain:?}").to_lowercase(),
            other => panic!("{other:?} is no layout of an archive"),
        };
        format!(
            "CREATE SOURCE {name}_log ({columns}, WATERMARK FOR ts AS ts)
             WITH (tail = 'kafka://{}/{}', format = 'json');
             CREATE TABLE {name}_table ({columns}) WITH (location = '{}', partition_by = '{by}(ts)');
             INSERT INTO {name}_table SELECT {names} FROM {name}_log;\n",
            broker.address(),
            topic.name,
            lake(world, name)
        )
    };
    topics.iter().map(archive).collect()
}

/// The statements that make the sources and the view.
fn text(world: &World, case: &Case, topics: &BTreeMap<String, Topic>, broker: &Broker) -> String {
    let source = |(name, topic): (&String, &Topic)| {
        let facts = &case.sources[name];
        format!(
            "CREATE SOURCE {name} (WATERMARK FOR ts AS ts{}{})
             WITH (lake = '{}', tail = 'kafka://{}/{}', format = 'json'{}{});\n",
            case.delay,
            facts.delay,
            lake(world, name),
            broker.address(),
            topic.name,
            case.options,
            facts.options
        )
    };
    topics.iter().map(source).collect::<String>() + &world.view_text(case)
}

/// Whether the view's job has come to a log.
fn reads_logs(world: &World) -> bool {
    let view = |path: &std::path::PathBuf| path.to_string_lossy().contains("/v/");
    let newest = manifests(&world.home()).into_iter().rfind(view);
    newest.is_some_and(|newest| {
        let manifest: Manifest = serde_json::from_slice(&std::fs::read(newest).unwrap()).unwrap();
        manifest.positions.values().any(|position| position.tail.is_some())
    })
}

/// All facts that were written, with the windows that each missed.
async fn used(
    world: &World,
    topics: &BTreeMap<String, Topic>,
    summary: &Summary,
    seen: &mut Seen,
) -> Result<Used, String> {
    let (listed, broken) = listed(&format!("{}_late", world.view())).await;
    let counted = (summary.total.late + summary.total.bad) as usize;
    if listed.len() + broken != counted {
        return Err(format!("{} rows are listed, {:?} counted", listed.len() + broken, summary.total));
    }
    let written: usize = topics.values().map(Topic::broken).sum();
    if broken > written {
        return Err(format!("{broken} messages are listed as malformed, and {written} are"));
    }
    seen.broken += broken;
    let mut used = Used::new();
    for (name, topic) in topics {
        let facts: Vec<usize> = topic.facts().collect();
        let missed: Vec<Option<&Missed>> =
            facts.iter().map(|row| listed.get(&(name.clone(), topic.places[*row]))).collect();
        seen.late += missed.iter().flatten().count();
        let rows = |of: &[usize]| {
            let of = UInt64Array::from_iter_values(of.iter().map(|row| *row as u64));
            take_record_batch(&topic.columns, &of).unwrap()
        };
        let kept: Vec<usize> = facts.iter().zip(&missed).filter(|(_, m)| m.is_none()).map(|(row, _)| *row).collect();
        used.insert(name.clone(), (with_missed(&rows(&facts), &missed), rows(&kept)));
    }
    Ok(used)
}

/// The facts that were listed as not used, or not in all of their windows, by source and place, and how many messages are none.
async fn listed(location: &str) -> (BTreeMap<(String, Place), Missed>, usize) {
    let (mut listed, mut broken, mut files) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    if !Path::new(location).join("_delta_log").exists() {
        return (listed, 0);
    }
    let columns = "_source, _reason, _file, _partition, _row, _missed_from, _missed_until";
    for batch in table(location, columns).await {
        let text = [0, 1, 2, 3].map(|i| cast(batch.column(i), &DataType::Utf8).unwrap());
        let rows = batch.column(4).as_primitive::<Int64Type>();
        for (at, missed) in missed(&batch, 5).into_iter().enumerate() {
            let [source, reason, file, part] = text.each_ref().map(|column| column.as_string::<i32>().value(at));
            let row = rows.value(at);
            let place = match file.starts_with("kafka://") {
                true => (part.parse().unwrap(), row),
                false => files.entry(file.to_string()).or_insert_with(|| places(file))[row as usize],
            };
            let again = match reason {
                "malformed" => !broken.insert((source.to_string(), place)),
                _ => listed.insert((source.to_string(), place), missed).is_some(),
            };
            assert!(!again, "{source} {place:?} is listed twice");
        }
    }
    (listed, broken.len())
}

/// The places of the rows of a table's file.
fn places(file: &str) -> Vec<Place> {
    let file = File::open(Path::new("/").join(file)).unwrap();
    let mut places = vec![];
    for rows in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
        let rows = rows.unwrap();
        let [parts, offsets] = ["_part", "_offset"].map(|name| {
            let column = cast(rows.column_by_name(name).unwrap(), &DataType::Int64).unwrap();
            column.as_primitive::<Int64Type>().clone()
        });
        places.extend((0..rows.num_rows()).map(|row| (parts.value(row) as i32, offsets.value(row))));
    }
    places
}
