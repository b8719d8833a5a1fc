//! A generated log being read: what is written by now, part by part, and then what comes.
//!
//! Invariant: what a part's next offset is moves only when messages are handed over, so a dropped future loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::array::{BinaryBuilder, Int64Array, TimestampMillisecondArray, new_null_array};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use watershed_core::tail::{Fetched, Messages, Part, TailReader};
use watershed_core::{Error, Result};

use crate::tail::Log;

/// Rows of one part at a time, and of all from which on no further part is asked: making them is a matter of milliseconds,
/// for which others wait.
const OF_A_PART: i64 = 2048;
const OF_ALL: usize = 4096;

/// Between two looks at the clock. So many rows of a fast log come together, and a slow one is not looked at in vain.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(crate) struct GeneratorReader {
    log: Arc<Log>,
    /// Of each part the offset of the next message.
    next: BTreeMap<Part, i64>,
    held: BTreeSet<Part>,
    /// The part that is asked first.
    first: Part,
}

impl GeneratorReader {
    pub(crate) fn new(log: Arc<Log>, from: &BTreeMap<Part, i64>) -> Result<GeneratorReader> {
        let mut reader = GeneratorReader { log, next: BTreeMap::new(), held: BTreeSet::new(), first: 0 };
        reader.begin(from)?;
        Ok(reader)
    }

    fn begin(&mut self, from: &BTreeMap<Part, i64>) -> Result<()> {
        let ends = self.log.pace.ends(self.log.rows());
        for (part, offset) in from {
            let has = ends.get(part).map_or("no such part".to_string(), |end| format!("offsets from 0 to {end}"));
            if !ends.get(part).is_some_and(|end| (0..=*end).contains(offset)) {
                let location = &self.log.location;
                return Err(Error::stopped(format!("{location} has no offset {offset} in part {part}: it has {has}")));
            }
        }
        self.next.extend(from);
        Ok(())
    }

    /// What is written and was not handed over.
    fn written(&self) -> Result<Vec<Messages>> {
        let ends = self.log.pace.ends(self.log.rows());
        let (before, behind): (Vec<_>, Vec<_>) = self.next.iter().partition(|(part, _)| **part < self.first);
        let mut found: Vec<Messages> = vec![];
        for (part, next) in behind.into_iter().chain(before) {
            let end = ends.get(part).copied().unwrap_or(0);
            if *next >= end || self.held.contains(part) {
                continue;
            }
            if found.iter().map(Messages::len).sum::<usize>() >= OF_ALL {
                break;
            }
            found.push(messages(&self.log, *part, *next, end.min(next.saturating_add(OF_A_PART)), end)?);
        }
        Ok(found)
    }

    /// Until there is something again.
    fn pause(&self) -> Duration {
        let rows = self.log.rows();
        if self.log.pace.is_over(rows) {
            return LOOK.1;
        }
        let wait = self.log.pace.written(rows).0.saturating_sub(self.log.clock.now().0);
        Duration::from_micros(u64::try_from(wait).unwrap_or(0)).clamp(LOOK.0, LOOK.1)
    }
}

#[async_trait]
impl TailReader for GeneratorReader {
    async fn next(&mut self) -> Result<Vec<Fetched>> {
        loop {
            let found = self.written()?;
            if let Some(last) = found.last() {
                self.first = last.part + 1;
                self.next.extend(found.iter().map(|messages| (messages.part, messages.next)));
                return Ok(found.into_iter().map(Fetched::from).collect());
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    async fn hold(&mut self, parts: &BTreeSet<Part>) -> Result<()> {
        self.held = parts.clone();
        Ok(())
    }

    async fn add(&mut self, from: &BTreeMap<Part, i64>) -> Result<()> {
        self.begin(from)
    }
}

/// Messages of a part that ends at `end`.
fn messages(log: &Log, part: Part, from: i64, to: i64, end: i64) -> Result<Messages> {
    let rows = usize::try_from(to - from).unwrap_or(0);
    let mut timestamps = Vec::with_capacity(rows);
    let mut payloads = BinaryBuilder::with_capacity(rows, rows * 64);
    let mut payload = String::new();
    for offset in from..to {
        let row = log.pace.row(part, offset);
        let written = log.pace.written(row);
        timestamps.push(written.0.div_euclid(1_000));
        payload.clear();
        log.payloads.write(row, written, &mut payload)?;
        payloads.append_value(&payload);
    }
    Ok(Messages {
        part,
        offsets: Int64Array::from_iter_values(from..to),
        timestamps: TimestampMillisecondArray::from(timestamps),
        keys: new_null_array(&DataType::Binary, rows).as_binary().clone(),
        payloads: payloads.finish(),
        headers: None,
        next: to,
        at_end: to == end,
    })
}
