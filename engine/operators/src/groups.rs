//! The groups of one window: a hash table of the keys besides the window, and one accumulator for each aggregate.
//!
//! The same groups serve both halves of an aggregation: a worker's partial half feeds them rows and takes states out, a
//! shard's final half feeds them states and takes results out. DataFusion's group tables and accumulators do the work.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;

use crate::ordered;
use crate::window_spec::WindowSpec;

/// The groups of one window.
pub(crate) struct Groups {
    /// `None` when the window is the only key: there is one group.
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// State columns of each accumulator.
    widths: Vec<usize>,
    /// Key columns.
    width: usize,
    /// The group of each row of the batch in hand; kept for its memory.
    rows: Vec<usize>,
}

/// An aggregate's arguments and filter, evaluated over a batch.
pub(crate) struct Arguments {
    pub(crate) values: Vec<ArrayRef>,
    pub(crate) filter: Option<BooleanArray>,
}

/// The schema of the keys, given the group columns: all but the window.
pub(crate) fn key_schema(groups: &[FieldRef]) -> SchemaRef {
    Arc::new(Schema::new(groups[1..].to_vec()))
}

impl Groups {
    pub(crate) fn new(aggregates: &[Arc<AggregateFunctionExpr>], key_schema: &SchemaRef) -> Result<Self> {
        let keys = match key_schema.fields().is_empty() {
            true => None,
            false => Some(new_group_values(Arc::clone(key_schema), &GroupOrdering::None)?),
        };
        let widths = aggregates.iter().map(|a| Ok(a.state_fields()?.len())).collect::<Result<_>>()?;
        Ok(Groups {
            keys,
            accumulators: accumulators(aggregates)?,
            widths,
            width: key_schema.fields().len(),
            rows: vec![],
        })
    }

    /// Finds the groups of a batch's rows; returns how many groups there are now.
    fn find(&mut self, keys: &[ArrayRef], rows: usize) -> Result<usize> {
        self.rows.clear();
        match &mut self.keys {
            Some(table) => {
                table.intern(keys, &mut self.rows)?;
                Ok(table.len())
            }
            None => {
                self.rows.resize(rows, 0);
                Ok(1)
            }
        }
    }

    /// Takes rows.
    pub(crate) fn update(&mut self, keys: &[ArrayRef], arguments: &[Arguments], rows: usize) -> Result<()> {
        let total = self.find(keys, rows)?;
        for (accumulator, of) in self.accumulators.iter_mut().zip(arguments) {
            accumulator.update_batch(&of.values, &self.rows, of.filter.as_ref(), total)?;
        }
        Ok(())
    }

    /// Takes partial states, the columns of all aggregates side by side.
    pub(crate) fn merge(&mut self, keys: &[ArrayRef], mut states: &[ArrayRef], rows: usize) -> Result<()> {
        let total = self.find(keys, rows)?;
        for (accumulator, width) in self.accumulators.iter_mut().zip(&self.widths) {
            let (mine, rest) = states.split_at(*width);
            accumulator.merge_batch(mine, &self.rows, total)?;
            states = rest;
        }
        Ok(())
    }

    /// How many key columns there are besides the window.
    pub(crate) fn keys(&self) -> usize {
        self.width
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.as_ref().map_or(1, |k| k.len())
    }

    pub(crate) fn bytes(&self) -> usize {
        let accumulators: usize = self.accumulators.iter().map(|a| a.size()).sum();
        self.keys.as_ref().map_or(0, |k| k.size()) + accumulators + self.rows.capacity() * size_of::<usize>()
    }

    /// Keys, then results.
    pub(crate) fn finish(mut self) -> Result<Vec<ArrayRef>> {
        let results = self.accumulators.iter_mut().map(|a| a.evaluate(EmitTo::All)).collect::<Result<Vec<_>>>()?;
        let mut columns = self.take_keys()?;
        columns.extend(results);
        Ok(columns)
    }

    /// Keys, then states.
    pub(crate) fn into_states(mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(columns)
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.keys.as_mut().map_or(Ok(vec![]), |k| k.emit(EmitTo::All))
    }
}

/// The types of each aggregate's state columns, as they are stored.
pub(crate) fn state_types(spec: &WindowSpec) -> Result<Vec<Vec<DataType>>> {
    let mut fields = spec.partial.fields()[spec.group_fields.len()..].iter();
    let widths = spec.aggregates.iter().map(|a| Ok(a.state_fields()?.len())).collect::<Result<Vec<_>>>()?;
    Ok(widths.into_iter().map(|n| fields.by_ref().take(n).map(|f| f.data_type().clone()).collect()).collect())
}

/// DataFusion's own accumulators for groups, ours where order matters, or its adapter where an aggregate has none.
pub(crate) fn accumulators(aggregates: &[Arc<AggregateFunctionExpr>]) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
    let one = |aggregate: &Arc<AggregateFunctionExpr>| -> Result<Box<dyn GroupsAccumulator>> {
        if ordered::is_ordered(aggregate) {
            return Ok(Box::new(ordered::accumulator(aggregate)?));
        }
        if aggregate.groups_accumulator_supported() {
            return aggregate.create_groups_accumulator();
        }
        let aggregate = Arc::clone(aggregate);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
    };
    aggregates.iter().map(one).collect()
}

/// Whether the aggregates can be computed at all: what an accumulator says of its arguments, before there are rows.
pub fn check_aggregates(aggregates: &[Arc<AggregateFunctionExpr>]) -> Result<()> {
    let adapted = aggregates.iter().filter(|a| !ordered::is_ordered(a) && !a.groups_accumulator_supported());
    adapted.map(|a| a.create_accumulator()).collect::<Result<Vec<_>>>()?;
    accumulators(aggregates).map(|_| ())
}
