//! `CREATE SOURCE`: from what was declared to a history that can be read.
//!
//! A source is opened when something reads it and not before, so that a catalog with a thousand sources costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use watershed_core::clock::Clock;
use watershed_core::history::{History, Layout, NoHistory};
use watershed_core::time::{Grain, Span, Zone};
use watershed_core::{Error, EventTime, Result};
use watershed_lake::{HistoryOptions, Stores, open_history};
use watershed_plan::{CreateSource, SourceTable};
use watershed_runtime::Input;

use crate::chained::{CHANGES, DeclaredChanges};
use crate::engine::{Engine, shown};
use crate::folders::DeclaredFiles;
use crate::inferred;
use crate::layers::{Layers, Scope, With};
use crate::tails::{DeclaredTail, OpenTail};

/// Options of `CREATE SOURCE … WITH` besides settings and those of the object store.
const OWN: [&str; 8] = ["lake", "tail", "format", "start", "archive", "key", "primary_key", "sample"];

/// The tail of a source whose table's commits are read as they come.
const COMMITS: &str = "commits";

/// A declared source, checked.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) time_column: Option<String>,
    pub(crate) delay: Span,
    /// Where its history lies, as written.
    pub(crate) lake: Option<String>,
    pub(crate) tail: Option<DeclaredTail>,
    /// Its tail is what is committed to its table.
    follow: bool,
    /// Its tail, and all of it, is what becomes of its table.
    changes: Option<DeclaredChanges>,
    /// Its history is a folder of text files.
    files: Option<DeclaredFiles>,
    /// Who reads it needs no order.
    unordered: bool,
    /// Of a log without a history; `None`: its format says.
    pub(crate) columns: Option<SchemaRef>,
    /// How many messages are asked for columns that are not declared.
    pub(crate) sample: Option<usize>,
    pub(crate) stores: Stores,
    bounded: bool,
    max_leak: Option<Span>,
    time_partition: Option<String>,
    time_zone: Option<Zone>,
    pub(crate) variables: Variables,
    clock: Arc<dyn Clock>,
    /// When it was created.
    made: EventTime,
}

/// What secrets in a statement stand for.
pub(crate) type Variables = BTreeMap<String, String>;

/// A source whose history was opened.
#[derive(Clone)]
pub(crate) struct OpenSource {
    pub(crate) name: String,
    pub(crate) time_column: String,
    pub(crate) delay: Span,
    pub(crate) bounded: bool,
    pub(crate) max_leak: Span,
    pub(crate) history: Arc<dyn History>,
    /// Its history is a table's; a log alone has none.
    pub(crate) has_history: bool,
    pub(crate) tail: Option<OpenTail>,
    pub(crate) follow: bool,
    pub(crate) stores: Stores,
}

impl Declared {
    /// Reads the options of a statement that was first run at `made`, under the settings in force.
    pub(crate) fn new(source: &CreateSource, layers: &Layers, engine: &Engine, made: EventTime) -> Result<Self> {
        let what = format!("source {}", source.name);
        let with = With::sort(&source.options, &OWN, Scope::Source, &what)?;
        let settings = layers.resolve(&with.settings)?;
        let own = |name: &'static str| with.own(name).map(str::to_string);
        let follow = with.own("tail") == Some(COMMITS);
        let changes = match with.own("tail") == Some(CHANGES) {
            true => Some(DeclaredChanges::new(own, &settings, &what)?),
            false => None,
        };
        let tail = match with.own("tail").filter(|_| !follow && changes.is_none()) {
            Some(url) => Some(DeclaredTail::new(url, own, with.log.clone(), &settings, &what)?),
            None => None,
        };
        let has_files = with.own("lake").is_some() && tail.is_none() && changes.is_none();
        let files = match with.own("format").filter(|_| has_files) {
            Some(format) => Some(DeclaredFiles::new(format, source, with.log.clone(), settings.on_error, &what)?),
            None => None,
        };
        let of_format = with.own("format").map(|_| "format").into_iter().chain(with.log.keys().map(String::as_str));
        let of_log = ["start", "archive", "key", "sample"].into_iter().filter(|name| with.own(name).is_some());
        let of_log = of_log.filter(|name| *name != "start" || changes.is_none());
        let lonely = of_format.filter(|_| files.is_none()).chain(of_log).next().filter(|_| tail.is_none());
        if let Some(name) = lonely {
            return Err(Error::sql(format!(
                "{what}: `{name}` speaks of a log, and there is none: give tail = 'kafka://…'"
            )));
        }
        if changes.is_none() && with.own("primary_key").is_some() {
            return Err(Error::sql(format!(
                "{what}: `primary_key` is for tail = '{CHANGES}' of a table without a key of its own"
            )));
        }
        let lake = own("lake");
        match (&lake, &tail) {
            (None, None) if follow || changes.is_some() => {
                return Err(Error::sql(format!(
                    "{what}: tail = '{}' are those of a table: say which (lake = 'location')",
                    if follow { COMMITS } else { CHANGES }
                )));
            }
            (None, None) => {
                return Err(Error::sql(format!(
                    "{what}: say where its history lies, or its log, or both: WITH (lake = 'location', tail = 'kafka://…')"
                )));
            }
            (None, Some(tail)) if source.columns.is_none() && tail.is_generated() => {
                return Err(Error::sql(format!(
                    "{what}: say what columns its rows have: CREATE SOURCE {} (ts TIMESTAMP, …, WATERMARK FOR ts AS ts) …",
                    source.name
                )));
            }
            (None, Some(_)) if with.own("archive").is_some() => {
                return Err(Error::sql(format!("{what}: `archive` says how far a lake table is, and there is none")));
            }
            (None, Some(_)) if with.own("key").is_some() => {
                return Err(Error::sql(format!(
                    "{what}: `key` tells which facts a log and a lake table both have, and there is no table"
                )));
            }
            (Some(_), Some(_)) if with.own("start").is_some() => {
                return Err(Error::sql(format!(
                    "{what}: `start` is for a log without a history; this one begins where its lake table ends"
                )));
            }
            _ if settings.bounded && (follow || tail.is_some() || changes.is_some()) => {
                return Err(Error::sql(format!("{what}: `bounded` is for a history that ends, and this one goes on")));
            }
            _ => {}
        }
        Ok(Declared {
            name: source.name.clone(),
            time_column: source.time_column.clone(),
            delay: source.delay,
            lake,
            tail,
            follow,
            changes,
            columns: source.columns.clone().filter(|_| files.is_none()),
            sample: with.own("sample").map(|text| inferred::sample(text, &what)).transpose()?,
            files,
            unordered: false,
            variables: engine.variables().clone(),
            clock: Arc::clone(engine.clock()),
            made,
            stores: engine.stores().with_options(with.store.clone()),
            bounded: settings.bounded,
            max_leak: settings.max_leak,
            time_partition: settings.time_partition,
            time_zone: settings.time_zone,
        })
    }

    /// For those who read all of it at once: which times text files hold need not be learnt by reading them.
    pub(crate) fn at_once(mut self) -> Self {
        self.unordered = self.files.is_some();
        self
    }

    /// Opens the history; `location` is the catalog's, so that a relative path means what it meant when it was declared.
    pub(crate) async fn open(&self, location: &str) -> Result<OpenSource> {
        if let (None, Some(tail)) = (&self.lake, &self.tail) {
            return self.open_log(tail).map_err(|e| in_source(&self.name, e));
        }
        if let Some(changes) = &self.changes {
            let open = changes.open(&self.stores, location, self.time_column.as_deref()).await;
            let (tail, columns, time_column) = open.map_err(|e| in_source(&self.name, e))?;
            return Ok(self.of_log(tail, layout_of_log(location, &columns), time_column));
        }
        let open = async |time_column: Option<String>, untimed: bool| {
            let (time_partition, time_zone) = (self.time_partition.clone(), self.time_zone);
            let text = self.files.as_ref().map(|files| files.open(&self.variables)).transpose()?;
            let options = HistoryOptions { time_column, time_partition, time_zone, untimed, text, waits: self.follow };
            open_history(&self.stores, location, &options).await.map_err(|e| in_source(&self.name, e))
        };
        let time_column = match &self.time_column {
            Some(declared) => declared.clone(),
            None => own_time_column(open(None, false).await?.layout()).map_err(|e| in_source(&self.name, e))?,
        };
        let history = open(Some(time_column.clone()), self.unordered).await?;
        let layout = history.layout();
        let grain = layout.time_partition.as_ref().map(|(_, grain)| *grain);
        let tail = match &self.tail {
            None => None,
            Some(tail) => {
                let fields = layout.file_schema.fields().iter().chain(&layout.partition_columns).cloned();
                let table = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let derived = derived(layout, &time_column);
                let open = tail.open(&table, &time_column, derived, &self.variables, &self.clock, None);
                let open = open.and_then(|open| open.joined_with(&history, &time_column));
                Some(open.map_err(|e| in_source(&self.name, e))?)
            }
        };
        Ok(OpenSource {
            tail,
            has_history: true,
            follow: self.follow,
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

impl Declared {
    fn open_log(&self, tail: &DeclaredTail) -> Result<OpenSource> {
        let columns = match &self.columns {
            Some(declared) => Arc::clone(declared),
            None => watershed_formats::columns(&tail.format(&self.variables)?)?
                .ok_or_else(|| Error::bug("the columns of a log were not inferred"))?,
        };
        let layout = layout_of_log(&tail.url, &columns);
        let time_column = match &self.time_column {
            Some(declared) => declared.clone(),
            None => own_time_column(&layout)?,
        };
        let tail = tail.open(&columns, &time_column, None, &self.variables, &self.clock, Some(self.made))?;
        Ok(self.of_log(tail, layout, time_column))
    }

    /// A source that is a log alone.
    fn of_log(&self, tail: OpenTail, layout: Layout, time_column: String) -> OpenSource {
        OpenSource {
            name: self.name.clone(),
            tail: Some(tail),
            time_column,
            follow: false,
            delay: self.delay,
            bounded: false,
            max_leak: self.max_leak.unwrap_or(default_leak(None)),
            history: Arc::new(NoHistory(layout)),
            has_history: false,
            stores: self.stores.clone(),
        }
    }

    /// Where the source lies, as catalogs show it.
    pub(crate) fn place(&self) -> Result<String> {
        match (&self.lake, &self.tail) {
            (Some(lake), _) => Ok(shown(&self.stores.open(lake)?)),
            (None, Some(tail)) => Ok(tail.url.clone()),
            (None, None) => Err(Error::bug(format!("source {} lies nowhere", self.name))),
        }
    }
}

fn layout_of_log(location: &str, columns: &SchemaRef) -> Layout {
    Layout {
        location: location.to_string(),
        store: "file:///".to_string(),
        file_schema: Arc::clone(columns),
        partition_columns: vec![],
        time_partition: None,
        stored: None,
        inferred: false,
        text: None,
    }
}

/// The partition column that is made from the event time, by its index in the table.
fn derived(layout: &Layout, time_column: &str) -> Option<(usize, Grain)> {
    let (column, grain) = layout.time_partition.as_ref()?;
    let at = layout.partition_columns.iter().position(|field| field.name() == column)?;
    let made = column.strip_prefix(time_column).is_some_and(|rest| {
        Grain::NAMES.iter().any(|(name, named)| named == grain && rest.strip_prefix('_') == Some(*name))
    });
    let fits = matches!(
        (grain, layout.partition_columns[at].data_type()),
        (Grain::Day, DataType::Date32) | (Grain::Hour, DataType::Timestamp(..))
    );
    (made && fits).then_some((layout.file_schema.fields().len() + at, *grain))
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

    /// Its history alone, as the runtime has it.
    pub(crate) fn input(&self) -> Input {
        Input {
            name: self.name.clone(),
            history: Arc::clone(&self.history),
            delay: self.delay,
            bounded: self.bounded,
            max_leak: self.max_leak,
            tail: None,
            follow: false,
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
            text: None,
        };
        assert_eq!(own_time_column(&layout(&["a", "ts"], Some("ts_day"))).unwrap(), "ts");
        assert_eq!(own_time_column(&layout(&["a"], Some("day"))).unwrap(), "a");
        let error = own_time_column(&layout(&["a", "b"], None)).unwrap_err().to_string();
        assert!(error.contains("which of a, b") && error.contains("WATERMARK FOR a AS a"), "{error}");
        assert!(own_time_column(&layout(&[], None)).unwrap_err().to_string().contains("no TIMESTAMP"));
    }
}
