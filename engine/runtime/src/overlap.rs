//! Facts that a history and its log may both have, told by their keys.
//!
//! Where a history's writer recorded no offsets, the log is begun somewhat before the history ends, by event time. The keys of the
//! history's facts from there on are held in memory, and a fact of the log that has one of them is passed over. Once the log promises
//! that nothing so early comes any more, the keys are dropped, and the position forgets that there were any.
//!
//! This is weaker than a seam by offsets: a fact that came to the log long after it happened may be missed, one that came to both
//! after all this is there twice, and two facts of one key are taken for one.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use futures::TryStreamExt;
use watershed_core::history::Snapshot;
use watershed_core::tail::{LogRows, Overlap};
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};

use crate::feed::micros;
use crate::in_engine;
use crate::job::TailInput;

/// The keys of a history's facts in an overlap.
pub(crate) struct KnownFacts {
    pub(crate) overlap: Overlap,
    /// By how much the log's facts may be late.
    delay: Span,
    /// The key columns, by their index in the log's rows.
    columns: Vec<usize>,
    converter: RowConverter,
    keys: HashSet<Box<[u8]>>,
    /// The event time's index.
    time: usize,
    /// Facts that were passed over.
    pub(crate) passed: u64,
}

impl KnownFacts {
    /// Reads the keys of a version's facts from a time on. Facts beyond `ahead` are bad ones, and say nothing of how long the two
    /// overlap.
    pub(crate) async fn read(
        tail: &TailInput,
        facts: &Snapshot,
        from: EventTime,
        ahead: EventTime,
        delay: Span,
    ) -> Result<KnownFacts> {
        let keys = tail.keys.as_ref().ok_or_else(|| Error::bug("a log overlaps with a history, and has no key"))?;
        let decode = tail.decode.as_ref().ok_or_else(|| Error::bug("rows of a log overlap with a history"))?;
        let schema = decode.schema();
        let column = |name: &String| {
            schema
                .index_of(name)
                .map_err(|_| Error::input(format!("{} has no column {name} to be its key", tail.origin)))
        };
        let columns: Vec<usize> = keys.columns().iter().map(column).collect::<Result<_>>()?;
        let fields = columns.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect();
        let converter =
            RowConverter::new(fields).map_err(|e| Error::input(format!("the key of {}: {e}", tail.origin)))?;
        let overlap = Overlap { from, until: from };
        let mut known =
            KnownFacts { overlap, delay, columns, converter, keys: HashSet::new(), time: tail.time, passed: 0 };
        let mut rows = keys.of(facts, from).await?;
        while let Some(batch) = rows.try_next().await.map_err(in_engine)? {
            let Some((times, keys)) = batch.columns().split_last() else { continue };
            let rows = known.converter.convert_columns(keys).map_err(odd)?;
            known.keys.extend(rows.iter().map(|row| Box::from(row.as_ref())));
            let times = micros(times)?;
            let times = times.as_primitive::<TimestampMicrosecondType>().iter().flatten().map(EventTime);
            let until = &mut known.overlap.until;
            *until = times.filter(|time| *time <= ahead).fold(*until, EventTime::max);
        }
        tracing::info!(
            log = tail.tail.location(),
            from = %from,
            until = %known.overlap.until,
            keys = known.keys.len(),
            "history and log are joined by event time, and facts that both have are told by their keys"
        );
        Ok(known)
    }

    /// Whether nothing comes any more that the history may have, by what the log promises.
    pub(crate) fn is_over(&self, promise: EventTime) -> bool {
        promise.minus(self.delay) > self.overlap.until
    }

    /// The facts that the history does not have. Those without a time are nobody's, and stay.
    pub(crate) fn unknown(&mut self, rows: LogRows) -> Result<LogRows> {
        let times = micros(rows.rows.column(self.time))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let columns: Vec<_> = self.columns.iter().map(|i| Arc::clone(rows.rows.column(*i))).collect();
        let keys = self.converter.convert_columns(&columns).map_err(odd)?;
        let stays = |(time, key): (Option<i64>, arrow::row::Row<'_>)| match time.map(EventTime) {
            None => true,
            Some(time) if time < self.overlap.from => false,
            Some(time) => time > self.overlap.until || !self.keys.contains(key.as_ref()),
        };
        let stays: BooleanArray = times.iter().zip(keys.iter()).map(stays).map(Some).collect();
        let passed = stays.len() - stays.true_count();
        if passed == 0 {
            return Ok(rows);
        }
        self.passed += passed as u64;
        let offsets = filter(&rows.offsets, &stays).map_err(odd)?;
        let left: RecordBatch = filter_record_batch(&rows.rows, &stays).map_err(odd)?;
        Ok(LogRows { rows: left, offsets: offsets.as_primitive::<Int64Type>().clone(), ..rows })
    }
}

fn odd(e: arrow::error::ArrowError) -> Error {
    Error::bug(format!("keys of facts: {e}"))
}
