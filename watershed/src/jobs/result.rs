//! The table that a job fills: what its statement says of it, held against what its query gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use watershed_core::error::Place;
use watershed_core::{Error, Result};
use watershed_lake::{PartitionBy, TableSpec};
use watershed_plan::{Lowered, Statement};

use super::Asked;
use crate::bindings;
use crate::catalog::Entry;
use crate::engine::Engine;
use crate::relations;
use crate::tables;

/// The table property that names a view's key.
const PRIMARY_KEY: &str = "watershed.primary_key";

/// The result table, as its statement and its query say; the owner is known when the catalog has the job.
pub(super) fn table_spec(
    asked: &Asked<'_>,
    lowered: &Lowered,
    columns: Option<&[String]>,
    at: Place,
) -> Result<TableSpec> {
    if let Some(columns) = columns {
        let schema = Arc::new(bindings::renamed_schema(&lowered.output, columns));
        return Ok(TableSpec { schema, partition_by: vec![], properties: BTreeMap::new(), owner: None });
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
    Ok(TableSpec { schema: lowered.output.clone(), partition_by, properties, owner: None })
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

/// INSERT goes by position: the table's columns, as many as the query has.
pub(super) fn insert_columns(table: &Entry, lowered: &Lowered, at: Place) -> Result<Vec<String>> {
    let Statement::CreateTable(statement) = relations::statement_of(table)? else {
        return Err(Error::bug(format!("the catalog's statement of table {} makes no table", table.name)));
    };
    let columns: Vec<String> = statement.columns.fields().iter().map(|f| f.name().clone()).collect();
    let rows = lowered.output.fields();
    if rows.len() != columns.len() {
        let message = format!(
            "INSERT INTO {}: the query has {} columns, the table {} ({}); columns go by position, so SELECT as many",
            table.name,
            rows.len(),
            columns.len(),
            columns.join(", ")
        );
        return Err(Error::sql_at(message, Some(at)));
    }
    Ok(columns)
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
