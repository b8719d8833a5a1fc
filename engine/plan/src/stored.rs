//! A table's columns as its files know them: under other names, perhaps by number.
//!
//! ```text
//! file ──names or numbers──▶ stored columns (the reader's schema) ──alias, nested names──▶ the table's columns
//! ```
//!
//! Files are read by stored names and predicates prune by them; on its way out of the scan a column takes the table's name.
//! Where nothing is mapped the two are the same. What a file does not have is NULL, and a narrower type is cast: that is
//! DataFusion's adapter, which sees stored columns only.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use watershed_core::history::{FIELD_ID, Layout};

use crate::relabel::Relabel;

/// Both sides of a table's columns, file columns before partition columns.
pub(crate) struct Stored {
    pub(crate) file_schema: SchemaRef,
    pub(crate) partition_columns: Vec<FieldRef>,
    /// For files that are to be matched by field number.
    pub(crate) by_id: Option<Arc<ByFieldId>>,
    table: Vec<FieldRef>,
}

impl Stored {
    pub(crate) fn of(layout: &Layout) -> Result<Stored> {
        let table: Vec<FieldRef> =
            layout.file_schema.fields().iter().chain(&layout.partition_columns).cloned().collect();
        let stored = match &layout.stored {
            None => table.clone(),
            Some(stored) if stored.fields().len() == table.len() => stored.fields().to_vec(),
            Some(_) => return internal_err!("{}: stored columns do not fit the table's", layout.location),
        };
        let id = |field: &FieldRef| Some((field.name().clone(), field.metadata().get(FIELD_ID)?.clone()));
        let ids: HashMap<_, _> = stored.iter().filter_map(id).collect();
        // Columns come out with the metadata that the table gives them: numbers find columns, and are not passed on.
        let plain = |(stored, field): (&FieldRef, &FieldRef)| -> FieldRef {
            Arc::new(Field::clone(stored).with_metadata(field.metadata().clone()))
        };
        let stored: Vec<FieldRef> = stored.iter().zip(&table).map(plain).collect();
        let (files, partitions) = stored.split_at(layout.file_schema.fields().len());
        Ok(Stored {
            file_schema: Arc::new(Schema::new(files)),
            partition_columns: partitions.to_vec(),
            by_id: (!ids.is_empty()).then(|| Arc::new(ByFieldId { ids })),
            table,
        })
    }

    /// Each column as it is read and as it comes out.
    pub(crate) fn outputs(&self) -> Vec<ProjectionExpr> {
        let output = |(i, (stored, field)): (usize, (&FieldRef, &FieldRef))| {
            let mut expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(stored.name(), i));
            if stored.data_type() != field.data_type() {
                expr = Arc::new(Relabel::new(expr, Arc::clone(field)));
            }
            ProjectionExpr::new(expr, field.name())
        };
        self.pairs().enumerate().map(output).collect()
    }

    /// Whether a filter can be said of stored columns. Names inside of nested columns are not looked for.
    pub(crate) fn can_prune(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        !self.pairs().any(|(stored, field)| {
            stored.data_type() != field.data_type() && columns.iter().any(|c| c.name == *field.name())
        })
    }

    /// An expression over the table's columns as one over the stored ones.
    pub(crate) fn rename(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let names = self.pairs().map(|(stored, field)| (field.name().clone(), stored.name().clone()));
        rename(expr, &names.collect())
    }

    fn pairs(&self) -> impl Iterator<Item = (&FieldRef, &FieldRef)> {
        self.file_schema.fields().iter().chain(&self.partition_columns).zip(&self.table)
    }
}

fn rename(expr: Arc<dyn PhysicalExpr>, names: &HashMap<String, String>) -> Result<Arc<dyn PhysicalExpr>> {
    let renamed = expr.transform(|node| {
        let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
        Ok(match names.get(column.name()) {
            Some(name) if name != column.name() => Transformed::yes(Arc::new(Column::new(name, column.index()))),
            _ => Transformed::no(node),
        })
    })?;
    Ok(renamed.data)
}

/// Finds a file's columns by field number: the column that carries a stored column's number is that column, whatever it
/// is called. A file without numbers is matched by name.
#[derive(Debug)]
pub(crate) struct ByFieldId {
    /// The numbers of stored columns by name.
    ids: HashMap<String, String>,
}

impl ByFieldId {
    /// The numbers of some stored columns.
    pub(crate) fn of(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        names.iter().filter_map(|name| self.ids.get(name).cloned()).collect()
    }
}

impl PhysicalExprAdapterFactory for ByFieldId {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let id = |field: &FieldRef| field.metadata().get(FIELD_ID).cloned();
        let in_file: HashMap<String, &str> =
            physical.fields().iter().filter_map(|field| Some((id(field)?, field.name().as_str()))).collect();
        let mut names = HashMap::new();
        let mut fields: Vec<FieldRef> = vec![];
        for field in logical.fields() {
            let name = match self.ids.get(field.name()).filter(|_| !in_file.is_empty()) {
                None => field.name().clone(),
                // A name that no file has: the column is NULL there, even if another has its name.
                Some(id) => in_file.get(id).map_or_else(|| format!("__watershed_no_{id}"), |name| name.to_string()),
            };
            fields.push(Arc::new(Field::clone(field).with_name(&name)));
            names.insert(field.name().clone(), name);
        }
        let logical = Arc::new(Schema::new(fields));
        let inner = DefaultPhysicalExprAdapterFactory.create(logical, physical)?;
        Ok(Arc::new(Renamed { names, inner }))
    }
}

#[derive(Debug)]
struct Renamed {
    names: HashMap<String, String>,
    inner: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for Renamed {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        self.inner.rewrite(rename(expr, &self.names)?)
    }
}
