//! From a sample to the whole run: rows into windows, groups out of rows, bytes out of groups. Pure.
//!
//! Rows are taken to be spread evenly over a step's time and over keys. How many keys there are follows from the sample: of
//! `d` keys seen in `n` rows, that there are `D` with `d = D (1 - (1 - 1/D)^n)`. So a sample of a part of a window's rows tells
//! about how many groups all of them make, which a plain ratio would not.

use std::collections::BTreeMap;

use watershed_core::EventTime;
use watershed_core::time::Span;
use watershed_operators::{WindowEnd, WindowForm, Windows};
use watershed_plan::Lowered;

use super::sample::{Sampled, StageSample};
use super::{Estimate, Requests};

/// Panes of a step beyond which they are not followed one by one.
const FOLLOWED: f64 = 512.0;

/// Requests of a run whatever it reads: catalog, newest checkpoint, logs and listings; word of its begin and end, and the number
/// it takes; and of the first run alone its catalog entries and its table.
const LOOKED_UP: f64 = 35.0;
const BEGUN_AND_ENDED: f64 = 3.0;
const MADE_ONCE: f64 = 3.0;

/// A step of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) from: EventTime,
    pub(super) until: EventTime,
    pub(super) bytes: u64,
    /// As far as the list tells.
    pub(super) rows: Option<u64>,
    pub(super) files: u64,
    pub(super) watermark: EventTime,
}

/// A stage's windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Form {
    /// Microseconds.
    pane: f64,
    size: f64,
    /// Panes that the windows which end with a pane have: one number a window.
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tumbling,
    Hop,
    Cumulate,
}

pub(super) struct Model<'a> {
    pub(super) sampled: &'a Sampled,
    pub(super) forms: Vec<Form>,
    /// Where the run begins.
    pub(super) watermark: Option<EventTime>,
}

/// The windows of each stage, from the lowest up.
pub(super) fn forms(lowered: &Lowered) -> Vec<Form> {
    let span = |end: WindowEnd| match end {
        WindowEnd::Fixed(Span(micros)) => micros as f64,
        WindowEnd::Months(n) => f64::from(n) * 30.4375 * Span::DAY.0 as f64,
    };
    let mut below = Span::HOUR.0 as f64;
    let mut forms = vec![];
    for stage in &lowered.stages {
        let form = match stage.spec.windows {
            Windows::Single(end) => {
                // Nothing of its own: the windows below, grouped again.
                let size = if span(end) > 0.0 { span(end) } else { below };
                Form { pane: size, size, kind: Kind::Tumbling }
            }
            Windows::Paned(form) => Form {
                pane: span(form.pane_end()),
                size: span(form.end()),
                kind: if matches!(form, WindowForm::Cumulate { .. }) { Kind::Cumulate } else { Kind::Hop },
            },
        };
        below = form.size;
        forms.push(form);
    }
    forms
}

/// How many keys there are, of which `seen` were in `rows` rows.
fn domain(seen: f64, rows: f64) -> f64 {
    if seen <= 0.0 || rows <= seen * 1.000_001 {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (seen, seen * 1e6);
    for _ in 0..100 {
        let middle = (low * high).sqrt();
        if distinct(middle, rows) < seen { low = middle } else { high = middle }
    }
    high
}

/// How many of `keys` keys are in `rows` rows.
fn distinct(keys: f64, rows: f64) -> f64 {
    if keys.is_infinite() { rows } else { -keys * (rows * (-1.0 / keys.max(1.000_001)).ln_1p()).exp_m1() }
}

/// A stage as it goes through the run.
struct Stage {
    form: Form,
    keys: f64,
    group_bytes: f64,
    /// Part of the panes that have rows at all.
    density: f64,
    /// Rows by pane, for those still open.
    open: BTreeMap<i64, f64>,
    /// Rows of windows that came and went within a step.
    passed: f64,
}

impl Stage {
    fn new(form: Form, sample: &StageSample, density: f64) -> Self {
        let windows = (sample.windows as f64).max(1.0);
        let (rows, groups) = (sample.rows as f64 / windows, sample.groups as f64 / windows);
        let group_bytes = sample.bytes as f64 / (sample.groups as f64).max(1.0);
        Stage { form, keys: domain(groups, rows), group_bytes, density, open: BTreeMap::new(), passed: 0.0 }
    }

    /// Takes rows of a stretch of time; gives what is held then, windows and groups.
    fn take(&mut self, from: f64, until: f64, rows: f64) -> (f64, f64) {
        let width = (until - from).max(1.0);
        let pane = self.form.pane.max(1.0);
        let panes = width / pane;
        if panes > FOLLOWED {
            let each = rows / (panes * self.density).max(1.0);
            let held: f64 = self.open.values().map(|r| distinct(self.keys, *r)).sum();
            let (mut windows, mut groups) = (panes * self.density, panes * self.density * distinct(self.keys, each));
            windows += self.open.len() as f64;
            groups += held;
            // Those of the last windows stay.
            let stay = (self.form.size / pane).ceil().min(FOLLOWED) as i64;
            let last = (until / pane).floor() as i64;
            let span = (self.form.size / pane).round().max(1.0);
            let a_window = match self.form.kind {
                Kind::Tumbling => self.window(each, 1.0),
                Kind::Hop => self.window(each * span, span),
                Kind::Cumulate => (1..=span as i64).map(|n| self.window(each * n as f64, n as f64)).sum::<f64>() / span,
            };
            self.passed += (panes - stay as f64) * a_window;
            (last - stay..last).for_each(|p| *self.open.entry(p).or_default() += each);
            return (windows, groups);
        }
        let mut at = from;
        while at < until {
            let number = (at / pane).floor();
            let end = ((number + 1.0) * pane).min(until);
            // Panes without rows are taken to lie side by side; it makes no difference to sums.
            *self.open.entry(number as i64).or_default() += rows * (end - at) / width / self.density;
            at = if end > at { end } else { until };
        }
        let groups: f64 = self.open.values().map(|rows| distinct(self.keys, *rows)).sum();
        (self.open.len() as f64 * self.density, groups * self.density)
    }

    /// Groups of a window over so many panes, times the part of such windows that have rows, over that of panes. `rows` are those
    /// of its panes as if each had some: of several panes one with rows is enough, where these lie scattered.
    fn window(&self, rows: f64, panes: f64) -> f64 {
        let filled = 1.0 - (1.0 - self.density).powf(panes);
        distinct(self.keys, rows * self.density / filled) * filled / self.density
    }

    /// What is put out up to a watermark.
    fn advance(&mut self, before: f64, watermark: f64) -> f64 {
        let (pane, size) = (self.form.pane.max(1.0), self.form.size);
        let panes = (size / pane).round().max(1.0) as i64;
        let mut out = std::mem::take(&mut self.passed);
        let Some((first, last)) =
            self.open.first_key_value().map(|(k, _)| *k).zip(self.open.last_key_value().map(|(k, _)| *k))
        else {
            return out * self.density;
        };
        let rows = |open: &BTreeMap<i64, f64>, from: i64, to: i64| open.range(from..=to).map(|(_, r)| r).sum::<f64>();
        let ends = match self.form.kind {
            Kind::Hop => last + panes - 1,
            _ => last,
        };
        for end in first..=ends {
            let at = (end + 1) as f64 * pane;
            if at <= before || at > watermark {
                continue;
            }
            let begin = match self.form.kind {
                Kind::Tumbling => end,
                Kind::Hop => end - panes + 1,
                Kind::Cumulate => end - end.rem_euclid(panes),
            };
            out += self.window(rows(&self.open, begin, end), (end - begin + 1) as f64);
        }
        let closed = |p: i64| match self.form.kind {
            Kind::Tumbling => (p + 1) as f64 * pane,
            Kind::Hop => (p + panes) as f64 * pane,
            Kind::Cumulate => (p - p.rem_euclid(panes) + panes) as f64 * pane,
        };
        self.open.retain(|p, _| closed(*p) > watermark);
        out * self.density
    }
}

impl Model<'_> {
    pub(super) fn apply(&self, steps: &[Step], by_day: bool, told: &mut Estimate) {
        let sampled = self.sampled;
        let account = &sampled.account;
        let all_rows = (account.opened + account.pruned_rows + account.deleted) as f64;
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let rows_a_byte = ratio(all_rows, sampled.file_bytes as f64);
        let opened = ratio(account.opened as f64, all_rows);
        let used = ratio(account.used as f64, all_rows);
        let mut stages: Vec<Stage> = vec![];
        for (i, (form, sample)) in self.forms.iter().zip(&sampled.stages).enumerate() {
            let density = if i == 0 { self.density(*form, sample, steps) } else { 1.0 };
            stages.push(Stage::new(*form, sample, density));
        }
        let finished = ratio(sampled.output_rows() as f64, sampled.stages.last().map_or(0.0, |s| s.emitted as f64));
        let (mut rows, mut used_rows, mut output) = (0.0, 0.0, 0.0);
        let mut before = self.watermark.map_or(f64::MIN, |w| w.0 as f64);
        for step in steps {
            let there = step.rows.map_or(step.bytes as f64 * rows_a_byte, |rows| rows as f64);
            rows += there * opened;
            used_rows += there * used;
            let watermark = if step.watermark == EventTime::MAX { f64::MAX } else { step.watermark.0 as f64 };
            let (mut entering, mut windows, mut groups, mut bytes) = (there * used, 0f64, 0.0, 0.0);
            for stage in &mut stages {
                let held = stage.take(step.from.0 as f64, step.until.0 as f64, entering);
                windows = windows.max(held.0);
                groups += held.1;
                bytes += held.1 * stage.group_bytes;
                entering = stage.advance(before, watermark);
            }
            told.peak_windows = told.peak_windows.max(windows.round() as u64);
            told.peak_groups = told.peak_groups.max(groups.round() as u64);
            told.peak_bytes = told.peak_bytes.max(bytes.round() as u64);
            output += if stages.is_empty() {
                there * ratio(sampled.output_rows() as f64, all_rows)
            } else {
                entering * finished
            };
            before = watermark;
        }
        told.rows = rows.round() as u64;
        told.used_rows = used_rows.round() as u64;
        told.output_rows = output.round() as u64;
        told.read_bytes = (told.file_bytes as f64 * ratio(sampled.read_bytes as f64, sampled.file_bytes as f64)) as u64;
        let seconds = ratio(sampled.calibration.seconds, sampled.file_bytes as f64) * told.file_bytes as f64;
        told.seconds = seconds;
        // Where windows are wider than a day, not every day has one that begins.
        let every = |form: &Form| if form.kind == Kind::Cumulate { form.size } else { form.pane };
        let begin = self.forms.last().map_or(1.0, |form| (Span::DAY.0 as f64 / every(form)).min(1.0));
        let files = if by_day { (days(steps) * begin).max(1.0) } else { (seconds / 10.0).ceil().max(1.0) };
        let each = (output / files).round().max(1.0) as u64;
        told.output_bytes = (sampled.file_size(each).unwrap_or(0.0) * (output / each as f64)).round() as u64;
        let groups_a_file = ratio(account.row_groups as f64, account.files as f64);
        let steps_files: u64 = steps.iter().map(|s| s.files).sum();
        let epochs = epochs(seconds).min(steps.len().max(1) as f64);
        // Footers and row groups; of an epoch its manifest, its commit, and a state file in between.
        let first = if told.resumes { 0.0 } else { MADE_ONCE };
        told.requests = Requests {
            reads: (LOOKED_UP + steps_files as f64 * (1.0 + groups_a_file) + epochs * 4.0).round() as u64,
            writes: (first + BEGUN_AND_ENDED + files.max(epochs) + epochs * 3.0).round() as u64,
        };
    }

    /// Part of the panes that have rows, where the sample can tell.
    fn density(&self, form: Form, sample: &StageSample, steps: &[Step]) -> f64 {
        let time: f64 =
            self.sampled.steps.iter().filter_map(|i| steps.get(*i)).map(|s| (s.until.0 - s.from.0) as f64).sum();
        let panes = time / form.pane.max(1.0);
        match self.sampled.whole && panes >= 1.0 && sample.windows > 0 {
            true => (sample.windows as f64 / panes).clamp(0.001, 1.0),
            false => 1.0,
        }
    }
}

/// How many epochs a run of so many seconds has: the first follow closely, later ones take the commit interval's default.
fn epochs(seconds: f64) -> f64 {
    let (mut at, mut epochs) = (0.0, 0.0);
    while at < seconds && at < 320.0 {
        at += (at / 32.0).max(0.25);
        epochs += 1.0;
    }
    (epochs + ((seconds - at) / 10.0).max(0.0)).ceil().max(1.0)
}

/// Days that the steps' windows lie in.
fn days(steps: &[Step]) -> f64 {
    let with_files = steps.iter().filter(|s| s.files > 0);
    with_files.map(|s| ((s.until.0 - s.from.0) as f64 / Span::DAY.0 as f64).max(0.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_a_part_of_them() {
        for keys in [1.0, 10.0, 1_000.0, 1_000_000.0] {
            for rows in [keys * 0.3, keys, keys * 5.0] {
                let seen = distinct(keys, rows);
                if rows >= 3.0 && seen < rows * 0.999 && keys > 1.0 {
                    let found = domain(seen, rows);
                    assert!((found / keys - 1.0).abs() < 0.01, "{keys} keys, {rows} rows, {seen} seen: {found}");
                }
            }
        }
        assert_eq!(domain(5.0, 5.0), f64::INFINITY);
        assert_eq!(distinct(f64::INFINITY, 7.0), 7.0);
    }

    /// Every second pane has rows, and nearly every window of several.
    #[test]
    fn panes_without_rows_leave_windows_with_some() {
        let mut stage = stage(10.0, 60.0, Kind::Hop);
        stage.density = 0.5;
        stage.take(0.0, 1_000.0, 50_000.0);
        let out = stage.advance(f64::MIN, f64::MAX);
        assert!((1_000.0..1_060.0).contains(&out), "{out}");
    }

    #[test]
    fn epochs_follow_closely_at_first() {
        assert_eq!([0.0, 0.1, 1.0].map(epochs), [1.0, 1.0, 4.0]);
        let (hour, day) = (epochs(3_600.0), epochs(86_400.0));
        assert!((430.0..520.0).contains(&hour) && (day - hour - 8_280.0).abs() < 2.0, "{hour} {day}");
    }

    fn stage(pane: f64, size: f64, kind: Kind) -> Stage {
        Stage {
            form: Form { pane, size, kind },
            keys: 10.0,
            group_bytes: 1.0,
            density: 1.0,
            open: BTreeMap::new(),
            passed: 0.0,
        }
    }

    /// A hundred rows of ten keys in each of six panes.
    #[test]
    fn windows_are_emitted_once() {
        for (kind, size, windows) in [(Kind::Tumbling, 10.0, 6.0), (Kind::Hop, 30.0, 8.0), (Kind::Cumulate, 30.0, 6.0)]
        {
            let mut stage = stage(10.0, size, kind);
            let mut out = 0.0;
            let mut before = f64::MIN;
            for step in 0..3 {
                let from = f64::from(step) * 20.0;
                let held = stage.take(from, from + 20.0, 200.0);
                assert!(held.1 >= 19.9 && held.1 <= 60.1, "{kind:?} {held:?}");
                let watermark = if step == 2 { f64::MAX } else { from + 20.0 };
                out += stage.advance(before, watermark);
                before = watermark;
            }
            assert!((out / 10.0 - windows).abs() < 0.01, "{kind:?}: {out}");
            assert!(stage.open.is_empty());
        }
        // The same where there are too many to be followed one by one.
        for (kind, size) in [(Kind::Tumbling, 10.0), (Kind::Hop, 30.0), (Kind::Cumulate, 30.0)] {
            let mut stage = stage(10.0, size, kind);
            stage.take(0.0, 20_000.0, 200_000.0);
            let out = stage.advance(f64::MIN, f64::MAX);
            assert!((out / 20_000.0 - 1.0).abs() < 0.01, "{kind:?}: {out}");
        }
    }
}
