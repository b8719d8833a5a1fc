//! A job in words, for `EXPLAIN` and `watershed plan`: where its sources are read, its plan, and what becomes of its result.

use std::fmt::Write;

use watershed_core::Result;
use watershed_core::settings::{Late, Settings};
use watershed_lake::PartitionBy;
use watershed_plan::{Lowered, Parsed, Statement};

use super::outlet::Outlet;
use super::result::table_spec;
use super::{Asked, asked, lower};
use crate::batch::in_query;
use crate::catalog::Kind;
use crate::execute::{Session, at};
use crate::relations::{self, Known};
use crate::sources::OpenSource;

/// A job's plan in words; of a plain query, DataFusion's.
pub(crate) async fn explain(session: &Session<'_>, parsed: &Parsed) -> Result<String> {
    if let Statement::Query(query) = &parsed.statement {
        let settings = session.layers.settings()?;
        let known = relations::batch(session.engine, &session.entries, &session.layers, &settings, query).await?;
        let plan = known.planner.batch(query).await?.into_optimized_plan().map_err(in_query)?;
        return Ok(format!("batch query\n{}", plan.display_indent()));
    }
    let asked = asked(session, parsed)?;
    let settings = session.layers.resolve(&asked.with.settings)?;
    let (known, lowered) = lower(session, &asked, &settings, session.engine.clock().now()).await?;
    let mut text = format!("{} {}\n{}", asked.kind, asked.name, watershed_plan::explain(&lowered));
    if asked.kind == Kind::Sink {
        let outlet = Outlet::of(session.engine, &asked, &lowered).map_err(|e| at(e, parsed.at))?;
        let _ = writeln!(text, "{outlet}");
    } else {
        let table = table_spec(&asked, &lowered, None, parsed.at)?;
        let by: Vec<String> = table.partition_by.iter().map(PartitionBy::to_string).collect();
        if !by.is_empty() {
            let _ = writeln!(text, "table: partitioned by {}", by.join(", "));
        }
    }
    text.push_str(&over_time(&known, &lowered, &settings, &asked));
    Ok(text)
}

/// What the plan does not show: where facts come from in the course of time, and what becomes of those that come late.
fn over_time(known: &Known, lowered: &Lowered, settings: &Settings, asked: &Asked<'_>) -> String {
    let mut text = String::new();
    for name in &lowered.inputs {
        if let Some(then) = known.sources.get(name).and_then(goes_on) {
            let _ = writeln!(text, "source {name}: {then}");
        }
    }
    if let Some(every) = asked.emit_every {
        let _ = writeln!(text, "open windows: as they stand every {every}, replaced by what they are in the end");
    }
    if !lowered.stages.is_empty() {
        let late = match settings.late {
            Late::Repair => "their windows are computed anew",
            Late::Table => "kept aside, and counted",
        };
        let _ = writeln!(text, "late facts: {late}");
    }
    text
}

/// How a source goes on that does not end with its history.
fn goes_on(source: &OpenSource) -> Option<String> {
    let Some(tail) = &source.tail else {
        return source.follow.then(|| "its history, then what is committed to it".to_string());
    };
    let log = tail.log().location();
    if tail.gives_rows() {
        return Some(format!("what becomes of {log}, change by change"));
    }
    let after = match (source.has_history, tail.key()) {
        (false, _) => return Some(log.to_string()),
        (true, []) => "behind the offsets that the history has on record (EXPLAIN HANDOVER shows them)".to_string(),
        (true, key) => format!(
            "behind the offsets that the history has on record; if it has none, by event time and the key {}, which is weaker (EXPLAIN \
             HANDOVER says how)",
            key.join(", ")
        ),
    };
    Some(format!("its history, then {log} {after}"))
}
