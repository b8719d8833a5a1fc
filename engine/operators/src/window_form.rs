//! Forms of windows: where they start and end, and what a watermark means to them.
//!
//! Tumbling windows (fixed or calendar) follow each other without gap. Hopping and cumulating windows overlap: their rows
//! are aggregated by *pane*, the stretch between two neighbouring window edges, and a window is a run of panes; so a row is
//! aggregated once, however many windows it is in.
//!
//! ```text
//! hop, slide 1, size 3      cumulate, step 1, size 3
//! panes   |a|b|c|d|         panes   |a|b|c|d|
//! windows |a b c|           windows |a|
//!           |b c d|                 |a b|
//!                                   |a b c|
//!                                         |d|
//! ```
//!
//! All arithmetic is in event time (microseconds, UTC); windows are half-open.

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Datelike, Months, NaiveDate};
use datafusion::common::ScalarValue;
use watershed_core::EventTime;
use watershed_core::time::{Interval, Span};

/// A family of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowForm {
    /// Of one width, one after the other; one starts at `origin`.
    Fixed { width: Span, origin: EventTime },
    /// Calendar months in UTC; a year begins with one.
    Months(u32),
    /// Of one size, a new one every `slide`; the size is a multiple of the slide, and one starts at `origin`.
    Hop { slide: Span, size: Span, origin: EventTime },
    /// From each multiple of `size` after `origin`, growing by `step` up to `size`; the size is a multiple of the step.
    Cumulate { step: Span, size: Span, origin: EventTime },
}

/// Where a window ends, given where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEnd {
    Fixed(Span),
    /// Calendar months, UTC: a month, a quarter, a year.
    Months(u32),
}

impl WindowEnd {
    /// The end, exclusive, of the window that starts at `start`.
    pub fn of(self, start: EventTime) -> EventTime {
        match self {
            WindowEnd::Fixed(span) => start.plus(span),
            WindowEnd::Months(n) => {
                let start_date = DateTime::from_timestamp_micros(start.0);
                let end = start_date.and_then(|d| d.checked_add_months(Months::new(n)));
                end.map_or(EventTime::MAX, |d| EventTime(d.timestamp_micros()))
            }
        }
    }
}

impl WindowForm {
    /// Whether a time can be in several windows.
    pub fn overlaps(self) -> bool {
        matches!(self, WindowForm::Hop { .. } | WindowForm::Cumulate { .. })
    }

    /// The windows by which rows are aggregated: tumbling ones are their own panes.
    pub fn panes(self) -> WindowForm {
        match self {
            WindowForm::Hop { slide: width, origin, .. } | WindowForm::Cumulate { step: width, origin, .. } => {
                WindowForm::Fixed { width, origin }
            }
            tumbling => tumbling,
        }
    }

    /// The start of the pane that holds a time.
    pub fn pane_start(self, time: EventTime) -> EventTime {
        match (self.panes(), time) {
            (_, EventTime::MIN | EventTime::MAX) => time,
            (WindowForm::Months(n), EventTime(t)) => {
                let n = i64::from(n);
                let start = DateTime::from_timestamp_micros(t).and_then(|date| {
                    let month = i64::from(date.year()) * 12 + i64::from(date.month0());
                    let first = month - month.rem_euclid(n);
                    let year = i32::try_from(first.div_euclid(12)).ok()?;
                    let month0 = u32::try_from(first.rem_euclid(12)).ok()?;
                    NaiveDate::from_ymd_opt(year, month0 + 1, 1)?.and_hms_opt(0, 0, 0)
                });
                start.map_or(EventTime::MIN, |date| EventTime(date.and_utc().timestamp_micros()))
            }
            (WindowForm::Fixed { width, origin }, time) => floor(time, width, origin),
            // Panes are tumbling.
            (WindowForm::Hop { .. } | WindowForm::Cumulate { .. }, time) => time,
        }
    }

    /// Where a pane ends, given where it starts.
    pub fn pane_end(self) -> WindowEnd {
        match self.panes() {
            WindowForm::Months(n) => WindowEnd::Months(n),
            WindowForm::Fixed { width, .. } => WindowEnd::Fixed(width),
            WindowForm::Hop { slide: width, .. } | WindowForm::Cumulate { step: width, .. } => WindowEnd::Fixed(width),
        }
    }

    /// Where the longest window ends that starts at a given time.
    pub fn end(self) -> WindowEnd {
        match self {
            WindowForm::Fixed { width, .. } => WindowEnd::Fixed(width),
            WindowForm::Months(n) => WindowEnd::Months(n),
            WindowForm::Hop { size, .. } | WindowForm::Cumulate { size, .. } => WindowEnd::Fixed(size),
        }
    }

    /// The window that ends at a pane's end.
    pub fn window_ending(self, end: EventTime) -> Interval {
        let last = EventTime(end.0.saturating_sub(1));
        let start = match self {
            WindowForm::Hop { size, .. } => end.minus(size),
            WindowForm::Cumulate { size, origin, .. } => floor(last, size, origin),
            tumbling => tumbling.pane_start(last),
        };
        Interval { start, end }
    }

    /// The end of the last window that a pane is in, given the pane's start.
    pub fn last_end(self, pane: EventTime) -> EventTime {
        match self {
            WindowForm::Hop { size, .. } => pane.plus(size),
            WindowForm::Cumulate { size, origin, .. } => floor(pane, size, origin).plus(size),
            tumbling => tumbling.end().of(pane),
        }
    }

    /// The start of the first window that begins at or after a time.
    pub fn first_from(self, time: EventTime) -> EventTime {
        let start = match self {
            WindowForm::Cumulate { size, origin, .. } => floor(time, size, origin),
            _ => self.pane_start(time),
        };
        let next = || match self {
            WindowForm::Cumulate { .. } => self.end().of(start),
            _ => self.pane_end().of(start),
        };
        if start == time { start } else { next() }
    }

    /// The start of the earliest window that ends after a watermark: no window before it is still to come.
    pub fn start_after(self, watermark: EventTime) -> EventTime {
        let pane = self.pane_start(watermark);
        match self {
            WindowForm::Hop { slide, size, .. } => pane.plus(slide).minus(size),
            WindowForm::Cumulate { size, origin, .. } => floor(watermark, size, origin),
            _ => pane,
        }
    }

    /// The first window end after a watermark.
    pub fn end_after(self, watermark: EventTime) -> EventTime {
        match watermark {
            EventTime::MIN | EventTime::MAX => watermark,
            w => self.pane_end().of(self.pane_start(w)),
        }
    }

    /// Rows before this are in no window that ends after the watermark: they are lost to all of theirs.
    pub fn lost_before(self, watermark: EventTime) -> EventTime {
        match self {
            WindowForm::Hop { slide, size, .. } => self.pane_start(watermark.minus(size)).plus(slide),
            WindowForm::Cumulate { size, origin, .. } => floor(watermark, size, origin),
            _ => self.pane_start(watermark),
        }
    }

    /// Rows before this have missed at least one of their windows.
    pub fn missed_before(self, watermark: EventTime) -> EventTime {
        self.pane_start(watermark)
    }

    /// From the start of the first window that a row has missed to the end of the last; `None` when it has missed none that
    /// begins at or after `from`.
    pub fn missed(self, time: EventTime, watermark: EventTime, from: Option<EventTime>) -> Option<Interval> {
        if time >= self.missed_before(watermark) {
            return None;
        }
        let pane = self.pane_start(time);
        let end = self.last_end(pane).min(self.pane_start(watermark));
        let first = self.window_ending(self.pane_end().of(pane)).start;
        let first = from.map_or(first, |from| first.max(from));
        (self.window_ending(end).start >= first).then_some(Interval { start: first, end })
    }

    /// Of the windows that facts within an interval can be in, from the first start to the last end: those that end at or
    /// before a watermark, and those that end after it.
    pub fn touched(self, facts: Interval, watermark: EventTime) -> (Option<Interval>, Option<Interval>) {
        if facts.start >= facts.end {
            return (None, None);
        }
        let first = match facts.start {
            EventTime::MIN => EventTime::MIN,
            start => self.window_ending(self.pane_end().of(self.pane_start(start))).start,
        };
        let last = match facts.end {
            EventTime::MAX => EventTime::MAX,
            EventTime(end) => self.last_end(self.pane_start(EventTime(end - 1))),
        };
        let done = Interval { start: first, end: last.min(self.pane_start(watermark)) };
        let open = Interval { start: first.max(self.start_after(watermark)), end: last };
        (Some(done).filter(|of| of.start < of.end), Some(open).filter(|_| last > watermark))
    }

    /// The length of the longest window as an interval literal.
    pub fn interval(self) -> ScalarValue {
        let (months, nanoseconds) = match self.end() {
            WindowEnd::Fixed(width) => (0, width.0.saturating_mul(1_000)),
            WindowEnd::Months(n) => (i32::try_from(n).unwrap_or(i32::MAX), 0),
        };
        ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days: 0, nanoseconds }))
    }
}

/// The multiple of `width` after `origin` at or before a time.
fn floor(time: EventTime, width: Span, origin: EventTime) -> EventTime {
    match time {
        EventTime::MIN | EventTime::MAX => time,
        EventTime(t) => {
            let into = (i128::from(t) - i128::from(origin.0)).rem_euclid(i128::from(width.0));
            EventTime(i64::try_from(i128::from(t) - into).unwrap_or(i64::MIN))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> EventTime {
        EventTime(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
    }

    #[test]
    fn fixed_windows_start_at_their_origin() {
        let week = WindowForm::Fixed { width: Span(7 * Span::DAY.0), origin: EventTime(4 * Span::DAY.0) };
        assert_eq!(week.pane_start(at("2024-05-12T23:59:59Z")), at("2024-05-06T00:00:00Z"));
        assert_eq!(week.pane_start(at("2024-05-13T00:00:00Z")), at("2024-05-13T00:00:00Z"));
        let hour = WindowForm::Fixed { width: Span::HOUR, origin: EventTime(0) };
        assert_eq!(hour.pane_start(EventTime(-1)), EventTime(-Span::HOUR.0));
        assert_eq!(hour.pane_start(EventTime(i64::MIN + 1)), EventTime(i64::MIN));
    }

    #[test]
    fn calendar_windows_start_with_the_year() {
        assert_eq!(WindowForm::Months(1).pane_start(at("2024-02-29T12:00:00Z")), at("2024-02-01T00:00:00Z"));
        assert_eq!(WindowForm::Months(3).pane_start(at("2024-06-30T23:59:59Z")), at("2024-04-01T00:00:00Z"));
        assert_eq!(WindowForm::Months(12).pane_start(at("1969-06-30T00:00:00Z")), at("1969-01-01T00:00:00Z"));
    }

    #[test]
    fn months_end_where_the_calendar_says() {
        assert_eq!(WindowEnd::Months(1).of(at("2024-02-01T00:00:00Z")), at("2024-03-01T00:00:00Z"));
        assert_eq!(WindowEnd::Months(12).of(at("2024-01-01T00:00:00Z")), at("2025-01-01T00:00:00Z"));
        assert_eq!(WindowEnd::Fixed(Span::DAY).of(at("2024-02-29T00:00:00Z")), at("2024-03-01T00:00:00Z"));
    }

    #[test]
    fn a_view_begins_with_the_first_whole_window() {
        let form = WindowForm::Months(1);
        assert_eq!(form.first_from(at("2024-02-01T00:00:00Z")), at("2024-02-01T00:00:00Z"));
        assert_eq!(form.first_from(at("2024-02-01T00:00:01Z")), at("2024-03-01T00:00:00Z"));
    }

    /// The windows of a small form between -200 and 200, written down one by one.
    fn all(form: WindowForm) -> Vec<(i64, i64)> {
        let mut windows = vec![];
        for start in -200..200 {
            for length in 1..=100 {
                let aligned = |width: Span, origin: EventTime| (start - origin.0).rem_euclid(width.0) == 0;
                let is = match form {
                    WindowForm::Fixed { width, origin } => aligned(width, origin) && length == width.0,
                    WindowForm::Hop { slide, size, origin } => aligned(slide, origin) && length == size.0,
                    WindowForm::Cumulate { step, size, origin } => {
                        aligned(size, origin) && length % step.0 == 0 && length <= size.0
                    }
                    WindowForm::Months(_) => false,
                };
                if is {
                    windows.push((start, start + length));
                }
            }
        }
        windows
    }

    fn form() -> impl Strategy<Value = WindowForm> {
        let sizes = (1..6i64, 1..5i64, -7..7i64);
        (sizes, 0..3).prop_map(|((unit, times, origin), kind)| {
            let (unit, size, origin) = (Span(unit), Span(unit * times), EventTime(origin));
            match kind {
                0 => WindowForm::Fixed { width: size, origin },
                1 => WindowForm::Hop { slide: unit, size, origin },
                _ => WindowForm::Cumulate { step: unit, size, origin },
            }
        })
    }

    proptest! {
        /// What each function says of a form is what its windows, written down, say.
        #[test]
        fn agrees_with_the_windows_written_down(form in form(), time in -60..60i64, watermark in -60..60i64, from in -60..60i64) {
            let windows = all(form);
            let (t, w) = (EventTime(time), EventTime(watermark));
            let of_row: Vec<_> = windows.iter().copied().filter(|(s, e)| *s <= time && time < *e).collect();
            prop_assert_eq!(form.last_end(form.pane_start(t)).0, of_row.iter().map(|x| x.1).max().unwrap());
            prop_assert_eq!(form.first_from(t).0, windows.iter().map(|x| x.0).filter(|s| *s >= time).min().unwrap());
            let open = || windows.iter().filter(|(_, e)| *e > watermark);
            prop_assert_eq!(form.start_after(w).0, open().map(|x| x.0).min().unwrap());
            prop_assert_eq!(form.end_after(w).0, open().map(|x| x.1).min().unwrap());
            prop_assert_eq!(t < form.lost_before(w), of_row.iter().all(|(_, e)| *e <= watermark));
            prop_assert_eq!(t < form.missed_before(w), of_row.iter().any(|(_, e)| *e <= watermark));
            let missed: Vec<_> = of_row.iter().filter(|(s, e)| *e <= watermark && *s >= from).collect();
            let found = form.missed(t, w, Some(EventTime(from)));
            prop_assert_eq!(found.is_some(), !missed.is_empty());
            if let Some(found) = found {
                prop_assert_eq!(found.end.0, missed.iter().map(|x| x.1).max().unwrap());
                prop_assert!(found.start.0 <= missed.iter().map(|x| x.0).min().unwrap());
            }
            let facts = Interval { start: EventTime(time.min(from)), end: EventTime(time.max(from) + 1) };
            let (done, still) = form.touched(facts, w);
            let within = |of: Option<Interval>, s: i64, e: i64| of.is_some_and(|of| of.start.0 <= s && e <= of.end.0);
            for (s, e) in windows.iter().filter(|(s, e)| *s < facts.end.0 && facts.start.0 < *e) {
                let part = if *e <= watermark { done } else { still };
                prop_assert!(within(part, *s, *e));
            }
            prop_assert!(done.is_none_or(|of| of.end <= w) && still.is_none_or(|of| of.end > w));
            for (s, e) in windows.iter().filter(|(s, _)| *s > -100) {
                let found = form.window_ending(EventTime(*e));
                prop_assert_eq!((found.start.0, found.end.0), (*s, *e));
            }
        }
    }
}
