//! What jobs count, in Prometheus' text form: for a file that node_exporter's textfile collector picks up, or for an
//! embedder's own endpoint.
//!
//! A [`Metrics`] is a [`Progress`]: it keeps the last update of each job, and makes the text when it is asked for. Counters begin
//! anew with the process, as Prometheus expects. docs/operations.md lists every metric.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::{Error, EventTime, Result};
use watershed_lake::RequestCounts;
use watershed_runtime::{Progress, ProgressUpdate, Summary};

use crate::engine::Engine;

/// The jobs of a process, as they were last heard of.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    /// Told as well.
    next: Option<Arc<dyn Progress>>,
    /// Whose requests to stores are told.
    engine: Option<Engine>,
    jobs: Mutex<BTreeMap<String, Job>>,
}

struct Job {
    update: ProgressUpdate,
    running: bool,
    ended: Option<EventTime>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { clock: Arc::new(SystemClock::default()), next: None, engine: None, jobs: Mutex::default() }
    }
}

impl Metrics {
    /// Hands every update on to another.
    pub fn before(next: Arc<dyn Progress>) -> Self {
        Metrics { next: Some(next), ..Metrics::default() }
    }

    /// Tells the engine's requests to stores as well.
    pub fn of(self, engine: &Engine) -> Self {
        Metrics { engine: Some(engine.clone()), ..self }
    }

    /// A job has come to its end.
    pub fn ended(&self, summary: &Summary) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = jobs.entry(summary.job.clone()).or_insert_with(|| Job {
            update: ProgressUpdate::nothing_yet(),
            running: false,
            ended: None,
        });
        job.running = false;
        job.ended = Some(self.clock.now());
        let (update, run) = (&mut job.update, &summary.run);
        (update.slices, update.rows, update.written) = (run.slices, run.rows, run.written);
        (update.late, update.bad, update.account) = (run.late, run.bad, run.account);
        (update.repaired, update.repairs) = (run.repaired, summary.repairs);
        (update.watermark, update.epoch) = (summary.watermark, summary.epoch);
    }

    /// No job runs any more, however it ended.
    pub fn all_ended(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(|job| job.running = false);
    }

    /// The text.
    pub fn text(&self) -> Result<String> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let families = Families::new().map_err(odd)?;
        for (name, job) in jobs.iter() {
            families.set(name, job);
        }
        if let Some(engine) = &self.engine {
            families.set_requests(&engine.requests());
        }
        let mut text = vec![];
        TextEncoder::new().encode(&families.registry.gather(), &mut text).map_err(odd)?;
        String::from_utf8(text).map_err(|e| Error::bug(format!("metrics: {e}")))
    }

    /// Puts the text into a file, whole or not at all: whoever reads it meanwhile has the one before.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |e| Error::storage("could not write the metrics to", path.display().to_string(), e);
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        fs::write(&aside, self.text()?).map_err(failed)?;
        fs::rename(&aside, path).map_err(failed)
    }
}

impl Progress for Metrics {
    fn update(&self, job: &str, update: &ProgressUpdate) {
        if let Some(next) = &self.next {
            next.update(job, update);
        }
        let known = Job { update: update.clone(), running: true, ended: None };
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(job.to_string(), known);
    }

    fn note(&self, job: &str, text: &str) {
        if let Some(next) = &self.next {
            next.note(job, text);
        }
    }
}

/// Every metric there is, by job where it is one's.
struct Families {
    registry: Registry,
    rows: IntCounterVec,
    pruned: IntCounterVec,
    written: IntCounterVec,
    bytes: IntCounterVec,
    steps: IntCounterVec,
    commits: IntCounterVec,
    bytes_left: IntGaugeVec,
    epoch: IntGaugeVec,
    watermark: GaugeVec,
    lag: GaugeVec,
    lag_messages: GaugeVec,
    lag_bytes: GaugeVec,
    state: IntGaugeVec,
    state_bytes: IntGaugeVec,
    memory: IntGaugeVec,
    spilled: IntGaugeVec,
    repairs: IntGaugeVec,
    repaired: IntCounterVec,
    running: IntGaugeVec,
    ended: GaugeVec,
    elapsed: GaugeVec,
    requests: IntCounterVec,
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let whole = |name: &str, help: &str, labels: &[&str]| {
            let made = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let gauge = |name: &str, help: &str| {
            let made = GaugeVec::new(Opts::new(name, help), &["job"])?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        Ok(Families {
            rows: counter(
                "watershed_rows_total",
                "Rows read, by what became of each: used, filtered, late, bad, deleted",
                &["job", "outcome"],
            )?,
            pruned: counter(
                "watershed_pruned_total",
                "What statistics ruled out unread: rows, row_groups, files",
                &["job", "what"],
            )?,
            written: counter("watershed_written_rows_total", "Rows put into the result table", &["job"])?,
            bytes: counter("watershed_read_bytes_total", "Bytes of the files of finished steps", &["job"])?,
            steps: counter("watershed_steps_total", "Finished steps (slices)", &["job"])?,
            commits: counter("watershed_commits_total", "Epochs that put rows into a table", &["job"])?,
            bytes_left: whole("watershed_left_bytes", "Bytes of files that this run has still to read", &["job"])?,
            epoch: whole("watershed_epoch", "Number of the newest checkpoint", &["job"])?,
            watermark: gauge("watershed_watermark_seconds", "The watermark, in seconds since 1970")?,
            lag_messages: gauge("watershed_lag_messages", "Messages that the logs have and that were not read")?,
            lag_bytes: gauge(
                "watershed_lag_bytes",
                "Bytes that were not read: of files exactly, of the messages of logs by the size of those read lately",
            )?,
            lag: gauge("watershed_lag_seconds", "Event time from the watermark to the end of what may be read")?,
            state: whole("watershed_state", "What is held in memory: open windows, groups", &["job", "what"])?,
            state_bytes: whole("watershed_state_bytes", "Bytes of state in memory", &["job"])?,
            memory: whole(
                "watershed_memory_bytes",
                "Memory of all jobs of the process: used, and the limit",
                &["job", "what"],
            )?,
            spilled: whole("watershed_spilled_bytes", "Bytes of state on local disk", &["job"])?,
            repairs: whole(
                "watershed_repairs_waiting",
                "Stretches of windows that wait to be computed anew for late facts",
                &["job"],
            )?,
            repaired: counter(
                "watershed_repaired_rows_total",
                "Late rows for which windows are computed anew; among the rows that are late",
                &["job"],
            )?,
            running: whole("watershed_running", "1 while the job runs", &["job"])?,
            ended: gauge("watershed_ended_seconds", "When the job's run came to its end, in seconds since 1970")?,
            elapsed: gauge("watershed_elapsed_seconds", "How long the run has taken so far")?,
            requests: counter(
                "watershed_requests_total",
                "Requests of the process to stores: get, head, list, put, delete",
                &["kind"],
            )?,
            registry,
        })
    }

    fn set_requests(&self, requests: &RequestCounts) {
        for (kind, count) in requests.by_kind() {
            self.requests.with_label_values(&[kind]).inc_by(count);
        }
    }

    fn set(&self, name: &str, job: &Job) {
        let update = &job.update;
        let account = &update.account;
        let outcomes = [
            ("used", account.used),
            ("filtered", account.filtered),
            ("late", account.late),
            ("bad", account.bad),
            ("deleted", account.deleted),
        ];
        for (outcome, rows) in outcomes {
            self.rows.with_label_values(&[name, outcome]).inc_by(rows);
        }
        let pruned =
            [("rows", account.pruned_rows), ("row_groups", account.pruned_row_groups), ("files", account.pruned_files)];
        for (what, count) in pruned {
            self.pruned.with_label_values(&[name, what]).inc_by(count);
        }
        let counts = [
            (&self.written, update.written),
            (&self.bytes, update.bytes),
            (&self.steps, update.slices),
            (&self.commits, update.commits),
            (&self.repaired, update.repaired),
        ];
        for (family, count) in counts {
            family.with_label_values(&[name]).inc_by(count);
        }
        let gauges = [
            (&self.bytes_left, update.bytes_total.saturating_sub(update.bytes)),
            (&self.epoch, update.epoch),
            (&self.state_bytes, update.state.bytes as u64),
            (&self.spilled, update.state.spilled as u64),
            (&self.repairs, update.repairs as u64),
            (&self.running, u64::from(job.running)),
        ];
        for (family, value) in gauges {
            family.with_label_values(&[name]).set(whole(value));
        }
        for (what, value) in [("windows", update.state.windows), ("groups", update.state.groups)] {
            self.state.with_label_values(&[name, what]).set(whole(value as u64));
        }
        for (what, value) in [("used", Some(update.memory_used)), ("limit", update.memory_limit)] {
            if let Some(value) = value {
                self.memory.with_label_values(&[name, what]).set(whole(value));
            }
        }
        if let Some(watermark) = update.watermark {
            self.watermark.with_label_values(&[name]).set(seconds(watermark));
        }
        if let Some(lag) = update.lag_messages {
            self.lag_messages.with_label_values(&[name]).set(lag as f64);
        }
        if let Some(lag) = update.lag_bytes {
            self.lag_bytes.with_label_values(&[name]).set(lag as f64);
        }
        if let Some(lag) = update.lag() {
            self.lag.with_label_values(&[name]).set(lag.0 as f64 / 1e6);
        }
        if let Some(ended) = job.ended {
            self.ended.with_label_values(&[name]).set(seconds(ended));
        }
        self.elapsed.with_label_values(&[name]).set(update.elapsed.as_secs_f64());
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn seconds(EventTime(micros): EventTime) -> f64 {
    micros as f64 / 1e6
}

fn odd(e: prometheus::Error) -> Error {
    Error::bug(format!("metrics: {e}"))
}
