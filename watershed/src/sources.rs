//! `CREATE SOURCE`: from what was declared to a history that can be read.
//!
//! A source is opened when something reads it and not before, so that a catalog with a thousand sources costs nothing.

use std::sync::Arc;

use arrow::datatypes::DataType;
use watershed_core::history::{History, Layout};
use watershed_core::time::{Grain, Span, Zone};
use watershed_core::{Error, Result};
use watershed_lake::{HistoryOptions, Stores, open_history};
use watershed_plan::{CreateSource, SourceTable};

use crate::layers::{Layers, Scope, With};

/// Options of `CREATE SOURCE … WITH` besides settings and those of the object store.
const OWN: [&str; 3] = ["lake", "tail", "format"];

/// A declared source, checked.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) time_column: Option<String>,
    pub(crate) delay: Span,
    /// Where its history lies, as written.
    pub(crate) lake: String,
    pub(crate) stores: Stores,
    bounded: bool,
    max_leak: Option<Span>,
    time_partition: Option<String>,
    time_zone: Option<Zone>,
}

/// A source whose history was opened.
#[derive(Clone)]
pub(crate) struct OpenSource {
    pub(crate) name: String,
    pub(crate) time_column: String,
    pub(crate) delay: Span,
    pub(crate) bounded: bool,
    pub(crate) max_leak: Span,
    pub(crate) history: Arc<dyn History>,
    pub(crate) stores: Stores,
}

impl Declared {
    /// Reads the statement's options, under the settings in force.
    pub(crate) fn new(source: &CreateSource, layers: &Layers, stores: &Stores) -> Result<Self> {
        let what = format!("source {}", source.name);
        let with = With::sort(&source.options, &OWN, Scope::Source, &what)?;
        for later in ["tail", "format"] {
            if with.own(later).is_some() {
                return Err(Error::sql(format!(
                    "{what}: `{later}` is not supported yet; a source reads a lake table's history: WITH (lake = 'location')"
                )));
            }
        }
        let lake = with
            .own("lake")
            .ok_or_else(|| Error::sql(format!("{what}: say where its history lies: WITH (lake = 'location')")))?;
        let settings = layers.resolve(&with.settings)?;
        Ok(Declared {
            name: source.name.clone(),
            time_column: source.time_column.clone(),
            delay: source.delay,
            lake: lake.to_string(),
            stores: stores.with_options(with.store.clone()),
            bounded: settings.bounded,
            max_leak: settings.max_leak,
            time_partition: settings.time_partition,
            time_zone: settings.time_zone,
        })
    }

    /// Opens the history; `location` is the catalog's, so that a relative path means what it meant when it was declared.
    pub(crate) async fn open(&self, location: &str) -> Result<OpenSource> {
        let open = async |time_column: Option<String>| {
            let (time_partition, time_zone) = (self.time_partition.clone(), self.time_zone);
            let options = HistoryOptions { time_column, time_partition, time_zone, untimed: false };
            open_history(&self.stores, location, &options).await.map_err(|e| in_source(&self.name, e))
        };
        let time_column = match &self.time_column {
            Some(declared) => declared.clone(),
            None => own_time_column(open(None).await?.layout()).map_err(|e| in_source(&self.name, e))?,
        };
        let history = open(Some(time_column.clone())).await?;
        let grain = history.layout().time_partition.as_ref().map(|(_, grain)| *grain);
        Ok(OpenSource {
            name: self.name.clone(),
            time_column,
            delay: self.delay,
            bounded: self.bounded,
            max_leak: self.max_leak.unwrap_or(default_leak(grain)),
            history,
            stores: self.stores.clone(),
        })
    }
}

impl OpenSource {
    /// What the planner has to know of it.
    pub(crate) fn table(&self) -> SourceTable {
        SourceTable {
            name: self.name.clone(),
            layout: self.layout().clone(),
            time_column: self.time_column.clone(),
            delay: self.delay,
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        self.history.layout()
    }
}

/// The time column of a table whose source names none: the one that its time partition was made from, else its only
/// timestamp.
fn own_time_column(layout: &Layout) -> Result<String> {
    let is_time = |name: &str| {
        let field = layout.file_schema.field_with_name(name);
        field.is_ok_and(|f| matches!(f.data_type(), DataType::Timestamp(..)))
    };
    let partition = layout.time_partition.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default();
    let made_from = Grain::NAMES.iter().find_map(|(grain, _)| partition.strip_suffix(grain)?.strip_suffix('_'));
    if let Some(column) = made_from.filter(|column| is_time(column)) {
        return Ok(column.to_string());
    }
    let times: Vec<&str> =
        layout.file_schema.fields().iter().map(|f| f.name().as_str()).filter(|f| is_time(f)).collect();
    match times[..] {
        [only] => Ok(only.to_string()),
        [] => Err(Error::input(format!("{} has no TIMESTAMP column to be its event time", layout.location))),
        _ => Err(Error::input(format!(
            "which of {} is its event time? Say it: CREATE SOURCE … (WATERMARK FOR {1} AS {1})",
            times.join(", "),
            times[0]
        ))),
    }
}

/// How far rows may leak where nobody said: the grain, at least an hour; a table without time partitions is read at once.
fn default_leak(grain: Option<Grain>) -> Span {
    grain.map_or(Span::HOUR, |grain| grain.span().max(Span::HOUR))
}

/// Says of which source a message is, where that is not plain.
pub(crate) fn in_source(name: &str, e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(format!("source {name}: {message}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema, TimeUnit};

    use super::*;

    #[test]
    fn a_time_column_is_found_or_asked_for() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let layout = |columns: &[&str], partition: Option<&str>| Layout {
            location: "l".into(),
            store: "file:///".into(),
            file_schema: Arc::new(Schema::new(
                columns.iter().map(|c| Field::new(*c, time.clone(), true)).collect::<Vec<_>>(),
            )),
            partition_columns: vec![],
            time_partition: partition.map(|p| (p.to_string(), Grain::Day)),
            stored: None,
            inferred: false,
        };
        assert_eq!(own_time_column(&layout(&["a", "ts"], Some("ts_day"))).unwrap(), "ts");
        assert_eq!(own_time_column(&layout(&["a"], Some("day"))).unwrap(), "a");
        let error = own_time_column(&layout(&["a", "b"], None)).unwrap_err().to_string();
        assert!(error.contains("which of a, b") && error.contains("WATERMARK FOR a AS a"), "{error}");
        assert!(own_time_column(&layout(&[], None)).unwrap_err().to_string().contains("no TIMESTAMP"));
    }
}
