//! What an operator asks of a job from outside, read every second while a run is live.
//!
//! ```text
//!  watershed alter/pause/stop ──▶ {home}/jobs/{job}/{incarnation}/control.json ──every second──▶ a live run's warden
//!          ◀── seen.json: "I have read request …" ──────────────────────────────────────────────┘   │
//!                                                         limits ─▶ pace   rest ─▶ safe point   stop ─▶ stop
//! ```
//!
//! The warden is a task of its own beside the run. It also asks the schedule, so one place says whether a run may go on. A
//! reading that fails is logged and tried again: control is no reason for a job to fail.
//!
//! A run that must rest does so at the next safe point, with everything committed. If the step in hand is not through by
//! then, its scans are held where they are, within the slice, and go on from there.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;
use watershed_core::clock::Clock;
use watershed_core::control::{Control, FORMAT, Seen};
use watershed_core::schedule::{Opening, Schedule};
use watershed_core::settings::Settings;
use watershed_core::{Error, EventTime, Result};

use crate::job::{Context, Job};
use crate::pace::Pacer;
use crate::stop::{PATIENCE, Stop};

/// How often the object is read, and the schedule asked.
const EVERY: Duration = Duration::from_secs(1);

/// The control objects of one job.
#[derive(Clone, Debug)]
pub struct ControlFile {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl ControlFile {
    pub fn new(store: Arc<dyn ObjectStore>, home: &Path, job: &str, incarnation: Uuid) -> Self {
        ControlFile { store, root: home.clone().join("jobs").join(job).join(incarnation.to_string()) }
    }

    /// What is asked; of a job that nobody asked anything of, nothing.
    pub async fn read(&self) -> Result<Control> {
        Ok(self.get("control.json").await?.unwrap_or_default())
    }

    /// Asks. Of two who ask at once, the later one counts, whole.
    pub async fn write(&self, control: &Control) -> Result<()> {
        self.put("control.json", control).await
    }

    /// The last request that a live run has answered.
    pub async fn seen(&self) -> Result<Option<Seen>> {
        self.get("seen.json").await
    }

    async fn answer(&self, seen: &Seen) -> Result<()> {
        self.put("seen.json", seen).await
    }

    async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.root.clone().join(name);
        let read = async { self.store.get(&path).await?.bytes().await };
        let bytes = match read.await {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(Error::storage("reading", path.as_ref(), e)),
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |e: serde_json::Error| Error::input(format!("{path} cannot be read: {e}; remove it"));
        let Format { format } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if format != FORMAT {
            return Err(Error::input(format!(
                "{path} has format {format}, and this version of Watershed reads format {FORMAT}; use the version that \
                 wrote it, or remove it"
            )));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
    }

    async fn put<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.root.clone().join(name);
        let body = serde_json::to_vec(value).map_err(|e| Error::bug(e.to_string()))?;
        let put = self.store.put(&path, PutPayload::from(body)).await;
        put.map(|_| ()).map_err(|e| Error::storage_unknown("writing", path.as_ref(), e))
    }
}

/// Whether a run may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Go,
    /// Until it is resumed.
    Pause {
        since: EventTime,
    },
    /// Until its hours come.
    Close {
        schedule: Schedule,
        until: EventTime,
    },
}

/// What holds at a moment, given what was asked and the settings with it.
fn order(control: &Control, settings: &Settings, now: EventTime) -> Order {
    if let Some(since) = control.paused_since() {
        return Order::Pause { since };
    }
    match &settings.schedule {
        Some(schedule) => match schedule.at(now) {
            Opening::Open(_) => Order::Go,
            Opening::Closed(until) => Order::Close { schedule: schedule.clone(), until },
        },
        None => Order::Go,
    }
}

impl Order {
    /// Why a run rests, and what makes it go on.
    pub(crate) fn words(&self, job: &str) -> String {
        match self {
            Order::Go => "goes on".to_string(),
            Order::Pause { since } => format!("paused since {since}; `watershed resume {job}` lets it go on"),
            Order::Close { schedule, until } => format!("at rest outside of its hours ({schedule}) until {until}"),
        }
    }
}

/// What a run heeds while it goes: dropped with it.
pub(crate) struct Reins {
    pub(crate) pacer: Pacer,
    /// Of this job alone; that of the whole process is in the context.
    pub(crate) stop: Stop,
    orders: watch::Receiver<Order>,
    _warden: SpawnedTask<()>,
}

impl Reins {
    /// Reads what is asked for the first time and sets the warden up.
    pub(crate) async fn take(job: &Job, context: &Context, stop: Stop, attempt: Uuid) -> Reins {
        let file = ControlFile::new(Arc::clone(&context.home), &context.home_path, &job.name, job.incarnation);
        let control = file.read().await.unwrap_or_else(|e| {
            tracing::warn!(job = job.name, "what is asked of the job could not be read, and is tried again: {e}");
            Control::default()
        });
        let settings = control.over(&job.settings);
        let pacer = Pacer::new(Arc::clone(&context.clock), &settings);
        let (send, orders) = watch::channel(order(&control, &settings, context.clock.now()));
        if !control.words().is_empty() {
            context.progress.note(&job.name, &format!("as altered: {}", control.words()));
        }
        let warden = Warden {
            job: job.name.clone(),
            settings: job.settings.clone(),
            context: context.clone(),
            file,
            attempt,
            control,
            pacer: pacer.clone(),
            stop: stop.clone(),
            orders: send,
            resting: None,
            troubled: false,
        };
        Reins { pacer, stop, orders, _warden: SpawnedTask::spawn(warden.watch()) }
    }

    pub(crate) fn order(&self) -> Order {
        self.orders.borrow().clone()
    }

    /// Waits for the hours in which the job may run, or for a stop.
    pub(crate) async fn opened(&self, job: &str, context: &Context) {
        let asked = Asked { all: &context.stop, own: &self.stop };
        while let order @ Order::Close { .. } = self.order() {
            context.progress.note(job, &order.words(job));
            tokio::select! {
                () = self.other_than(&order) => {}
                () = asked.asked() => return,
            }
        }
    }

    /// Ready when the order is another than this.
    pub(crate) async fn other_than(&self, order: &Order) {
        let mut orders = self.orders.clone();
        // The warden ends with this; without one there is nothing to wait for.
        let _ = orders.wait_for(|now| now != order).await;
    }
}

struct Warden {
    job: String,
    /// Without what was altered.
    settings: Settings,
    context: Context,
    file: ControlFile,
    attempt: Uuid,
    control: Control,
    pacer: Pacer,
    stop: Stop,
    orders: watch::Sender<Order>,
    /// When the run was told to rest, by the clock's elapsed time.
    resting: Option<Duration>,
    troubled: bool,
}

impl Warden {
    async fn watch(mut self) {
        loop {
            tokio::time::sleep(EVERY).await;
            match self.file.read().await {
                Ok(control) => {
                    self.troubled = false;
                    if control.id != self.control.id {
                        self.heed(control).await;
                    }
                }
                Err(e) if self.troubled => tracing::debug!(job = self.job, "{e}"),
                Err(e) => {
                    self.troubled = true;
                    tracing::warn!(
                        job = self.job,
                        "what is asked of the job could not be read, and is tried again: {e}"
                    );
                }
            }
            self.look();
        }
    }

    /// Takes on a request, and says so where whoever asked will look.
    async fn heed(&mut self, control: Control) {
        if control.altered != self.control.altered {
            let words = if control.altered.is_empty() { "nothing".to_string() } else { control.words() };
            self.context.progress.note(&self.job, &format!("altered: {words}"));
            self.pacer.limit(&control.over(&self.settings));
        }
        if control.stop.is_some() && control.stop != self.control.stop {
            self.context.progress.note(&self.job, "asked to stop: stopping at the next safe point");
            self.stop.request();
        }
        self.control = control;
        let seen = Seen { format: FORMAT, id: self.control.id, attempt: self.attempt, at: self.context.clock.now().0 };
        if let Err(e) = self.file.answer(&seen).await {
            tracing::warn!(job = self.job, "a request was heeded, but could not be answered: {e}");
        }
    }

    /// Brings the order up to date, and holds the scans of a step that would not end.
    fn look(&mut self) {
        let settings = self.control.over(&self.settings);
        let order = order(&self.control, &settings, self.context.clock.now());
        let rests = order != Order::Go;
        self.orders.send_if_modified(|now| {
            let changed = *now != order;
            *now = order;
            changed
        });
        let now = self.context.clock.elapsed();
        match (rests, self.resting) {
            (false, None) => {}
            (false, Some(_)) => {
                self.resting = None;
                self.pacer.hold(false);
            }
            (true, None) => self.resting = Some(now),
            (true, Some(since)) if now.saturating_sub(since) >= PATIENCE => self.pacer.hold(true),
            (true, Some(_)) => {}
        }
    }
}

/// Both ways in which a run can be asked to stop.
pub(crate) struct Asked<'a> {
    pub(crate) all: &'a Stop,
    pub(crate) own: &'a Stop,
}

impl Asked<'_> {
    pub(crate) fn requested(&self) -> bool {
        self.all.requested() || self.own.requested()
    }

    pub(crate) async fn asked(&self) {
        tokio::select! {
            () = self.all.asked() => {}
            () = self.own.asked() => {}
        }
    }

    pub(crate) async fn overdue(&self, clock: &dyn Clock) {
        tokio::select! {
            () = self.all.overdue(clock, Duration::ZERO) => {}
            () = self.own.overdue(clock, Duration::ZERO) => {}
        }
    }
}
