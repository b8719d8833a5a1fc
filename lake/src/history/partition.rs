//! Which partition columns, or which part of a path, carry time, and which interval their values stand for. Pure.
//!
//! | columns | grain |
//! |---|---|
//! | one DATE | day (month or year, if `time_partition` says so) |
//! | one TIMESTAMP | hour (day, month or year, if `time_partition` says so) |
//! | text or integer `2026-01-31`, `20260131` | day |
//! | text `2026-01-31-05`, `2026-01-31T05`, `2026-01-31 05` | hour |
//! | text `2026-01`, or `202601` in a column called `month` | month |
//! | one of the day forms, and a column `hour` | hour |
//! | integers `year`, `month`, `day`, `hour`, or the first of them | that of the last |
//! | none, but a pattern of paths such as `{%Y/%m/%d}` | that of its finest field |
//!
//! Values are times of the table's zone, UTC unless declared. Where several columns qualify the user is asked; nothing is
//! guessed from their order.

use arrow::datatypes::DataType;
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use watershed_core::time::{Grain, Interval, Zone};
use watershed_core::{Error, Result};

use super::pattern::Pattern;
use super::value::{parse, speaks_of_time};

/// A partition column as the detection sees it.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    /// Distinct values that are not NULL, perhaps not all.
    pub(crate) samples: Vec<String>,
}

/// How time is read from a file's partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TimeKey {
    pub(crate) form: Form,
    pub(crate) grain: Grain,
    pub(crate) zone: Zone,
}

/// Where the time stands. Numbers are positions among the partition columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    One(usize),
    DateAndHour {
        date: usize,
        hour: usize,
    },
    /// Year, and perhaps month, day and hour.
    Parts(Vec<usize>),
    Path(Pattern),
}

/// What the user declared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Declared<'a> {
    pub(crate) time_column: Option<&'a str>,
    pub(crate) time_partition: Option<&'a str>,
    pub(crate) zone: Option<Zone>,
}

impl TimeKey {
    /// What stands for the key in the layout: the column that is finest, or the pattern.
    pub(crate) fn label(&self, names: impl Fn(usize) -> String) -> (String, Grain) {
        let label = match &self.form {
            Form::One(column) | Form::DateAndHour { date: column, .. } => names(*column),
            Form::Parts(columns) => columns.last().map(|column| names(*column)).unwrap_or_default(),
            Form::Path(pattern) => pattern.text.clone(),
        };
        (label, self.grain)
    }

    /// The interval of a file's partition values, or of its path below the location; `None` when one of them is NULL.
    pub(crate) fn interval(&self, values: &[Option<String>], path: &str) -> Result<Option<Interval>, String> {
        let value = |column: usize| values.get(column).and_then(|v| v.as_deref());
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| format!("`{text}` is not a number"));
        let start = match &self.form {
            Form::One(column) => {
                let Some(text) = value(*column) else { return Ok(None) };
                let value = parse(text).filter(|v| v.grain <= self.grain).ok_or_else(|| not_one(text, self.grain))?;
                if value.instant {
                    let local = self.zone.local(value.time);
                    if self.grain == Grain::Hour && self.grain.partition(local).is_some() {
                        // An instant says itself which of an hour that comes twice it is.
                        let end = value.time + chrono::TimeDelta::hours(1);
                        return Ok(Zone::UTC.interval(value.time, end));
                    }
                    local
                } else {
                    value.time
                }
            }
            Form::DateAndHour { date, hour } => {
                let (Some(text), Some(hour)) = (value(*date), value(*hour)) else { return Ok(None) };
                let day = parse(text).filter(|v| v.grain <= Grain::Day).ok_or_else(|| not_one(text, Grain::Day))?;
                at_hour(day.time.date(), number(hour)?)?
            }
            Form::Parts(columns) => {
                let mut parts = [1, 1, 1, 0];
                for (part, column) in parts.iter_mut().zip(columns) {
                    let Some(text) = value(*column) else { return Ok(None) };
                    *part = number(text)?;
                }
                let [y, m, d, hour] = parts;
                let date = i32::try_from(y).ok().and_then(|y| NaiveDate::from_ymd_opt(y, m, d));
                let written: Vec<String> = parts[..columns.len().min(3)].iter().map(u32::to_string).collect();
                let grain = self.grain.max(Grain::Day);
                at_hour(date.ok_or_else(|| format!("{} is not a {grain}", written.join("-")))?, hour)?
            }
            Form::Path(pattern) => match pattern.time(path) {
                Some(found) => found?,
                None if path.contains(super::HIVE_NULL) => return Ok(None),
                None => return Err(format!("its path does not match time_partition = '{}'", pattern.text)),
            },
        };
        let (start, end) = self.grain.partition(start).ok_or_else(|| {
            format!("{} is not the start of {}", start.format("%Y-%m-%dT%H:%M:%S%.f"), article(self.grain))
        })?;
        match self.zone.interval(start, end) {
            Some(interval) => Ok(Some(interval)),
            None => Err(format!(
                "the {} {} never was in {}: clocks were put forward over it; is time_zone right?",
                self.grain,
                start.format("%Y-%m-%dT%H:%M"),
                self.zone
            )),
        }
    }
}

fn at_hour(date: NaiveDate, hour: u32) -> Result<NaiveDateTime, String> {
    let time = NaiveTime::from_hms_opt(hour, 0, 0).ok_or_else(|| format!("`{hour}` is not an hour of a day"))?;
    Ok(date.and_time(time))
}

fn not_one(text: &str, grain: Grain) -> String {
    let example = match grain {
        Grain::Hour => "2026-01-31-05",
        Grain::Day => "2026-01-31",
        Grain::Month => "2026-01",
        Grain::Year => "2026",
    };
    format!("`{text}` is not {}, such as `{example}`", article(grain))
}

fn article(grain: Grain) -> String {
    format!("{} {grain}", if grain == Grain::Hour { "an" } else { "a" })
}

/// Finds the time key of a table; `None` when no partition column carries time.
pub(crate) fn detect(location: &str, columns: &[Column], declared: Declared<'_>) -> Result<Option<TimeKey>> {
    let zone = declared.zone.unwrap_or(Zone::UTC);
    let key = |form: Form, grain: Grain| Ok(Some(TimeKey { form, grain, zone }));
    let named = |name: &str| columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
    let (grain, column) = match declared.time_partition.map(|text| hint(location, columns, text)).transpose()? {
        None => (None, None),
        Some(Hint::Nothing) => return Ok(None),
        Some(Hint::Grain(grain)) => (Some(grain), None),
        Some(Hint::Column(column, grain)) => (grain, Some(column)),
        Some(Hint::Columns(several)) => return key_of(location, columns, several, zone).map(Some),
        Some(Hint::Pattern(pattern)) => return key(Form::Path(pattern.clone()), pattern.grain),
    };
    let parts = |all: bool| -> Option<(Vec<usize>, Grain)> {
        let found = [("year", Grain::Year), ("month", Grain::Month), ("day", Grain::Day), ("hour", Grain::Hour)];
        let found: Vec<_> = found.into_iter().map_while(|(name, g)| Some((named(name)?, g))).collect();
        let numbers = |i: usize| columns[i].samples.iter().all(|v| v.trim().parse::<u32>().is_ok());
        let found: Vec<_> =
            found.into_iter().take_while(|(i, g)| numbers(*i) && grain.is_none_or(|w| *g >= w)).collect();
        let last = found.last()?.1;
        let wanted = grain.is_none_or(|wanted| wanted == last) && (!all || last <= Grain::Day);
        wanted.then(|| (found.into_iter().map(|(i, _)| i).collect(), last))
    };
    if column.is_none()
        && let Some((columns, grain)) = parts(true)
    {
        return key(Form::Parts(columns), grain);
    }
    let typed = |c: &Column| matches!(c.data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    let mut candidates: Vec<usize> = match column {
        Some(column) => vec![column],
        None => (0..columns.len()).filter(|i| typed(&columns[*i])).collect(),
    };
    if candidates.is_empty() {
        candidates = (0..columns.len()).filter(|i| looks_like_time(&columns[*i])).collect();
    }
    if candidates.is_empty()
        && let Some((columns, grain)) = parts(false)
    {
        return key(Form::Parts(columns), grain);
    }
    if candidates.len() > 1
        && let Some(time) = declared.time_column
    {
        // `ts_day` beside `ts`, as PARTITION BY day(ts) names it.
        let suffixes = ["day", "date", "hour", "month", "year"];
        let derived: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|i| suffixes.iter().any(|s| columns[*i].name == format!("{time}_{s}")))
            .collect();
        if derived.len() == 1 {
            candidates = derived;
        }
    }
    let column = match candidates[..] {
        [] => return odd_one(location, columns).map_or(Ok(None), Err),
        [one] => one,
        _ => {
            return Err(Error::input(format!(
                "{location} has several partition columns that may carry time: {}; say which by time_partition = '…'",
                names(columns, candidates)
            )));
        }
    };
    let found = grain_of(location, &columns[column], grain)?;
    let hour = columns.iter().position(|c| {
        matches!(c.name.to_ascii_lowercase().as_str(), "hour" | "hr" | "hh")
            && c.name != columns[column].name
            && !typed(c)
    });
    match (found, hour) {
        (Grain::Day, Some(hour)) if grain.is_none_or(|g| g == Grain::Hour) => {
            key(Form::DateAndHour { date: column, hour }, Grain::Hour)
        }
        _ => key(Form::One(column), found),
    }
}

/// What `time_partition` says.
enum Hint {
    Nothing,
    Grain(Grain),
    Column(usize, Option<Grain>),
    Columns(Vec<usize>),
    Pattern(Pattern),
}

fn hint(location: &str, columns: &[Column], text: &str) -> Result<Hint> {
    let find = |name: &str| columns.iter().position(|c| c.name == name.trim());
    if Pattern::is_one(text) {
        let pattern = Pattern::parse(text);
        return Ok(Hint::Pattern(pattern.map_err(|e| Error::input(format!("time_partition = '{text}': {e}")))?));
    }
    if let Some(column) = find(text) {
        // Of `year`, `month` and `day` as numbers, a single one says how wide partitions are.
        let number = columns[column].samples.iter().any(|text| parse(text).is_none());
        let grain = Grain::named(text).filter(|_| number);
        return Ok(grain.map_or(Hint::Column(column, None), Hint::Grain));
    }
    if let Some(grain) = Grain::named(text) {
        return Ok(Hint::Grain(grain));
    }
    if text.eq_ignore_ascii_case("none") {
        return Ok(Hint::Nothing);
    }
    if let Some((name, grain)) = text.rsplit_once(':')
        && let (Some(column), Some(grain)) = (find(name), Grain::named(grain.trim()))
    {
        return Ok(Hint::Column(column, Some(grain)));
    }
    let several: Vec<Option<usize>> = text.split('/').map(find).collect();
    match several.iter().copied().collect::<Option<Vec<usize>>>() {
        Some(several) if several.len() > 1 => Ok(Hint::Columns(several)),
        _ => Err(Error::input(format!(
            "time_partition = '{text}': {location} has no such partition column; it is partitioned by {}. Give one of \
             them, several as in 'year/month/day', one with its width as in 'column:month', 'hour', 'day', 'month' or \
             'year', a pattern of paths such as '{{%Y/%m/%d}}', or 'none'",
            names(columns, 0..columns.len())
        ))),
    }
}

/// The key of several columns that the user named in order.
fn key_of(location: &str, columns: &[Column], several: Vec<usize>, zone: Zone) -> Result<TimeKey> {
    let first = &columns[several[0]];
    let date = matches!(first.data_type, DataType::Date32 | DataType::Date64)
        || first.samples.iter().any(|text| parse(text).is_some_and(|v| v.grain == Grain::Day));
    match (date, several.as_slice()) {
        (true, &[date, hour]) => Ok(TimeKey { form: Form::DateAndHour { date, hour }, grain: Grain::Hour, zone }),
        (false, parts) if parts.len() <= 4 => {
            let grain = [Grain::Year, Grain::Month, Grain::Day, Grain::Hour][parts.len() - 1];
            Ok(TimeKey { form: Form::Parts(several), grain, zone })
        }
        _ => Err(Error::input(format!(
            "{location}: time_partition names {}; several columns are a year, then perhaps month, day and hour, or a day \
             and an hour",
            names(columns, several)
        ))),
    }
}

/// How wide the values of a column are.
fn grain_of(location: &str, column: &Column, hint: Option<Grain>) -> Result<Grain> {
    let fail = |what: String| Err(Error::input(format!("{location}: partition column `{}` {what}", column.name)));
    if matches!(column.data_type, DataType::Date32 | DataType::Date64) {
        return Ok(hint.map_or(Grain::Day, |grain| grain.max(Grain::Day)));
    }
    let mut parsed = vec![];
    for text in &column.samples {
        match parse(text) {
            Some(found) => parsed.push(found),
            None => return fail(format!("has the value `{text}`, which is not an hour, a day, a month or a year")),
        }
    }
    if let Some(grain) = hint {
        return Ok(grain);
    }
    if !matches!(column.data_type, DataType::Timestamp(..)) {
        return Ok(parsed.first().map_or(Grain::Day, |found| found.grain));
    }
    // A day's partitions written as timestamps look like the first hours of days.
    if parsed.len() > 1 && parsed.iter().all(|found| found.time.time() == NaiveTime::MIN) {
        return fail(
            "holds midnights only, so its grain cannot be told: say time_partition = 'hour', 'day', 'month' or 'year'"
                .to_string(),
        );
    }
    Ok(Grain::Hour)
}

fn looks_like_time(column: &Column) -> bool {
    is_plain(column) && !column.samples.is_empty() && column.samples.iter().all(|t| speaks_of_time(&column.name, t))
}

fn is_plain(column: &Column) -> bool {
    column.data_type.is_integer() || matches!(column.data_type, DataType::Utf8 | DataType::Utf8View)
}

/// A value without which a column would carry time, as nearly all others say: it is a mistake, and to read the table as if
/// nobody had partitioned it would be another.
fn odd_one(location: &str, columns: &[Column]) -> Option<Error> {
    let odd_in = |column: &Column| {
        let (times, odd): (Vec<&String>, Vec<&String>) =
            column.samples.iter().partition(|text| speaks_of_time(&column.name, text));
        // Numbers may be dates by chance.
        let called =
            ["dt", "day", "date", "hour", "time"].iter().any(|word| column.name.to_lowercase().ends_with(word));
        let meant = called || times.iter().any(|text| !text.bytes().all(|b| b.is_ascii_digit()));
        let wrong = odd.first().filter(|_| is_plain(column) && meant && odd.len() < times.len())?;
        Some((column.name.clone(), wrong.to_string()))
    };
    let (name, value) = columns.iter().find_map(odd_in)?;
    Some(Error::input(format!(
        "{location}: partition column `{name}` has the value `{value}`, which is not an hour, a day, a month or a year, as the \
         others are: rename that folder or move it away, or say time_partition = 'none' if the column is no time"
    )))
}

fn names(columns: &[Column], which: impl IntoIterator<Item = usize>) -> String {
    let names: Vec<String> = which.into_iter().map(|i| format!("`{}`", columns[i].name)).collect();
    if names.is_empty() { "nothing".to_string() } else { names.join(", ") }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
