//! One text, statement by statement: declarations are written to the catalog, queries answered, jobs run.
//!
//! The text is parsed whole before anything is done. Jobs are gathered into a *wave* and run side by side, under one memory
//! budget, when the text ends or a statement needs what they make: so every job of a wave has been planned, and its
//! errors told, before the first of them reads a row.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion::physical_plan::SendableRecordBatchStream;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use watershed_core::error::Place;
use watershed_core::{Error, Result};
use watershed_plan::{
    Backfill, CreateExternalTable, CreateMaterializedView, CreateSink, CreateSource, CreateTable, CreateView, Drop,
    Insert, Parsed, Query, Statement, parse,
};

use crate::batch::{self, Rows};
use crate::catalog::{Draft, Entry, Kind};
use crate::changes;
use crate::declare::{Decision, canonical, decide};
use crate::dimensions;
use crate::engine::{Engine, JobPlan, Outcome, RunOptions, relation, unknown};
use crate::estimate::{self, Estimate};
use crate::inferred::{self, Inferred};
use crate::jobs::{self, Planned};
use crate::layers::Layers;
use crate::listing;
use crate::relations::{self, query_of, reached};
use crate::sources::Declared;
use crate::tables;

/// What a run that is asked to stop may take beyond the patience of its jobs, to say where they stand.
const LEAVE: Duration = Duration::from_secs(3);

type Seen<'a> = &'a mut (dyn FnMut(Outcome) -> Result<()> + Send);

/// A text being run.
pub(crate) struct Session<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) options: &'a RunOptions,
    pub(crate) layers: Layers,
    /// The catalog, as it was read and as this text has changed it.
    pub(crate) entries: Vec<Entry>,
    wave: Vec<Planned>,
}

impl<'a> Session<'a> {
    pub(crate) async fn new(engine: &'a Engine, options: &'a RunOptions) -> Result<Self> {
        let entries = engine.catalog().list().await?;
        Ok(Session { engine, options, layers: engine.layers().clone(), entries, wave: vec![] })
    }

    /// Runs every statement.
    pub(crate) async fn run(mut self, text: &str, seen: Seen<'_>) -> Result<()> {
        if self.options.reopen {
            return Err(Error::input(
                "reopen: a job that was ended can only be reopened where rows of its last windows can be taken back, and \
                 tables of this version are appended to; build it anew (CREATE OR REPLACE)",
            ));
        }
        let (stop, clock) = (self.options.stop.clone(), self.engine.clock().clone());
        let ended = tokio::select! {
            ended = self.statements(text, seen) => Some(ended),
            () = stop.overdue(clock.as_ref(), LEAVE) => None,
        };
        ended.unwrap_or_else(|| seen(Outcome::Done("stopped before all was done; run again to go on".to_string())))
    }

    async fn statements(&mut self, text: &str, seen: Seen<'_>) -> Result<()> {
        let statements = self.parse(text)?;
        for (done, parsed) in statements.iter().enumerate() {
            if self.options.stop.requested() {
                let left = statements.len() - done;
                let note = format!("stopped: {left} more statements of the text were not done; run again to go on");
                return seen(Outcome::Done(note));
            }
            self.statement(parsed, seen).await?;
        }
        self.run_wave(seen).await
    }

    /// The plans of the text's jobs and queries. Nothing is created: declarations live as long as this session.
    pub(crate) async fn plan(mut self, text: &str, estimate: bool) -> Result<Vec<JobPlan>> {
        let mut plans = vec![];
        for parsed in self.parse(text)? {
            let explained = match &parsed.statement {
                Statement::Explain(inner) => inner.as_ref(),
                _ => &parsed,
            };
            match &explained.statement {
                Statement::Set { name, value } => self.layers.set(name, value)?,
                Statement::CreateSource(source) => {
                    let (draft, _) = self.source_draft(source, &parsed).await?;
                    self.pretend(draft);
                }
                Statement::CreateView(view) => {
                    let draft = self.view_draft(view, &parsed)?;
                    self.pretend(draft);
                }
                Statement::CreateTable(table) => {
                    let draft = tables::draft(self.engine, &self.layers, table, &parsed)?;
                    self.pretend(draft);
                }
                Statement::CreateExternalTable(table) => {
                    let draft = self.external_draft(table, &parsed)?;
                    self.pretend(draft);
                }
                Statement::CreateMaterializedView(_)
                | Statement::CreateSink(_)
                | Statement::Insert(_)
                | Statement::Query(_) => {
                    let text = jobs::explain(&self, explained).await?;
                    let runs = !matches!(explained.statement, Statement::Query(_));
                    let estimate =
                        if estimate && runs { Some(estimate::estimate(&self, explained).await?) } else { None };
                    plans.push(JobPlan { text, estimate });
                }
                Statement::Backfill(of) => {
                    let estimate = self.backfill(of, parsed.at).await?;
                    plans.push(JobPlan { text: String::new(), estimate: Some(estimate) });
                }
                Statement::Drop(_) | Statement::Describe(_) | Statement::Explain(_) | Statement::Handover(_) => {}
            }
        }
        Ok(plans)
    }

    /// What a backfill would cost: of a statement, or of a view that there is.
    async fn backfill(&self, of: &Backfill, place: Place) -> Result<Estimate> {
        let name = match of {
            Backfill::Of(parsed) => return estimate::estimate(self, parsed).await,
            Backfill::View(name) => name,
        };
        let entry = self.entries.iter().find(|e| e.kind.is_job() && e.name == *name);
        let entry = entry.ok_or_else(|| at(unknown(&self.entries, name), place))?;
        let statement = relations::statement_of(entry)?;
        estimate::estimate(self, &Parsed { text: entry.statement.clone(), statement, at: place }).await
    }

    /// Answers the one query of a text.
    pub(crate) async fn query(mut self, text: &str) -> Result<Rows> {
        let mut query = None;
        for parsed in self.parse(text)? {
            match parsed.statement {
                Statement::Set { name, value } => self.layers.set(&name, &value)?,
                Statement::Query(found) if query.is_none() => query = Some(found),
                Statement::Query(_) => {
                    return Err(Error::sql_at(
                        "the text has a second query; give one query at a time, or put them into a file for \
                         `watershed run`",
                        Some(parsed.at),
                    ));
                }
                _ => {
                    let message = "a query is a SELECT; statements that create something are run with `watershed run`";
                    return Err(Error::sql_at(message, Some(parsed.at)));
                }
            }
        }
        let query = query.ok_or_else(|| Error::sql("there is no query in this text; give a SELECT"))?;
        self.answer(&query).await
    }

    fn parse(&mut self, text: &str) -> Result<Vec<Parsed>> {
        let engine = self.engine;
        parse(text, &|name| engine.variable(name))
    }

    async fn statement(&mut self, parsed: &Parsed, seen: Seen<'_>) -> Result<()> {
        match &parsed.statement {
            Statement::Set { name, value } => self.layers.set(name, value).map_err(|e| at(e, parsed.at)),
            Statement::CreateSource(source) => self.create_source(source, parsed, seen).await,
            Statement::CreateView(view) => {
                let draft = self.view_draft(view, parsed)?;
                self.declare(draft, parsed, seen).await.map(|_| ())
            }
            Statement::CreateTable(table) => self.create_table(table, parsed, seen).await,
            Statement::CreateExternalTable(table) => {
                let draft = self.external_draft(table, parsed)?;
                self.declare(draft, parsed, seen).await.map(|_| ())
            }
            Statement::CreateMaterializedView(CreateMaterializedView { query, .. })
            | Statement::CreateSink(CreateSink { query, .. })
            | Statement::Insert(Insert { query, .. }) => {
                if self.reads_the_wave(query)? {
                    self.run_wave(seen).await?;
                }
                match jobs::plan(self, parsed).await? {
                    jobs::Next::Job(planned) if self.wave.iter().any(|job| job.name == planned.name) => {
                        let message = format!(
                            "the text has job {} twice; name the second INSERT's job: INSERT INTO … WITH (job = '…') SELECT …",
                            planned.name
                        );
                        return Err(Error::sql_at(message, Some(parsed.at)));
                    }
                    jobs::Next::Job(planned) => self.wave.push(*planned),
                    jobs::Next::Nothing(note) => seen(Outcome::Done(note))?,
                }
                Ok(())
            }
            Statement::Drop(drop) => {
                self.run_wave(seen).await?;
                self.drop(drop, parsed.at, seen).await
            }
            Statement::Query(query) => {
                self.run_wave(seen).await?;
                let rows = self.answer(query).await?;
                let (schema, batches) = (rows.schema(), rows.try_collect().await?);
                seen(Outcome::Rows { schema, batches })
            }
            Statement::Explain(inner) => {
                let text = jobs::explain(self, inner).await?;
                seen(Outcome::Text(text))
            }
            Statement::Backfill(of) => {
                let estimate = self.backfill(of, parsed.at).await?;
                seen(Outcome::Text(estimate.to_string()))
            }
            Statement::Handover(name) => {
                let found = self.engine.handover(name, None).await.map_err(|e| at(e, parsed.at))?;
                found.iter().try_for_each(|handover| seen(Outcome::Text(handover.to_string())))
            }
            Statement::Describe(name) => {
                let columns = listing::columns(self, name).await?;
                seen(Outcome::Text(listing::columns_text(&columns)))
            }
        }
    }

    async fn create_source(&mut self, source: &CreateSource, parsed: &Parsed, seen: Seen<'_>) -> Result<()> {
        // What is wrong with it is said first: only what holds no secret may be shown. And whoever is refused waits for no log.
        self.declared_source(source, parsed)?;
        let (text, manners) = canonical(&parsed.statement);
        decide(relation(&self.entries, &source.name), Kind::Source, &source.name, &text, manners, parsed.at)?;
        let (draft, told) = self.source_draft(source, parsed).await?;
        let reads = draft.location.clone().unwrap_or_default();
        if self.wave.iter().any(|job| overlap(&job.location, &reads)) {
            self.run_wave(seen).await?;
        }
        self.declare(draft, parsed, seen).await?;
        told.map_or(Ok(()), |told| seen(Outcome::Done(told)))
    }

    async fn create_table(&mut self, table: &CreateTable, parsed: &Parsed, seen: Seen<'_>) -> Result<()> {
        let draft = tables::draft(self.engine, &self.layers, table, parsed)?;
        if let Some(entry) = self.declare(draft, parsed, seen).await? {
            let jobs = tables::jobs_of(&self.entries, &entry)?;
            tables::make(self.engine, &self.layers, table, &entry, &jobs).await?;
        }
        Ok(())
    }

    fn external_draft(&self, table: &CreateExternalTable, parsed: &Parsed) -> Result<Draft> {
        let location = dimensions::location(self.engine, &self.layers, table).map_err(|e| at(e, parsed.at))?;
        Ok(self.draft(Kind::ExternalTable, &table.name, parsed, Some(location)))
    }

    /// Whether a query joins a table that a job of the wave fills: then that comes first.
    fn reads_the_wave(&self, query: &Query) -> Result<bool> {
        let names = relations::names_reached(&self.entries, query)?;
        let entries = reached(&self.entries, query)?;
        let tables = entries.iter().filter(|e| !matches!(e.kind, Kind::Source | Kind::View));
        let locations: Vec<String> = tables.map(|e| self.engine.location(e)).collect();
        let fills = |job: &Planned| names.contains(&job.name) || locations.iter().any(|l| overlap(&job.location, l));
        Ok(self.wave.iter().any(fills))
    }

    /// A source as it is declared, and where it lies.
    fn declared_source(&self, source: &CreateSource, parsed: &Parsed) -> Result<(Declared, String)> {
        let declared = Declared::new(source, &self.layers, self.engine, self.engine.clock().now());
        let placed = declared.and_then(|declared| declared.place().map(|place| (declared, place)));
        placed.map_err(|e| at(e, parsed.at))
    }

    /// A source with the columns that it has in the catalog or else were inferred, and what is told of those.
    async fn source_draft(&self, source: &CreateSource, parsed: &Parsed) -> Result<(Draft, Option<String>)> {
        let (declared, place) = self.declared_source(source, parsed)?;
        let mut draft = self.draft(Kind::Source, &source.name, parsed, Some(place));
        let known = relation(&self.entries, &source.name).filter(|entry| entry.statement == draft.statement);
        if let Some(known) = known {
            draft.fixed = known.fixed.clone();
            return Ok((draft, None));
        }
        let inferred = inferred::infer(&declared).await.map_err(|e| at(e, parsed.at))?;
        let told = inferred.map(|Inferred { columns, told }| {
            draft.fixed.insert(inferred::FIXED.to_string(), columns);
            told
        });
        Ok((draft, told))
    }

    fn view_draft(&self, view: &CreateView, parsed: &Parsed) -> Result<Draft> {
        if reached(&self.entries, &view.query)?.iter().any(|e| e.name == view.name) {
            let message = format!("view {} would read from itself; give the new one another name", view.name);
            return Err(Error::sql_at(message, Some(parsed.at)));
        }
        Ok(self.draft(Kind::View, &view.name, parsed, None))
    }

    /// An entry that no job hangs on.
    fn draft(&self, kind: Kind, name: &str, parsed: &Parsed, location: Option<String>) -> Draft {
        Draft {
            kind,
            name: name.to_string(),
            statement: canonical(&parsed.statement).0,
            location,
            incarnation: self.engine.clock().id(),
            or_replace: canonical(&parsed.statement).1.or_replace,
            fixed: BTreeMap::new(),
            views: BTreeMap::new(),
            created: self.engine.clock().now(),
        }
    }

    /// Brings a declaration into the catalog, unless it is there; `None` when another one is kept.
    async fn declare(&mut self, draft: Draft, parsed: &Parsed, seen: Seen<'_>) -> Result<Option<Entry>> {
        let (text, manners) = canonical(&parsed.statement);
        let existing = relation(&self.entries, &draft.name);
        let (kind, name) = (draft.kind, draft.name.clone());
        let (entry, did) = match decide(existing, kind, &name, &text, manners, parsed.at)? {
            Decision::Resume(entry) => return Ok(Some(entry)),
            Decision::Keep(_) => {
                seen(Outcome::Done(format!("{kind} {name} exists with another statement, and is kept")))?;
                return Ok(None);
            }
            Decision::Replace(_) if kind == Kind::Table => {
                let message =
                    format!("table {name} holds rows that OR REPLACE would lose; write DROP TABLE {name} first");
                return Err(Error::sql_at(message, Some(parsed.at)));
            }
            Decision::Replace(old) => (self.engine.catalog().put(draft, Some(&old)).await?, "replaced"),
            Decision::Create => (self.engine.catalog().put(draft, None).await?, "created"),
        };
        self.remember(entry.clone());
        seen(Outcome::Done(format!("{did} {kind} {name}")))?;
        Ok(Some(entry))
    }

    /// Takes the newest generation of a name into the session's view of the catalog.
    pub(crate) fn remember(&mut self, entry: Entry) {
        self.forget(&entry);
        self.entries.push(entry);
    }

    fn forget(&mut self, entry: &Entry) {
        self.entries.retain(|e| e.kind != entry.kind || e.name != entry.name);
    }

    /// A declaration that only this session knows.
    fn pretend(&mut self, draft: Draft) {
        let Draft { kind, name, statement, location, incarnation, or_replace, fixed, views, created } = draft;
        let (format, generation, replaced, dropped) = (0, 0, vec![], false);
        self.remember(Entry {
            format,
            kind,
            name,
            generation,
            statement,
            location,
            incarnation,
            or_replace,
            replaced,
            fixed,
            views,
            created,
            dropped,
        });
    }

    async fn answer(&self, query: &Query) -> Result<Rows> {
        let settings = self.layers.settings()?;
        let mut query = query.clone();
        let calls = changes::rewrite(&mut query)?;
        let mut known = relations::batch(self.engine, &self.entries, &self.layers, &settings, &query).await?;
        for call in &calls {
            known.planner.add_table_provider(&call.name, changes::open(self.engine, &self.entries, call).await?)?;
        }
        let frame = known.planner.batch(&query).await?;
        let stream: SendableRecordBatchStream = frame.execute_stream().await.map_err(batch::in_query)?;
        Ok(Rows::new(stream))
    }

    async fn drop(&mut self, drop: &Drop, place: Place, seen: Seen<'_>) -> Result<()> {
        let kind = jobs::kind_of(drop.kind);
        let found = match kind {
            Kind::Sink => self.entries.iter().find(|e| e.kind == kind && e.name == drop.name),
            _ => relation(&self.entries, &drop.name),
        };
        let found = found.cloned();
        let entry = match found {
            Some(entry) if entry.kind == kind => entry,
            Some(entry) if kind == Kind::Table && entry.kind == Kind::ExternalTable => entry,
            Some(other) => {
                let message = format!("{} is {}, not {}", drop.name, other.kind.one(), kind.one());
                return Err(Error::sql_at(message, Some(place)));
            }
            None if drop.if_exists => return seen(Outcome::Done(format!("there is no {kind} {}", drop.name))),
            None if kind == Kind::Sink => {
                return Err(Error::sql_at(format!("there is no sink {}", drop.name), Some(place)));
            }
            None => return Err(at(unknown(&self.entries, &drop.name), place)),
        };
        if kind == Kind::Sink {
            tables::forget_job(self.engine, &entry).await?;
            self.forget(&entry);
            let left = jobs::what_stays(&self.engine.location(&entry));
            return seen(Outcome::Done(format!("dropped sink {}{left}", entry.name)));
        }
        self.refuse_if_read(&entry, place)?;
        for gone in tables::jobs_of(&self.entries, &entry)? {
            tables::forget_job(self.engine, &gone).await?;
            self.forget(&gone);
        }
        let note = tables::drop(self.engine, &entry, drop.keep_table).await?;
        self.forget(&entry);
        seen(Outcome::Done(note))
    }

    /// What others read from is not dropped under them.
    fn refuse_if_read(&self, entry: &Entry, place: Place) -> Result<()> {
        for other in self
            .entries
            .iter()
            .filter(|e| matches!(e.kind, Kind::View | Kind::MaterializedView | Kind::Insert | Kind::Sink))
        {
            let reads = crate::names::names(&query_of(other)?).contains(&entry.name);
            if reads {
                let message =
                    format!("{} {} is read by {} {}; drop that first", entry.kind, entry.name, other.kind, other.name);
                return Err(Error::sql_at(message, Some(place)));
            }
        }
        Ok(())
    }

    /// Runs the gathered jobs side by side. When one fails the others go on to their end; the first error is returned.
    async fn run_wave(&mut self, seen: Seen<'_>) -> Result<()> {
        let mut made = vec![];
        let wave = std::mem::take(&mut self.wave);
        let jobs = wave.len();
        for planned in wave {
            made.push(jobs::make(self, planned, jobs).await?);
        }
        let mut running: FuturesUnordered<_> =
            made.into_iter().map(|job| jobs::run(self.engine, self.options, job)).collect();
        let mut first = None;
        while let Some((name, ended)) = running.next().await {
            match ended {
                Ok(summary) => seen(Outcome::Job(Box::new(summary)))?,
                Err(e) if first.is_some() => tracing::error!(job = name, "{e}"),
                Err(e) => first = Some(jobs::of_job(&name, e)),
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Whether one location is the other, or lies in it.
fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = (format!("{}/", a.trim_end_matches('/')), format!("{}/", b.trim_end_matches('/')));
    a.starts_with(&b) || b.starts_with(&a)
}

/// Says where, for an error that does not know.
pub(crate) fn at(e: Error, place: Place) -> Error {
    match e {
        Error::Sql { message, at: None } | Error::Input(message) => Error::sql_at(message, Some(place)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_overlap_as_folders_do() {
        for (a, b, expected) in
            [("/a/b", "/a/b/", true), ("/a/b", "/a/b/c", true), ("/a/b", "/a/bc", false), ("s3://x/a", "s3://x", true)]
        {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
        }
    }
}
