//! Messages that could not be read, played back once what was wrong is mended: the declaration of their source, as a rule.
//!
//! The list of them is the job's table of late and bad rows. What they hold is decoded by the source as it is declared now, and
//! what that gives is used in an epoch of the job, by which they also leave the list ([`watershed_runtime::play_back`]). A
//! message that somebody has mended in that table is read as it stands there.
//!
//! Refused is what would not come out right: a job that is being run, since its process knows the old declaration; a view that
//! puts windows right from a history which does not have the messages; and a table with a key in which an old message would
//! win over newer ones.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, ListArray, StringArray, TimestampMillisecondArray,
};
use arrow::compute::{cast, partition};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde::Serialize;
use watershed_core::error::Place;
use watershed_core::scan::MESSAGE_COLUMNS;
use watershed_core::settings::Settings;
use watershed_core::tail::{HEADERS, Messages, header_item};
use watershed_core::{Error, Result};
use watershed_plan::{Parsed, Planner, Statement, parse};
use watershed_runtime::record::SILENCE;
use watershed_runtime::{Listed, PlayedBack, ReadList, RunState, last_run};

use crate::batch::in_query;
use crate::catalog::Entry;
use crate::control;
use crate::engine::{Engine, RunOptions, job_named, parallelism};
use crate::execute::Session;
use crate::jobs;
use crate::late;
use crate::relations::statement_of;

/// What the list is called in the queries over it.
const LIST: &str = "rejected";

/// The column of a source that holds the key of a message.
const KEY: &str = "_key";

/// What a replay came to.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    pub job: String,
    /// Nothing was changed.
    pub dry_run: bool,
    #[serde(flatten)]
    pub messages: PlayedBack,
    /// Records of text files that are listed as malformed; those are not played back.
    pub records_of_files: u64,
}

pub(crate) async fn replay(engine: &Engine, job: &str, dry_run: bool) -> Result<Replayed> {
    let options = RunOptions::default();
    let mut session = Session::new(engine, &options).await?;
    let entry = job_named(&session.entries, job)?.clone();
    if !dry_run {
        refuse_if_live(engine, &entry).await?;
    }
    let place = Place { line: 1, column: 1 };
    let parsed = Parsed { text: entry.statement.clone(), statement: statement_of(&entry)?, at: place };
    let jobs::Next::Job(planned) = jobs::plan(&session, &parsed).await? else {
        return Err(Error::bug(format!("job {job} is in the catalog, and is none to be run")));
    };
    jobs::check_playback(&planned)?;
    let list = List {
        engine: engine.clone(),
        settings: session.layers.settings()?,
        location: late::of(engine, &entry),
        sources: planned.logs(),
    };
    if list.sources.is_empty() {
        return Err(Error::input(format!(
            "job {job} reads no log, and what is played back are messages of logs; what is malformed in files is read once it stands \
             mended in a file of its own"
        )));
    }
    let records_of_files = list.records_of_files().await?;
    let made = jobs::make(&mut session, *planned, 1).await?;
    let read: Box<ReadList> = Box::new(move || {
        let list = list.clone();
        async move { list.messages().await }.boxed()
    });
    let messages = jobs::play_back(engine, &options, made, &read, dry_run).await?;
    Ok(Replayed { job: job.to_string(), dry_run, messages, records_of_files })
}

/// A runner would be fenced off, and would have gone on with the declarations that it knows.
async fn refuse_if_live(engine: &Engine, entry: &Entry) -> Result<()> {
    let (store, home) = engine.home();
    let run = last_run(store.as_ref(), home, &entry.name, entry.incarnation).await;
    let heard = |heard: i64| engine.clock().now().0.saturating_sub(heard) <= SILENCE.as_micros() as i64;
    if !run.is_some_and(|run| run.state == RunState::Running && heard(run.heard.0)) {
        return Ok(());
    }
    // It may have been killed since.
    if control::ask(engine, &entry.name, |_| Ok(())).await?.heeded {
        return Err(Error::input(format!(
            "job {0} is being run, with its sources as they were declared when that began; end it first: `watershed stop {0}`",
            entry.name
        )));
    }
    Ok(())
}

/// A job's table of late and bad rows, as a list of messages.
#[derive(Clone)]
struct List {
    engine: Engine,
    settings: Settings,
    location: String,
    /// Those of the job's sources that have a log.
    sources: Vec<String>,
}

impl List {
    /// Those that are malformed, part by part in the order of their offsets.
    async fn messages(self) -> Result<Listed> {
        let table = self.table().await?;
        // Kept are those that the query reads; what it does not read may be NULL.
        let kept = |name| if table.schema().index_of(name).is_ok() { name } else { "NULL" };
        let (keys, headers) = (kept(KEY), kept(HEADERS));
        let sql = format!(
            "SELECT _source, _partition, _row, _written_at, {keys} AS key, _payload, {headers} AS headers FROM {LIST}
             WHERE _reason = 'malformed' AND _source IN ({}) ORDER BY _source, _partition, _row",
            self.quoted()
        );
        let rows = self.query(table, &sql).await?;
        let messages = rows.map(|rows| messages(&rows.map_err(in_query)?));
        Ok(messages.map_ok(|all| futures::stream::iter(all.into_iter().map(Ok))).try_flatten().boxed())
    }

    async fn records_of_files(&self) -> Result<u64> {
        let table = self.table().await?;
        let sql =
            format!("SELECT count(*) FROM {LIST} WHERE _reason = 'malformed' AND _source NOT IN ({})", self.quoted());
        let counted: Vec<RecordBatch> = self.query(table, &sql).await?.try_collect().await.map_err(in_query)?;
        let count = counted.first().filter(|batch| batch.num_rows() > 0);
        let count = count.map(|batch| batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0));
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    async fn table(&self) -> Result<Arc<dyn TableProvider>> {
        let table = late::open(&self.engine, &self.settings, &self.location).await?;
        match MESSAGE_COLUMNS.iter().all(|column| table.schema().index_of(column).is_ok()) {
            true => Ok(table),
            false => Err(Error::stopped(format!(
                "{} lists no messages: it was made when the job read none; build the job anew",
                self.location
            ))),
        }
    }

    fn quoted(&self) -> String {
        let quoted = |name: &String| format!("'{}'", name.replace('\'', "''"));
        self.sources.iter().map(quoted).collect::<Vec<_>>().join(", ")
    }

    async fn query(&self, table: Arc<dyn TableProvider>, sql: &str) -> Result<SendableRecordBatchStream> {
        let mut planner = Planner::new(self.engine.runtime(&self.settings)?, parallelism(&self.settings))?;
        planner.add_table_provider(LIST, table)?;
        let Some(Statement::Query(query)) = parse(sql, &|_| None)?.pop().map(|parsed| parsed.statement) else {
            return Err(Error::bug("a query over rejected rows is none"));
        };
        planner.batch(&query).await?.execute_stream().await.map_err(in_query)
    }
}

/// The messages of some listed rows, by source and part.
fn messages(rows: &RecordBatch) -> Result<Vec<(String, Messages)>> {
    let odd = |e: arrow::error::ArrowError| Error::bug(format!("messages in the table of rejected rows: {e}"));
    let column = |at: usize, of: DataType| -> Result<ArrayRef> { cast(rows.column(at), &of).map_err(odd) };
    let sources: StringArray = column(0, DataType::Utf8)?.as_string().clone();
    let parts: StringArray = column(1, DataType::Utf8)?.as_string().clone();
    let offsets: Int64Array = column(2, DataType::Int64)?.as_primitive().clone();
    // Zones are a way to show an instant.
    let micros = column(3, DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let millis = cast(&micros, &DataType::Timestamp(TimeUnit::Millisecond, None)).map_err(odd)?;
    let timestamps: TimestampMillisecondArray = millis.as_primitive().clone();
    let keys: BinaryArray = column(4, DataType::Binary)?.as_binary().clone();
    let payloads: BinaryArray = column(5, DataType::Binary)?.as_binary().clone();
    let headers = match rows.column(6).data_type() {
        DataType::Null => None,
        _ => Some(column(6, DataType::List(header_item()))?.as_list().clone()),
    };
    let by_part: [ArrayRef; 2] = [Arc::new(sources.clone()), Arc::new(parts.clone())];
    let mut found = vec![];
    for range in partition(&by_part).map_err(odd)?.ranges() {
        let (at, n) = (range.start, range.len());
        let offsets = offsets.slice(at, n);
        let part = parts.is_valid(at).then(|| parts.value(at).parse().ok()).flatten();
        let (Some(part), 0) = (part, offsets.null_count()) else {
            return Err(Error::stopped(format!(
                "a message of {} in the table of rejected rows has no part or no offset",
                sources.value(at)
            )));
        };
        let messages = Messages {
            part,
            next: offsets.value(n - 1) + 1,
            offsets,
            timestamps: timestamps.slice(at, n),
            keys: keys.slice(at, n),
            payloads: payloads.slice(at, n),
            headers: headers.as_ref().map(|headers: &ListArray| headers.slice(at, n)),
            at_end: false,
        };
        found.push((sources.value(at).to_string(), messages));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use arrow::array::{NullArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn rows_of_the_list_are_messages_again() {
        let text = |all: &[&str]| Arc::new(StringArray::from(all.to_vec())) as ArrayRef;
        let written = TimestampMicrosecondArray::from(vec![Some(5_000), None, Some(7_000)]).with_timezone("UTC");
        let rows = RecordBatch::try_from_iter_with_nullable(vec![
            ("_source", text(&["a", "a", "b"]), true),
            ("_partition", text(&["0", "0", "12"]), true),
            ("_row", Arc::new(Int64Array::from(vec![3, 9, 4])) as ArrayRef, true),
            ("_written_at", Arc::new(written) as ArrayRef, true),
            ("key", text(&["k", "l", "m"]), true),
            ("_payload", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"x"), None, Some(b"z")])) as ArrayRef, true),
            ("headers", Arc::new(NullArray::new(3)) as ArrayRef, true),
        ])
        .unwrap();
        let found = messages(&rows).unwrap();
        let [(a, first), (b, second)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((a.as_str(), b.as_str(), first.part, second.part), ("a", "b", 0, 12));
        assert_eq!((first.offsets.values(), first.next, second.next), (&vec![3, 9].into(), 10, 5));
        assert_eq!((first.timestamps.value(0), first.timestamps.is_null(1)), (5, true));
        assert_eq!((first.keys.value(1), first.payloads.is_null(1)), (&b"l"[..], true));
        assert_eq!(second.payloads.value(0), b"z");
        assert!(first.headers.is_none());

        let nowhere = RecordBatch::try_new(rows.schema(), {
            let mut columns = rows.columns().to_vec();
            columns[1] = text(&["0", "day=1", "12"]);
            columns
        });
        assert!(messages(&nowhere.unwrap()).unwrap_err().to_string().contains("has no part"));
    }
}
