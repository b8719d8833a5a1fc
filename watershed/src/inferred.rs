//! The columns of a log that nobody declared, learnt once, when its source is created.
//!
//! ```text
//!  CREATE SOURCE ─▶ the newest messages of each part ─ formats ─▶ columns ─▶ the catalog's entry
//! ```
//!
//! They are fixed then, beside the statement: a job means the same whatever messages come, and a run asks nobody. What a format knows
//! without messages, by descriptors for one, is not kept but read when a run begins, so that both change together; unless
//! there are columns of the message itself, which are declared beside.
//!
//! The newest messages are asked, since they have the fields that were added last; what older ones lack is NULL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use watershed_core::tail::{Fetched, Messages, Part, Tail};
use watershed_core::{Error, Result};
use watershed_formats::FormatOptions;

use crate::sources::Declared;

/// What the columns are called among what is fixed in a catalog's entry.
pub(crate) const FIXED: &str = "columns";

/// Messages of a sample, unless `sample` says otherwise, and the most.
const MESSAGES: usize = 1000;
const MOST: usize = 1_000_000;

/// Bytes of a sample beyond which no more is fetched.
const BYTES: u64 = 64 << 20;

/// Fields that are no columns of which is told.
const SHOWN: usize = 10;

/// How long a log may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Columns that were inferred.
#[derive(Debug)]
pub(crate) struct Inferred {
    /// All of the source, as a statement has them.
    pub(crate) columns: String,
    /// What is told of them.
    pub(crate) told: String,
}

/// How many messages are asked, as a user says it.
pub(crate) fn sample(text: &str, what: &str) -> Result<usize> {
    text.trim().parse().ok().filter(|count| (1..=MOST).contains(count)).ok_or_else(|| {
        Error::sql(format!("{what}: sample = '{text}': give how many messages are looked at, from 1 to {MOST}"))
    })
}

/// Infers what a source does not declare; `None`: it declares its columns, or has them from elsewhere.
pub(crate) async fn infer(source: &Declared) -> Result<Option<Inferred>> {
    let found = match undeclared(source)? {
        Some(format) => columns(source, format).await.map_err(|e| advised(source, e))?,
        None => None,
    };
    match (&found, source.sample) {
        (None, Some(_)) => Err(Error::sql(format!(
            "source {}: `sample` is for a log whose columns are inferred from its messages, and this one has them already",
            source.name
        ))),
        _ => Ok(found),
    }
}

/// The format of the log whose columns are not declared.
fn undeclared(source: &Declared) -> Result<Option<FormatOptions>> {
    let (None, Some(tail)) = (&source.lake, &source.tail) else { return Ok(None) };
    if tail.is_generated() {
        return Ok(None);
    }
    let format = tail.format(&source.variables)?;
    let is_own = |name: &str| watershed_formats::is_own(&format.format, name);
    let all_own = source.columns.as_ref().is_none_or(|columns| columns.fields().iter().all(|f| is_own(f.name())));
    Ok(all_own.then_some(format))
}

async fn columns(source: &Declared, format: FormatOptions) -> Result<Option<Inferred>> {
    let (inferred, from) = match watershed_formats::columns(&format)? {
        Some(_) if source.columns.is_none() => return Ok(None),
        Some(known) => (known.fields().clone(), format!("by format '{}'", format.format)),
        None => of_messages(source, format.clone()).await?,
    };
    let declared = source.columns.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
    let more = inferred.iter().filter(|field| declared.index_of(field.name()).is_err());
    let all: SchemaRef = Arc::new(Schema::new(declared.fields().iter().chain(more).cloned().collect::<Vec<_>>()));
    check_time(source, &all)?;
    let columns = watershed_plan::columns_text(&all);
    // Formats name what is within lists and maps in their own ways.
    match watershed_plan::columns_of(&columns).map(|again| watershed_plan::columns_text(&again)) {
        Ok(again) if again == columns => {
            let told = format!("columns of source {}, {from}: {columns}", source.name);
            Ok(Some(Inferred { columns, told }))
        }
        _ => Err(Error::input(format!("not all of these columns can be written down: {columns}"))),
    }
}

/// What a sample says, and what is told of it.
async fn of_messages(source: &Declared, format: FormatOptions) -> Result<(Fields, String)> {
    let Some(tail) = &source.tail else { return Err(Error::bug("there is no log to take a sample of")) };
    let log = tail.log(&source.variables)?;
    let messages = newest(log.as_ref(), source.sample.unwrap_or(MESSAGES)).await?;
    if messages.iter().all(|messages| messages.payloads.iter().all(|payload| payload.is_none())) {
        return Err(Error::input(format!("{} has no messages yet that would say what they hold", log.location())));
    }
    let time = source.time_column.clone();
    let inferring = spawn_blocking(move || watershed_formats::infer(&format, &messages, time.as_deref()));
    let inferred = inferring.await.map_err(|e| Error::bug(format!("inferring columns ended early: {e}")))??;
    let mut from = format!("from {} messages", inferred.read);
    if inferred.malformed > 0 {
        from += &format!(" ({} could not be read)", inferred.malformed);
    }
    if !inferred.left_out.is_empty() {
        let (count, shown) = (inferred.left_out.len(), &inferred.left_out[..inferred.left_out.len().min(SHOWN)]);
        let more = if count > SHOWN { format!(", and {} more", count - SHOWN) } else { String::new() };
        from += &format!(", without {}{more}", shown.join(", and "));
    }
    Ok((inferred.columns, from))
}

/// That the watermark speaks of a time.
fn check_time(source: &Declared, columns: &Schema) -> Result<()> {
    let Some(time) = &source.time_column else { return Ok(()) };
    let Ok(field) = columns.field_with_name(time) else {
        let names: Vec<&str> = columns.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Error::input(format!("the watermark speaks of {time}, and there are {}", names.join(", "))));
    };
    if matches!(field.data_type(), DataType::Timestamp(..)) {
        return Ok(());
    }
    Err(Error::input(format!(
        "the watermark speaks of {time}, which is no TIMESTAMP but {}; if it is a number since 1970, say of what unit \
         (json.timestamp = 'ms')",
        watershed_plan::sql_type(field.data_type())
    )))
}

/// What to do where nothing can be inferred.
fn advised(source: &Declared, e: Error) -> Error {
    let name = &source.name;
    let advice = format!("declare the columns: CREATE SOURCE {name} (ts TIMESTAMP, …, WATERMARK FOR ts AS ts) …");
    let of = format!("source {name} declares no columns of its messages");
    match e {
        Error::Input(message) => Error::Input(format!("{of}, and they cannot be inferred: {message}; {advice}")),
        Error::Stopped(message) => Error::Stopped(format!("{message}; {of}: {advice}")),
        Error::Storage { what, location, effect, source } => {
            Error::Storage { what, location, effect, source: format!("{source}; {of}: try again, or {advice}").into() }
        }
        other => other,
    }
}

/// The newest messages of a log, as many of each part.
async fn newest(log: &dyn Tail, most: usize) -> Result<Vec<Messages>> {
    let mut parts = log.look().await?.parts;
    parts.retain(|_, has| has.start < has.end);
    let each = most.div_ceil(parts.len().max(1));
    let ends: BTreeMap<Part, i64> = parts.iter().map(|(part, has)| (*part, has.end)).collect();
    let back = |end: i64| end.saturating_sub(i64::try_from(each).unwrap_or(i64::MAX));
    let from = parts.iter().map(|(part, has)| (*part, has.start.max(back(has.end)))).collect();
    let mut found = read(log, &from, &ends, each).await?;
    if found.is_empty() {
        // The last offsets may all be gaps: of transactions, or of what compaction removed.
        let from = parts.into_iter().map(|(part, has)| (part, has.start)).collect();
        found = read(log, &from, &ends, each).await?;
    }
    // Those of a part are in order; which part answers first is chance.
    found.sort_by_key(|messages| messages.part);
    Ok(found)
}

/// At most so many messages of each part, of those that there were.
async fn read(
    log: &dyn Tail,
    from: &BTreeMap<Part, i64>,
    ends: &BTreeMap<Part, i64>,
    each: usize,
) -> Result<Vec<Messages>> {
    let mut found = vec![];
    let mut left: BTreeMap<Part, (usize, u64)> =
        from.keys().map(|part| (*part, (each, BYTES / from.len() as u64))).collect();
    if left.is_empty() {
        return Ok(found);
    }
    let mut reader = log.read(from).await?;
    while !left.is_empty() {
        let fetched = timeout(PATIENCE, reader.next()).await.map_err(|_| {
            let silence = format!("nothing came for {} seconds", PATIENCE.as_secs());
            Error::storage("cannot read a sample of", log.location(), silence)
        })??;
        for messages in fetched.into_iter().filter_map(Fetched::messages) {
            let (part, end) = (messages.part, ends.get(&messages.part).copied().unwrap_or(i64::MAX));
            let Some((wanted, bytes)) = left.get_mut(&part) else { continue };
            let known = messages.offsets.values().partition_point(|offset| *offset < end);
            let some = messages.slice(0, known.min(*wanted));
            (*wanted, *bytes) = (*wanted - some.len(), bytes.saturating_sub(some.bytes()));
            if *wanted == 0 || *bytes == 0 || messages.at_end || messages.next >= end {
                left.remove(&part);
            }
            if !some.is_empty() {
                found.push(some);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_number_of_messages() {
        assert_eq!(sample(" 10 ", "source s").unwrap(), 10);
        for none in ["0", "-1", "all", "1000001"] {
            let said = sample(none, "source s").unwrap_err().to_string();
            assert!(said.contains("from 1 to 1000000"), "{said}");
        }
    }
}
