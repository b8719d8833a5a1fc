//! Which windows are compared together: stretches of their starts, or of their ends where several have one start.

use std::collections::BTreeSet;

use watershed_core::history::{DataFile, Times};
use watershed_core::time::{Interval, Span};
use watershed_core::{Error, EventTime, Result};
use watershed_operators::{WindowEnd, WindowForm, Windows};
use watershed_plan::Lowered;

use super::VerifyOptions;
use super::facts::Facts;

/// Bytes of facts that are read for a stretch, about.
const BYTES: u64 = 256 << 20;

/// Which of the view's columns tells windows apart, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) column: String,
    /// Windows at or after this are not final.
    pub(super) until: EventTime,
    /// Windows before this are none of the view's.
    pub(super) from: EventTime,
    /// Where several windows have one start: its column, and where the view begins.
    pub(super) starts: Option<(String, EventTime)>,
    places: Places,
    /// How far before a window's place on the axis its facts begin, and how far behind they end.
    before: Span,
    after: Span,
    /// Windows up to here were missed by a row that missed all windows that end by a time.
    back: Span,
}

/// Where windows have their places on the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Places {
    /// At their ends.
    Ends,
    /// At their starts, and they are of this width.
    Starts(Span),
    /// At their starts, and they are so many months wide.
    Months(u32),
}

/// Windows from `start` on, before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: EventTime,
    pub(crate) end: EventTime,
}

/// What a stretch's windows are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) start: EventTime,
    pub(crate) end: EventTime,
    /// Rows that missed the windows which end by this missed those of the stretch.
    pub(super) missed: EventTime,
}

impl Axis {
    /// `None` for a view without windows. At [`EventTime::MAX`] every window is final.
    pub(crate) fn of(lowered: &Lowered, watermark: EventTime) -> Result<Option<Axis>> {
        let Some(last) = lowered.stages.last() else { return Ok(None) };
        let spec = &last.spec;
        let watermark = match watermark {
            EventTime::MIN | EventTime::MAX => watermark,
            w => spec.local(w),
        };
        let widths = lowered.stages.iter().map(|stage| width(stage.spec.windows));
        let all = Span(widths.map(|w| w.0).sum());
        let below = Span(all.0 - width(spec.windows).0);
        let ends = |name: &str| lowered.output.field_with_name(name).is_ok().then(|| name.to_string());
        let by_end = matches!(spec.windows, Windows::Paned(WindowForm::Cumulate { .. }));
        let column = if by_end { ends("window_end") } else { lowered.window_start.clone() };
        let Some(column) = column else {
            let which = if by_end { "window_end" } else { "the start of its windows" };
            return Err(Error::input(format!(
                "it does not put out {which}, without which nobody can tell which of its rows are of which windows; SELECT that \
                 as well"
            )));
        };
        let own = window_width(spec.windows, lowered);
        let from = spec.from.unwrap_or(EventTime::MIN);
        let axis = match by_end {
            true => Axis {
                column,
                until: EventTime::MIN,
                from,
                starts: lowered.window_start.clone().zip(spec.from),
                places: Places::Ends,
                before: all,
                after: below,
                back: Span(0),
            },
            false => {
                let places = match spec.windows {
                    Windows::Single(WindowEnd::Months(n)) => Places::Months(n),
                    _ => Places::Starts(own),
                };
                let (until, after) = (EventTime::MIN, all.max(own));
                Axis { column, until, from, starts: None, places, before: below, after, back: own }
            }
        };
        Ok(Some(axis.at(watermark)))
    }

    /// The axis of a view's own windows at another watermark.
    pub(crate) fn at(self, watermark: EventTime) -> Axis {
        let until = match (watermark, self.places) {
            (EventTime::MIN | EventTime::MAX, _) => watermark,
            (w, Places::Ends) => w.plus(Span(1)),
            (w, Places::Months(n)) => WindowForm::Months(n).start_after(w),
            (w, Places::Starts(width)) => w.minus(width).plus(Span(1)),
        };
        Axis { until, ..self }
    }

    /// From where on windows are that are not final at a watermark, of a view's own windows.
    pub(crate) fn open_from(&self, watermark: EventTime) -> EventTime {
        self.clone().at(watermark).until
    }

    /// Where the windows lie that start and end within an interval.
    pub(crate) fn within(&self, interval: Interval) -> Stretch {
        let Interval { start, end } = interval;
        match self.places {
            Places::Ends => Stretch { start: start.plus(Span(1)), end: end.plus(Span(1)) },
            Places::Months(_) => Stretch { start, end },
            Places::Starts(width) => Stretch { start, end: end.minus(width).plus(Span(1)) },
        }
    }

    /// From the first windows that facts can be in to the end of time, what lies outside included: rows there are extra.
    pub(super) fn stretches(&self, facts: &Facts, options: &VerifyOptions) -> Vec<Stretch> {
        let (files, missed) = (facts.files(), facts.missed());
        let first = options.from.unwrap_or(self.from).max(self.from);
        let last = options.to.unwrap_or(EventTime::MAX);
        let mut cuts: Vec<EventTime> = missed.map(|m| m.minus(self.back).plus(Span(1))).collect();
        cuts.extend(between(&files, options.stretch));
        cuts.retain(|cut| first < *cut && *cut < last);
        cuts.push(last);
        cuts.sort();
        cuts.dedup();
        let mut from = if options.from.is_some() { first } else { EventTime::MIN };
        cuts.into_iter().map(|end| Stretch { start: std::mem::replace(&mut from, end), end }).collect()
    }

    pub(crate) fn facts_of(&self, stretch: &Stretch) -> Needs {
        let minus = |t: EventTime, s: Span| if t == EventTime::MIN { t } else { t.minus(s) };
        let start = minus(stretch.start.max(self.from), self.before);
        let end = if stretch.end == EventTime::MAX { stretch.end } else { stretch.end.plus(self.after) };
        Needs { start, end, missed: stretch.start.plus(self.back) }
    }
}

/// Where one stretch ends and the next begins, so that each reads about [`BYTES`] of facts: where files begin, for a time far
/// from all others must not make stretches of nothing. At whole days, so that a partition of the table falls into one.
fn between(files: &[&DataFile], width: Option<Span>) -> BTreeSet<EventTime> {
    let width_of_cut = width.unwrap_or(Span::DAY).0.max(1);
    let mut begins: Vec<(EventTime, u64)> = vec![];
    for file in files {
        if let Times::Known { min, max, .. } = file.times
            && min <= max
        {
            begins.push((EventTime(min.0.div_euclid(width_of_cut) * width_of_cut), file.bytes()));
        }
    }
    begins.sort();
    let (mut cuts, mut bytes) = (BTreeSet::new(), 0);
    for (begin, size) in begins {
        if width.is_some() || bytes >= BYTES {
            cuts.insert(begin);
            bytes = 0;
        }
        bytes += size;
    }
    cuts
}

/// The longest that a window can be.
fn width(windows: Windows) -> Span {
    let end = match windows {
        Windows::Single(end) => end,
        Windows::Paned(form) => form.end(),
    };
    match end {
        WindowEnd::Fixed(span) => span,
        WindowEnd::Months(n) => Span(i64::from(n) * 31 * Span::DAY.0),
    }
}

/// The width of the view's own windows: those of the aggregate below, where it groups by them again.
fn window_width(windows: Windows, lowered: &Lowered) -> Span {
    match width(windows) {
        Span(0) => lowered.stages.iter().rev().map(|s| width(s.spec.windows)).find(|w| w.0 > 0).unwrap_or(Span(0)),
        own => own,
    }
}
