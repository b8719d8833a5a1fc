//! What `run` shows while it runs: bars on a terminal, a line every few seconds elsewhere, or JSON.
//!
//! Progress goes to standard error, so that standard output stays for results; with `--json` it *is* the output, one
//! object a line. Where a sink writes its rows to standard output, everything else goes to standard error. Nothing here
//! waits: a run must not be held up by who watches it.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use watershed::Engine;
use watershed::runtime::{Progress, ProgressUpdate, Summary};
use watershed_core::EventTime;
use watershed_core::account::Account;

/// Between two lines of one job.
const EVERY: Duration = Duration::from_secs(5);

/// Shows progress in the way that fits where it goes.
pub(crate) struct Shown {
    how: How,
    /// Where summaries and notes go.
    to: To,
}

enum How {
    Bars(Arc<Bars>),
    Lines(Arc<Lines>),
    Json(Arc<Json>),
}

#[derive(Clone, Copy)]
enum To {
    Stdout,
    Stderr,
}

impl To {
    /// A reader that is gone is no reason to stop a job.
    fn line(self, line: &str) {
        let _ = match self {
            To::Stdout => writeln!(std::io::stdout(), "{line}"),
            To::Stderr => writeln!(std::io::stderr(), "{line}"),
        };
    }
}

impl Shown {
    /// `aside`: standard output is for rows.
    pub(crate) fn new(json: bool, aside: bool) -> Self {
        let to = if aside { To::Stderr } else { To::Stdout };
        // Bars and rows would write over each other.
        let on_one_screen = aside && std::io::stdout().is_terminal();
        let how = if json {
            How::Json(Arc::new(Json(to)))
        } else if std::io::stderr().is_terminal() && !on_one_screen {
            How::Bars(Arc::new(Bars::new()))
        } else {
            How::Lines(Arc::new(Lines::default()))
        };
        Shown { how, to }
    }

    pub(crate) fn progress(&self) -> Arc<dyn Progress> {
        match &self.how {
            How::Bars(bars) => bars.clone(),
            How::Lines(lines) => lines.clone(),
            How::Json(json) => json.clone(),
        }
    }

    /// A job is through: one line, whatever was shown before.
    pub(crate) fn summary(&self, summary: &Summary) {
        match &self.how {
            How::Bars(bars) => bars.forget(&summary.job),
            How::Lines(_) => {}
            How::Json(_) => {
                self.json(&json!({
                    "event": "summary",
                    "job": summary.job,
                    "nothing_new": summary.nothing_new,
                    "stopped": summary.stopped,
                    "paused": summary.paused.map(|since| since.to_string()),
                    "given_up": summary.given_up,
                    "run": summary.run,
                    "total": summary.total,
                    "watermark": summary.watermark.map(|w| w.to_string()),
                    "epoch": summary.epoch,
                    "elapsed_ms": millis(summary.elapsed),
                    "peak": summary.peak,
                }));
                return;
            }
        }
        self.to.line(&summary_line(summary));
    }

    /// What the stores were asked in all, of which people are told where a request costs something.
    pub(crate) fn requests(&self, engine: &Engine) {
        let requests = engine.requests();
        match &self.how {
            How::Json(_) => self.json(&json!({ "event": "requests", "requests": requests })),
            _ if engine.is_remote() => {
                let kinds = requests.by_kind().map(|(kind, n)| format!("{} {kind}", count(n)));
                self.to.line(&format!("requests to stores: {}", kinds.join(", ")));
            }
            _ => {}
        }
    }

    /// Anything else that a statement has to say.
    pub(crate) fn note(&self, text: &str) {
        match &self.how {
            How::Json(_) => self.json(&json!({ "event": "note", "text": text })),
            _ => self.to.line(text),
        }
    }

    fn json(&self, value: &serde_json::Value) {
        self.to.line(&value.to_string());
    }
}

/// A bar a job.
pub(crate) struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        Bars { all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)), bars: Mutex::default() }
    }

    fn forget(&self, job: &str) {
        if let Some(bar) = lock(&self.bars).remove(job) {
            bar.finish_and_clear();
        }
    }

    fn new_bar(&self, job: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new(0));
        let style = ProgressStyle::with_template("{prefix:>16.bold} {bar:24} {percent:>3}%  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(job.to_string());
        bar
    }
}

impl Progress for Bars {
    fn update(&self, job: &str, update: &ProgressUpdate) {
        let mut bars = lock(&self.bars);
        let bar = bars.entry(job.to_string()).or_insert_with(|| self.new_bar(job));
        bar.set_length(update.bytes_total.max(1));
        bar.set_position(update.bytes.min(update.bytes_total));
        bar.set_message(text(update));
    }

    fn note(&self, job: &str, text: &str) {
        let _ = self.all.println(format!("{job}: {text}"));
    }
}

/// A line a job, now and then.
#[derive(Default)]
pub(crate) struct Lines {
    said: Mutex<HashMap<String, Duration>>,
}

impl Progress for Lines {
    fn update(&self, job: &str, update: &ProgressUpdate) {
        let mut said = lock(&self.said);
        let last = said.entry(job.to_string()).or_default();
        if update.elapsed >= *last + EVERY {
            *last = update.elapsed;
            let done = percent(update).map(|p| format!("{p} %, ")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "{job}: {done}{}", text(update));
        }
    }

    fn note(&self, job: &str, text: &str) {
        let _ = writeln!(std::io::stderr(), "{job}: {text}");
    }
}

/// An object an update.
pub(crate) struct Json(To);

impl Progress for Json {
    fn update(&self, job: &str, update: &ProgressUpdate) {
        let update = json!({
            "event": "progress",
            "job": job,
            "elapsed_ms": millis(update.elapsed),
            "eta_ms": update.eta().map(millis),
            "slices": update.slices,
            "rows": update.rows,
            "bytes": update.bytes,
            "bytes_total": update.bytes_total,
            "written": update.written,
            "late": update.late,
            "repaired": update.repaired,
            "repairs_waiting": update.repairs,
            "bad": update.bad,
            "watermark": update.watermark.map(|w| w.to_string()),
            "epoch": update.epoch,
            "lag_messages": update.lag_messages,
            "lag_bytes": update.lag_bytes,
            "lag_ms": update.lag().map(|lag| lag.0 / 1000),
            "account": update.account,
            "state": {
                "windows": update.state.windows,
                "groups": update.state.groups,
                "bytes": update.state.bytes,
                "spilled": update.state.spilled,
            },
        });
        self.0.line(&update.to_string());
    }

    fn note(&self, job: &str, text: &str) {
        self.0.line(&json!({ "event": "note", "job": job, "text": text }).to_string());
    }
}

fn percent(update: &ProgressUpdate) -> Option<u64> {
    // A log has no end.
    if update.lag_messages.is_some() {
        return None;
    }
    (update.bytes * 100).checked_div(update.bytes_total).map(|p| p.min(100))
}

fn text(update: &ProgressUpdate) -> String {
    let seconds = update.elapsed.as_secs_f64().max(0.001);
    let mut parts = vec![
        format!("{} slices", update.slices),
        format!("{} rows", count(update.rows)),
        format!("{} rows/s", count((update.rows as f64 / seconds) as u64)),
        format!("{}/s", bytes((update.bytes as f64 / seconds) as u64)),
    ];
    parts.extend(update.watermark.filter(|w| *w > EventTime::MIN).map(|w| format!("watermark {w}")));
    parts.extend(update.lag_messages.map(|n| format!("{} messages behind", count(n))));
    parts.extend(update.eta().filter(|eta| !eta.is_zero()).map(|eta| format!("{} left", time(eta))));
    parts.extend((update.late > 0).then(|| format!("{} late", count(update.late))));
    parts.extend((update.repaired > 0).then(|| format!("{} late put right", count(update.repaired))));
    parts.extend((update.repairs > 0).then(|| format!("{} stretches of windows to put right", update.repairs)));
    parts.extend((update.bad > 0).then(|| format!("{} bad", count(update.bad))));
    parts.join(", ")
}

fn summary_line(summary: &Summary) -> String {
    let watermark =
        summary.watermark.filter(|w| *w > EventTime::MIN).map(|w| format!(", watermark {w}")).unwrap_or_default();
    if let Some(since) = summary.paused {
        let job = &summary.job;
        return format!(
            "{job}: paused since {since}, nothing was read; `watershed resume {job}` lets runs go on{watermark}"
        );
    }
    if summary.stopped && summary.nothing_new {
        return format!("{}: nothing was read; stopped, run again to go on", summary.job);
    }
    if let Some(given_up) = summary.given_up {
        return format!(
            "{}: stopped within a slice; kept is checkpoint {}{watermark}, with {} rows in {} slices of this run; {} more \
             finished slices and the one in hand are read again by the next run; run again to go on",
            summary.job,
            summary.epoch,
            count(summary.run.rows),
            summary.run.slices,
            given_up.slices
        );
    }
    if summary.nothing_new {
        return format!("{}: nothing new{}{watermark}", summary.job, put_right(summary));
    }
    let run = &summary.run;
    let aside = match (run.late, run.bad) {
        (0, 0) => String::new(),
        (late, bad) => format!(", kept aside {} late and {} bad rows", count(late), count(bad)),
    };
    let aside = aside + &put_right(summary);
    let account = &run.account;
    let seconds = summary.elapsed.as_secs_f64().max(0.001);
    format!(
        "{}: {} rows in {} slices read in {} ({} rows/s), {} used, {} filtered, {} rows written{aside}{}, epoch {}{watermark}{}",
        summary.job,
        count(account.opened),
        run.slices,
        time(summary.elapsed),
        count((account.opened as f64 / seconds) as u64),
        count(account.used),
        count(account.filtered),
        count(run.written),
        passed_over(account),
        summary.epoch,
        if summary.stopped { "; stopped, run again to go on" } else { "" }
    )
}

/// What became of late facts for which windows are computed anew.
fn put_right(summary: &Summary) -> String {
    let mut text = String::new();
    if summary.run.repaired > 0 {
        text += &format!(", {} late rows whose windows are computed anew", count(summary.run.repaired));
    }
    if summary.repairs > 0 {
        text += &format!(
            " ({} stretches of windows wait until the history has all that was read)",
            count(summary.repairs as u64)
        );
    }
    text
}

/// What was not read, and why.
fn passed_over(account: &Account) -> String {
    let mut text = String::new();
    if account.partly_late > 0 {
        text += &format!(" ({} of the late ones used in other windows)", count(account.partly_late));
    }
    if account.deleted > 0 {
        text += &format!(", {} deleted rows passed over", count(account.deleted));
    }
    if account.pruned_row_groups + account.pruned_files > 0 {
        let (files, groups, rows) = (account.pruned_files, account.pruned_row_groups, account.pruned_rows);
        text += &format!(
            ", ruled out unread: {} files and {} row groups of {} rows",
            count(files),
            count(groups),
            count(rows)
        );
    }
    text
}

/// `1,234,567`
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12.3 MB`
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1.2 s`, `3 min 4 s`, `2 h 5 min`
pub(crate) fn time(d: Duration) -> String {
    match d.as_secs() {
        0..60 => format!("{:.1} s", d.as_secs_f64()),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn print_line(line: &str) {
    To::Stdout.line(line);
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_people_read_them() {
        assert_eq!([count(0), count(999), count(1000), count(1234567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([bytes(999), bytes(1500), bytes(2_000_000_000)], ["999 B", "1.5 kB", "2.0 GB"]);
        let times = [1500, 61_000, 7_500_000].map(|ms| time(Duration::from_millis(ms)));
        assert_eq!(times, ["1.5 s", "1 min 1 s", "2 h 5 min"]);
    }
}
