//! A fragment: a physical plan with a hole for each input, planned once a job and bound once a step.
//!
//! ```text
//! [repartition by group] ← [partial aggregate] ← filter, project ← [gate] ← Parquet scan of the step's files
//! ```
//!
//! Binding copies the nodes above the holes with their properties kept, so that every step has fresh state (queues, tables,
//! metrics) and no step plans anything.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Result as EngineResult, internal_datafusion_err, internal_err};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};
use watershed_core::account::Account;
use watershed_core::scan::{MESSAGE_COLUMNS, REJECTED_COLUMNS, ScanFile, ScanInput};
use watershed_core::{Error, EventTime, Result};
use watershed_operators::{GateColumns, GateExec, GateLimits, WindowForm, message_fields, rejected_fields};

use crate::account;
use crate::counted::CountedExec;
use crate::joins;
use crate::paced::PacedExec;
use crate::scan::{Inspection, MalformedTo, Scan, SourceScanExec, engine_error};

/// A plan with holes. Cheap to clone.
#[derive(Clone)]
pub struct Fragment(Arc<Planned>);

struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    template: Mutex<Template>,
    holes: Vec<Hole>,
    rejected: SchemaRef,
    /// The windows by which rows are late; a stateless job has none.
    window: Option<WindowForm>,
    from: Option<EventTime>,
    runtime: Arc<RuntimeEnv>,
}

/// What is copied for each step, and how often it was. Hash joins keep the table they built, and what they counted, from
/// copy to copy; so that counts do not grow with the history, the template is made anew from time to time.
struct Template {
    plan: Arc<dyn ExecutionPlan>,
    copies: usize,
}

/// Building a join's table anew is soon paid for by as many steps.
const COPIES: usize = 512;

/// What fills a hole.
struct Hole {
    source: String,
    scan: Arc<Scan>,
    inspection: Inspection,
    gate: Arc<GateColumns>,
}

impl Fragment {
    /// The windows by which rows are late; a stateless job has none.
    pub fn windows(&self) -> Option<WindowForm> {
        self.0.window
    }

    /// `time_index` tells the index of a source's event time in its table.
    pub(crate) fn new(
        plan: Arc<dyn ExecutionPlan>,
        window: Option<WindowForm>,
        from: Option<EventTime>,
        runtime: Arc<RuntimeEnv>,
        time_index: impl Fn(&str) -> Result<usize>,
        table: impl Fn(&str) -> Result<SchemaRef>,
    ) -> Result<Fragment> {
        let mut leaves = vec![];
        leaves_of(&plan, &mut leaves);
        let mut scans = vec![];
        for (source, scan) in leaves {
            let time = time_index(&source)?;
            let mut columns = scan.projection.clone();
            if !columns.contains(&time) {
                columns.push(time);
            }
            scans.push((table(&source)?, source, scan, time, columns));
        }
        let mut rejected = Rejected::default();
        let kept: Vec<Vec<usize>> = scans
            .iter()
            .map(|(table, source, _, _, columns)| {
                columns.iter().map(|i| rejected.column(source, table.field(*i))).collect()
            })
            .collect();
        let messages = scans.iter().any(|(_, _, scan, _, _)| scan.is_text());
        let rejected = rejected.schema(messages);
        let width = rejected.fields().len() - REJECTED_COLUMNS.len();
        let mut holes = vec![];
        for ((_, source, scan, time, columns), kept) in scans.into_iter().zip(kept) {
            let position = columns.iter().position(|c| *c == time);
            let time = position.ok_or_else(|| Error::bug(format!("{source}: the event time is not read")))?;
            let gate = GateColumns {
                source: source.clone(),
                passed: (0..scan.projection.len()).collect(),
                time,
                file: columns.len(),
                partition: columns.len() + 1,
                row: columns.len() + 2,
                rejected: Arc::clone(&rejected),
                kept: (0..width).map(|column| kept.iter().position(|k| *k == column)).collect(),
            };
            holes.push(Hole { source, scan, inspection: Inspection { columns }, gate: Arc::new(gate) });
        }
        let template = Mutex::new(Template { plan: Arc::clone(&plan), copies: 0 });
        Ok(Fragment(Arc::new(Planned { plan, template, holes, rejected, window, from, runtime })))
    }

    /// The sources that the holes read, in order.
    pub(crate) fn inputs(&self) -> Vec<String> {
        self.0.holes.iter().map(|hole| hole.source.clone()).collect()
    }

    /// The schema of rejected rows.
    pub(crate) fn rejected(&self) -> SchemaRef {
        Arc::clone(&self.0.rejected)
    }

    /// The schema of the fragment's output.
    pub fn schema(&self) -> SchemaRef {
        self.0.plan.schema()
    }

    /// How many streams a bound fragment has.
    pub fn partitions(&self) -> usize {
        self.0.plan.output_partitioning().partition_count()
    }

    /// Fills the holes for one step, each by the input of its number; the result can be run once.
    pub fn bind(&self, inputs: &[ScanInput]) -> Result<Arc<dyn ExecutionPlan>> {
        if inputs.len() != self.0.holes.len() {
            return Err(Error::bug(format!("a fragment of {} inputs was given {}", self.0.holes.len(), inputs.len())));
        }
        let mut next = self.0.holes.iter().zip(inputs);
        let template = self.template().map_err(engine_error)?;
        self.fill(&template, &mut next).map_err(engine_error)
    }

    /// What became of the rows that a bound fragment read, asked once its streams have ended. An account that does not balance
    /// is an error: rows were lost or doubled.
    pub fn account(&self, bound: &Arc<dyn ExecutionPlan>) -> Result<Account> {
        account::account(bound)
    }

    /// The files of a hole that partition values do not rule out.
    pub fn kept(&self, hole: usize, files: Vec<ScanFile>) -> Result<Vec<ScanFile>> {
        let known = self.0.holes.get(hole).ok_or_else(|| Error::bug(format!("a fragment has no hole {hole}")))?;
        known.scan.kept(files).map_err(engine_error)
    }

    /// The plan, indented, with its holes.
    pub fn display(&self) -> String {
        DisplayableExecutionPlan::new(self.0.plan.as_ref()).indent(false).to_string()
    }

    fn template(&self) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let mut template = self.0.template.lock().unwrap_or_else(PoisonError::into_inner);
        if template.copies == COPIES {
            if let Some(fresh) = joins::renewed(&template.plan)? {
                template.plan = fresh;
            }
            template.copies = 0;
        }
        template.copies += 1;
        Ok(Arc::clone(&template.plan))
    }

    fn fill<'a>(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        next: &mut impl Iterator<Item = (&'a Hole, &'a ScanInput)>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        if plan.is::<SourceScanExec>() {
            let (hole, input) = next.next().ok_or_else(|| internal_datafusion_err!("a fragment has too many holes"))?;
            return self.read(hole, input, plan.output_partitioning().partition_count());
        }
        let children = plan.children().into_iter().map(|child| self.fill(child, next));
        let children = children.collect::<EngineResult<Vec<_>>>()?;
        Arc::clone(plan).replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
    }

    fn read(&self, hole: &Hole, input: &ScanInput, partitions: usize) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let inspection = input.inspect.as_ref().map(|_| &hole.inspection);
        let mut bound = match (input.log.is_empty(), input.files.is_empty()) {
            (true, _) => {
                let malformed = input.rejects.as_ref().map(|rejects| MalformedTo {
                    rejects: Arc::clone(rejects),
                    source: hole.source.clone(),
                    schema: self.rejected(),
                });
                hole.scan.bind(&input.files, inspection, partitions, &self.0.runtime, malformed)?
            }
            (false, true) => hole.scan.bind_log(&input.log, inspection, partitions)?,
            (false, false) => return internal_err!("{}: a step reads files or a log", hole.source),
        };
        bound.plan = PacedExec::over(bound.plan, bound.of_log.is_some());
        let plan: Arc<dyn ExecutionPlan> = match &input.inspect {
            None => bound.plan,
            Some(inspect) => {
                let limits = GateLimits { inspect: inspect.clone(), windows: self.0.window, from: self.0.from };
                Arc::new(GateExec::try_new(bound.plan, Arc::clone(&hole.gate), limits)?)
            }
        };
        if plan.schema().fields() != hole.scan.schema.fields() {
            return internal_err!("{}: a scan has other columns than planned", hole.source);
        }
        Ok(Arc::new(CountedExec::new(plan, bound.watched, bound.pruned_files, bound.of_log)))
    }
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

fn leaves_of(plan: &Arc<dyn ExecutionPlan>, leaves: &mut Vec<(String, Arc<Scan>)>) {
    if let Some(leaf) = plan.downcast_ref::<SourceScanExec>() {
        leaves.push((leaf.source.clone(), Arc::clone(&leaf.scan)));
    }
    for child in plan.children() {
        leaves_of(child, leaves);
    }
}

/// The columns of rejected rows: those of several sources side by side, the same name and type shared.
#[derive(Default)]
struct Rejected {
    fields: Vec<Field>,
}

impl Rejected {
    /// Where a source's column is kept.
    fn column(&mut self, source: &str, field: &Field) -> usize {
        let mut name = field.name().clone();
        let taken = |name: &str| REJECTED_COLUMNS.contains(&name) || MESSAGE_COLUMNS.contains(&name);
        loop {
            let known = self.fields.iter().position(|f| *f.name() == name);
            match known {
                Some(i) if self.fields[i].data_type() == field.data_type() => return i,
                None if !taken(&name) => {
                    self.fields.push(Field::new(name, field.data_type().clone(), true));
                    return self.fields.len() - 1;
                }
                _ => name = format!("{source}_{name}"),
            }
        }
    }

    /// `messages`: malformed records may be among them.
    fn schema(self, messages: bool) -> SchemaRef {
        let more = if messages { message_fields() } else { vec![] };
        Arc::new(Schema::new(rejected_fields().into_iter().chain(self.fields).chain(more).collect::<Vec<_>>()))
    }
}
