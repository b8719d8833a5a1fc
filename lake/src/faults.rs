//! An object store that fails, for tests: before or after the effect, reported or by the process's death.
//!
//! Every operation draws its fate from the plan's seed and its own number, so one seed and one order of operations
//! replay a run. After a crash every operation fails, as if the process were gone: what it had in flight stays as it
//! was.
//!
//! | fault | effect | the caller sees |
//! |---|---|---|
//! | [`Fault::Before`] | did not happen | an error |
//! | [`Fault::After`] | happened | an error |
//! | [`Fault::CrashBefore`] | did not happen | an error, and from then on only errors |
//! | [`Fault::CrashAfter`] | happened | an error, and from then on only errors |

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use watershed_core::clock::mix;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Before,
    After,
    CrashBefore,
    CrashAfter,
}

/// Which operations fail. Probabilities are of one operation, from 0 to 1, and are tried in this order.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    pub seed: u64,
    pub before: f64,
    pub after: f64,
    pub crash_before: f64,
    pub crash_after: f64,
    /// Only operations that change something: puts, parts, deletes, copies.
    pub writes_only: bool,
    /// Only operations on paths that contain this, such as `_delta_log`.
    pub only: Option<String>,
    /// The `n`-th operation that qualifies (from 0) fails so, whatever the probabilities: for trying every step in
    /// turn.
    pub at: Option<(u64, Fault)>,
    /// No fault after this many, crashes included.
    pub most: Option<u64>,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Operations that qualified for a fault.
    pub operations: u64,
    pub before: u64,
    pub after: u64,
    /// 0 or 1, unless operations ran at once.
    pub crashes: u64,
}

impl FaultCounts {
    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.before + self.after + self.crashes
    }
}

/// Wraps a store; clones share plan, counts and crash.
#[derive(Clone, Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    operations: AtomicU64,
    before: AtomicU64,
    after: AtomicU64,
    crashes: AtomicU64,
    crashed: AtomicBool,
}

impl FaultStore {
    pub fn new(inner: Arc<dyn ObjectStore>, plan: FaultPlan) -> Self {
        FaultStore { inner, state: Arc::new(State { plan, ..Default::default() }) }
    }

    /// Another store with the same fate: plan, counts and crash are shared, as they are by the stores of one process.
    pub fn over(&self, inner: Arc<dyn ObjectStore>) -> Self {
        FaultStore { inner, state: Arc::clone(&self.state) }
    }

    pub fn counts(&self) -> FaultCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let State { operations, before, after, crashes, .. } = self.state.as_ref();
        FaultCounts { operations: read(operations), before: read(before), after: read(after), crashes: read(crashes) }
    }

    /// Whether every operation fails from now on.
    pub fn crashed(&self) -> bool {
        self.state.crashed.load(Ordering::SeqCst)
    }
}

impl State {
    /// Draws the fate of one operation.
    fn draw(&self, write: bool, path: &str) -> Result<Option<Fault>> {
        if self.crashed.load(Ordering::SeqCst) {
            return Err(broken("the process is dead"));
        }
        let plan = &self.plan;
        if (plan.writes_only && !write) || plan.only.as_ref().is_some_and(|only| !path.contains(only.as_str())) {
            return Ok(None);
        }
        let n = self.operations.fetch_add(1, Ordering::SeqCst);
        let fault = match plan.at {
            Some((at, fault)) if at == n => Some(fault),
            _ => self.chance(n),
        };
        let so_far = [&self.before, &self.after, &self.crashes].map(|c| c.load(Ordering::SeqCst)).iter().sum::<u64>();
        let Some(fault) = fault.filter(|_| plan.most.is_none_or(|most| so_far < most)) else { return Ok(None) };
        let counter = match fault {
            Fault::Before => &self.before,
            Fault::After => &self.after,
            Fault::CrashBefore | Fault::CrashAfter => &self.crashes,
        };
        counter.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::Before => Err(broken("failed before the effect")),
            Fault::CrashBefore => {
                self.crashed.store(true, Ordering::SeqCst);
                Err(broken("the process died before the effect"))
            }
            Fault::After | Fault::CrashAfter => Ok(Some(fault)),
        }
    }

    fn chance(&self, n: u64) -> Option<Fault> {
        let plan = &self.plan;
        // 53 bits, as many as a double holds.
        let mut left = (mix(plan.seed ^ mix(n)) >> 11) as f64 / (1u64 << 53) as f64;
        let kinds = [
            (plan.before, Fault::Before),
            (plan.after, Fault::After),
            (plan.crash_before, Fault::CrashBefore),
            (plan.crash_after, Fault::CrashAfter),
        ];
        for (probability, fault) in kinds {
            if left < probability {
                return Some(fault);
            }
            left -= probability;
        }
        None
    }

    /// What the caller sees of an operation that was carried out.
    fn answer<T>(&self, fate: Option<Fault>, answer: Result<T>) -> Result<T> {
        match fate {
            None => answer,
            Some(Fault::CrashAfter) => {
                self.crashed.store(true, Ordering::SeqCst);
                Err(broken("the process died after the effect"))
            }
            Some(_) => Err(broken("failed after the effect")),
        }
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic { store: "fault injection", source: what.into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({})", self.inner)
    }
}

fn text(prefix: Option<&Path>) -> &str {
    prefix.map_or("", |p| p.as_ref())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fate = self.state.draw(true, location.as_ref())?;
        self.state.answer(fate, self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let fate = self.state.draw(true, location.as_ref())?;
        let inner = self.inner.put_multipart_opts(location, opts).await;
        let inner = self.state.answer(fate, inner)?;
        Ok(Box::new(FaultUpload { inner, path: location.clone(), state: self.state.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.state.draw(false, location.as_ref())?;
        self.state.answer(fate, self.inner.get_opts(location, options).await)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fate = self.state.draw(false, location.as_ref())?;
        self.state.answer(fate, self.inner.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        let one = move |location: Result<Path>| {
            let (inner, state) = (inner.clone(), state.clone());
            async move {
                let location = location?;
                let fate = state.draw(true, location.as_ref())?;
                let deleted = inner.delete_stream(futures::stream::iter([Ok(location)]).boxed()).next().await;
                state.answer(fate, deleted.unwrap_or_else(|| Err(broken("a delete gave no answer"))))
            }
        };
        locations.then(one).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.draw(false, text(prefix)).and_then(|fate| self.state.answer(fate, Ok(()))) {
            Ok(()) => self.inner.list(prefix),
            Err(e) => futures::stream::iter([Err(e)]).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.draw(false, text(prefix)).and_then(|fate| self.state.answer(fate, Ok(()))) {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(e) => futures::stream::iter([Err(e)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.state.draw(false, text(prefix))?;
        self.state.answer(fate, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fate = self.state.draw(true, to.as_ref())?;
        self.state.answer(fate, self.inner.copy_opts(from, to, options).await)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let fate = self.state.draw(true, to.as_ref())?;
        self.state.answer(fate, self.inner.rename_opts(from, to, options).await)
    }
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    state: Arc<State>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.state.draw(true, self.path.as_ref()) {
            Err(e) => async move { Err(e) }.boxed(),
            Ok(fate) => {
                let (part, state) = (self.inner.put_part(data), self.state.clone());
                async move { state.answer(fate, part.await) }.boxed()
            }
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fate = self.state.draw(true, self.path.as_ref())?;
        let answer = self.inner.complete().await;
        self.state.answer(fate, answer)
    }

    async fn abort(&mut self) -> Result<()> {
        let fate = self.state.draw(true, self.path.as_ref())?;
        let answer = self.inner.abort().await;
        self.state.answer(fate, answer)
    }
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
