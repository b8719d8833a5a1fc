//! A generated log as the tail of a source.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use watershed_core::clock::Clock;
use watershed_core::tail::{LogState, Part, Tail, TailPosition, TailReader};
use watershed_core::{Error, EventTime, Result};

use crate::options::Options;
use crate::pace::Pace;
use crate::payload::Payloads;
use crate::reader::GeneratorReader;

/// What a location is.
const FORM: &str = "generate://";

/// A log of rows that are made up.
pub struct GeneratorTail {
    log: Arc<Log>,
}

/// What reading it takes.
pub(crate) struct Log {
    pub(crate) location: String,
    pub(crate) pace: Pace,
    pub(crate) payloads: Payloads,
    pub(crate) clock: Arc<dyn Clock>,
    id: String,
    /// The most rows that were seen: a clock that is set back takes none away.
    seen: AtomicI64,
}

impl GeneratorTail {
    /// The log at `generate://` whose rows have these columns, with options such as `rows_per_second` and `keys`. It begins
    /// where option `start` says, else at `made`; without either it is an error.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use std::sync::Arc;
    ///
    /// use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    /// use watershed_core::EventTime;
    /// use watershed_core::clock::ManualClock;
    /// use watershed_core::tail::Tail;
    /// use watershed_generator::GeneratorTail;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), watershed_core::Error> {
    /// let columns = Schema::new(vec![
    ///     Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ///     Field::new("city", DataType::Utf8, true),
    /// ]);
    /// let options = BTreeMap::from([("keys".to_string(), "5".to_string()), ("start".to_string(), "1970-01-01".to_string())]);
    /// // Ten rows a second, and two seconds have passed.
    /// let clock = Arc::new(ManualClock::new(EventTime(1_999_999), 0));
    /// let log = GeneratorTail::new("generate://", &options, &columns, "at", None, clock)?;
    /// assert_eq!(log.look().await?.parts[&0], 0..20);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`]: an unknown option or a value out of its range, or a column of a type that is not made.
    pub fn new(
        location: &str,
        options: &BTreeMap<String, String>,
        columns: &Schema,
        time_column: &str,
        made: Option<EventTime>,
        clock: Arc<dyn Clock>,
    ) -> Result<GeneratorTail> {
        if location != FORM {
            return Err(Error::input(format!(
                "tail = '{location}': write it as {FORM}, and say what it is like with generate.rows_per_second, generate.keys \
                 and others"
            )));
        }
        let options = Options::new(options, made)?;
        let log = Log {
            location: location.to_string(),
            pace: Pace::new(&options),
            payloads: Payloads::new(&options, columns, time_column)?,
            clock,
            id: options.id(),
            seen: AtomicI64::new(0),
        };
        Ok(GeneratorTail { log: Arc::new(log) })
    }
}

impl Log {
    /// How many rows are written.
    pub(crate) fn rows(&self) -> i64 {
        let rows = self.pace.rows_at(self.clock.now());
        self.seen.fetch_max(rows, Ordering::SeqCst).max(rows)
    }
}

impl fmt::Debug for GeneratorTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GeneratorTail").field(&self.log.payloads).finish()
    }
}

#[async_trait]
impl Tail for GeneratorTail {
    fn location(&self) -> &str {
        &self.log.location
    }

    async fn look(&self) -> Result<LogState> {
        let parts = self.log.pace.ends(self.log.rows()).into_iter().map(|(part, end)| (part, 0..end)).collect();
        Ok(LogState { id: Some(self.log.id.clone()), parts, ..LogState::default() })
    }

    async fn at_time(&self, time: EventTime) -> Result<BTreeMap<Part, i64>> {
        Ok(self.log.pace.ends(self.log.pace.rows_before(time).min(self.log.rows())))
    }

    async fn read(&self, from: &BTreeMap<Part, i64>) -> Result<Box<dyn TailReader>> {
        Ok(Box::new(GeneratorReader::new(Arc::clone(&self.log), from)?))
    }

    /// Nobody watches.
    async fn report(&self, _: &TailPosition) -> Result<()> {
        Ok(())
    }
}
