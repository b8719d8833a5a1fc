//! The table that a job fills: what its statement says of it, held against what its query gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::FieldRef;
use watershed_core::error::Place;
use watershed_core::{Error, Result};
use watershed_lake::{KeySpec, PRIMARY_KEY, PartitionBy, TableSpec};
use watershed_plan::{Lowered, Statement};

use super::Asked;
use crate::bindings;
use crate::catalog::Entry;
use crate::engine::Engine;
use crate::execute::Session;
use crate::relations;
use crate::tables;

/// The result table, as its statement and its query say; the owner is known when the catalog has the job.
pub(super) fn table_spec(
    asked: &Asked<'_>,
    lowered: &Lowered,
    target: Option<&Target>,
    at: Place,
) -> Result<TableSpec> {
    if let Some(Target { columns, key }) = target {
        let (schema, key) = (Arc::new(bindings::renamed_schema(&lowered.output, columns)), key.clone());
        return Ok(TableSpec { schema, partition_by: vec![], properties: BTreeMap::new(), owner: None, key });
    }
    let partition_by = match (asked.with.own("partition_by"), &lowered.window_start) {
        (Some(text), _) => PartitionBy::parse(text)?,
        (None, Some(start)) => vec![PartitionBy::Day(start.clone())],
        (None, None) => vec![],
    };
    let key = match asked.with.own("primary_key") {
        Some(given) => given_key(given, lowered, asked, at)?,
        None => lowered.key.clone(),
    };
    let properties = match key.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([(PRIMARY_KEY.to_string(), key.join(","))]),
    };
    Ok(TableSpec { schema: lowered.output.clone(), partition_by, properties, owner: None, key: None })
}

/// A declared key is one only if the grouping implies it: if it holds all the columns that are grouped by.
fn given_key(given: &str, lowered: &Lowered, asked: &Asked<'_>, at: Place) -> Result<Vec<String>> {
    let given: Vec<String> = given.split(',').map(|column| column.trim().to_string()).collect();
    let refuse = |because: String| {
        let message = format!("view {}: primary_key = '{}': {because}", asked.name, given.join(", "));
        Err(Error::sql_at(message, Some(at)))
    };
    if let Some(stranger) = given.iter().find(|column| lowered.output.field_with_name(column).is_err()) {
        let columns: Vec<&str> = lowered.output.fields().iter().map(|f| f.name().as_str()).collect();
        return refuse(format!("the view has no column {stranger}; it has {}", columns.join(", ")));
    }
    if lowered.key.is_empty() {
        return refuse("rows of a view without GROUP BY have no key; leave it out".to_string());
    }
    match lowered.key.iter().find(|column| !given.contains(column)) {
        None => Ok(given),
        Some(_) => refuse(format!(
            "it is not implied by the grouping, whose key is {}; name all of these, or leave it out",
            lowered.key.join(", ")
        )),
    }
}

/// The table that an INSERT fills.
pub(super) struct Target {
    /// What the query's columns are called there, by position; the operation column keeps its name.
    pub(super) columns: Vec<String>,
    key: Option<KeySpec>,
}

impl Target {
    pub(super) fn of(
        session: &Session<'_>,
        table: &Entry,
        asked: &Asked<'_>,
        lowered: &Lowered,
        at: Place,
    ) -> Result<Target> {
        let Statement::CreateTable(statement) = relations::statement_of(table)? else {
            return Err(Error::bug(format!("the catalog's statement of table {} makes no table", table.name)));
        };
        let operation = asked.with.own("operation").map(str::to_string);
        let key = tables::key(&session.layers, &statement)?;
        let refuse = |because: String| Err(Error::sql_at(format!("INSERT INTO {}: {because}", table.name), Some(at)));
        let rows = lowered.output.fields();
        match (&operation, &key) {
            (Some(column), None) => {
                return refuse(format!(
                    "operation = '{column}' says which rows are deleted, by their key; the table has no PRIMARY KEY"
                ));
            }
            (Some(column), _) if lowered.output.field_with_name(column).is_err() => {
                return refuse(format!("operation = '{column}': the query has no such column"));
            }
            _ => {}
        }
        let mut names = statement.columns.fields().iter().map(|f| f.name().clone());
        let wanted = statement.columns.fields().len() + usize::from(operation.is_some());
        if rows.len() != wanted {
            let all: Vec<String> = names.collect();
            let besides = operation.map(|column| format!(", and {column} besides")).unwrap_or_default();
            return refuse(format!(
                "the query has {} columns, the table {} ({}){besides}; columns go by position, so SELECT as many",
                rows.len(),
                all.len(),
                all.join(", ")
            ));
        }
        let mut column = |field: &FieldRef| match Some(field.name()) == operation.as_ref() {
            true => field.name().clone(),
            false => names.next().unwrap_or_default(),
        };
        let columns = rows.iter().map(&mut column).collect();
        // Rows of a slice come in no order: of two of one key, only a sequence tells the newer.
        Ok(Target { columns, key: key.map(|key| KeySpec { operation, fold: false, ..key }) })
    }
}

/// A new view does not write into a table that is not its own, or was not that of an earlier view of its name.
pub(super) async fn refuse_foreign(engine: &Engine, location: &str, asked: &Asked<'_>, at: Place) -> Result<()> {
    let Some(info) = tables::info(engine, location).await? else { return Ok(()) };
    let before = engine.catalog().newest(asked.kind, &asked.name).await?;
    let mine = before.iter().flat_map(|e| e.replaced.iter().chain((!e.dropped).then_some(&e.incarnation)));
    let owner = info.properties.get(tables::INCARNATION);
    if owner.is_some_and(|owner| mine.into_iter().any(|id| id.to_string() == *owner)) {
        return Ok(());
    }
    let message =
        format!("there is a table in {location} that this view did not make; give another location, or remove it");
    Err(Error::sql_at(message, Some(at)))
}
