//! Aggregates whose answer depends on the order of a group's rows: `array_agg`, `string_agg` and `nth_value` with ORDER BY
//! inside the call.
//!
//! History is read in no order, so the rows are kept, each with what it is ordered by, until the window is final; then they
//! are sorted once and DataFusion's accumulator computes the answer over rows that come in order. `first_value` and
//! `last_value` are not here: DataFusion's own keep one row a group, with its ordering, and may be merged in any order.
//!
//! ```text
//! update  (value, ordering…) a row ─┐                        ┌─▶ evaluate: sort by (group, ordering), one accumulator a group
//! merge   lists of rows, a group  ──┴─▶ buffer, append-only ─┴─▶ state: [List<value>, List<Struct<ordering…>>] a group
//! ```
//!
//! The state's columns are those of DataFusion's own accumulators for these functions, but the lists are in no order.
//!
//! **Invariant:** the answer depends on the rows alone, not on how they were cut, shuffled or merged, so far as the ordering
//! tells rows with different values apart; the planner sees to that (ties are broken by the whole row).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{Column, Literal};

/// Rows kept before a first look at which of them can still matter.
const PRUNE_ROWS: usize = 1024;

/// Whether an aggregate is computed here.
pub(crate) fn is_ordered(aggregate: &AggregateFunctionExpr) -> bool {
    let name = aggregate.fun().name();
    // DISTINCT with ORDER BY admits the argument alone as ordering: DataFusion's own keeps the distinct values, and sorts.
    let sorts_itself = aggregate.is_distinct() && name != "nth_value";
    matches!(name, "array_agg" | "string_agg" | "nth_value") && !sorts_itself && !aggregate.order_bys().is_empty()
}

/// An accumulator for one of them.
pub(crate) fn accumulator(aggregate: &AggregateFunctionExpr) -> Result<OrderedGroups> {
    OrderedGroups::try_new(aggregate)
}

/// The rows of all groups, in no order.
#[derive(Debug)]
pub(crate) struct OrderedGroups {
    /// The aggregate without its ordering.
    plain: AggregateFunctionExpr,
    /// What follows the value in a call: an offset, a delimiter.
    constants: Vec<ScalarValue>,
    /// The element of the first state column.
    value: FieldRef,
    ordering: Fields,
    options: Vec<SortOptions>,
    keep: Keep,
    rows: Buffer,
    groups: usize,
    /// Rows at which those that cannot matter are next thrown away.
    prune_at: usize,
}

/// Which rows of a group can matter, once sorted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keep {
    All,
    First(usize),
    Last(usize),
}

/// Rows in pieces, each at least twice as long as the next, so that there are few.
#[derive(Debug, Default)]
struct Buffer {
    pieces: Vec<Piece>,
    rows: usize,
}

#[derive(Debug)]
struct Piece {
    groups: Vec<u32>,
    /// The value, then what it is ordered by.
    columns: Vec<ArrayRef>,
    bytes: usize,
}

impl OrderedGroups {
    fn try_new(aggregate: &AggregateFunctionExpr) -> Result<Self> {
        let fields = aggregate.state_fields()?;
        let [DataType::List(value), DataType::List(ordering)] =
            &fields.iter().map(|f| f.data_type()).collect::<Vec<_>>()[..]
        else {
            return internal_err!("{}: an unexpected state {fields:?}", aggregate.name());
        };
        let DataType::Struct(ordering) = ordering.data_type() else {
            return internal_err!("{}: an unexpected ordering {ordering}", aggregate.name());
        };
        let arguments = aggregate.expressions();
        let nothing = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            vec![],
            &RecordBatchOptions::new().with_row_count(Some(1)),
        )?;
        let constants = arguments[1..].iter().map(|e| match e.downcast_ref::<Literal>() {
            Some(_) => ScalarValue::try_from_array(&e.evaluate(&nothing)?.into_array(1)?, 0),
            None => plan_err!("{}: what follows the first argument must be a constant", aggregate.name()),
        });
        let constants = constants.collect::<Result<Vec<_>>>()?;

        // DataFusion may have planned the reverse of what was asked for, over the reverse order.
        let reversed = aggregate.is_reversed();
        let options = aggregate.order_bys().iter().map(|e| if reversed { !e.options } else { e.options }).collect();
        let keep = match (aggregate.fun().name(), constants.first()) {
            ("nth_value", Some(ScalarValue::Int64(Some(n)))) if *n > 0 => Keep::First(n.unsigned_abs() as usize),
            ("nth_value", Some(ScalarValue::Int64(Some(n)))) if *n < 0 => Keep::Last(n.unsigned_abs() as usize),
            ("nth_value", _) => {
                return plan_err!(
                    "{}: the second argument is a constant: which row, from the first (1, 2, …) or the last (-1, -2, …)",
                    aggregate.name()
                );
            }
            _ => Keep::All,
        };
        let first: Arc<dyn PhysicalExpr> = Arc::new(Column::new("value", 0));
        let arguments = std::iter::once(first).chain(arguments[1..].iter().cloned()).collect();
        let schema = Schema::new(vec![Field::new("value", value.data_type().clone(), true)]);
        let plain = AggregateExprBuilder::new(Arc::new(aggregate.fun().clone()), arguments)
            .schema(Arc::new(schema))
            .alias(aggregate.name())
            .with_ignore_nulls(aggregate.ignore_nulls())
            .build()?;
        // What the function does not take, such as a delimiter that is no text, is said now.
        plain.create_accumulator()?;
        Ok(OrderedGroups {
            plain,
            constants,
            value: Arc::clone(value),
            ordering: ordering.clone(),
            options,
            keep,
            rows: Buffer::default(),
            groups: 0,
            prune_at: PRUNE_ROWS,
        })
    }

    /// Takes out the rows of the groups to emit: how many groups, each row's, and the rows' columns.
    fn take(&mut self, emit_to: EmitTo) -> Result<(usize, Vec<u32>, Vec<ArrayRef>)> {
        let (groups, columns) = std::mem::take(&mut self.rows).whole(&self.value, &self.ordering)?;
        self.prune_at = PRUNE_ROWS;
        match emit_to {
            EmitTo::All => Ok((std::mem::take(&mut self.groups), groups, columns)),
            EmitTo::First(n) => {
                self.groups -= n;
                let later = |group: &u32| group.checked_sub(n as u32);
                let rest = rows_where(&groups, |group| later(group).is_some());
                let kept = rest.values().iter().filter_map(|row| later(&groups[*row as usize])).collect();
                self.rows.push(kept, taken(&columns, &rest)?)?;
                let first = rows_where(&groups, |group| later(group).is_none());
                let groups = first.values().iter().map(|row| groups[*row as usize]).collect();
                Ok((n, groups, taken(&columns, &first)?))
            }
        }
    }

    /// The rows' order by group, then as the query says.
    fn order(&self, groups: &[u32], columns: &[ArrayRef]) -> Result<UInt32Array> {
        let column = |(values, options): (&ArrayRef, &SortOptions)| SortColumn {
            values: Arc::clone(values),
            options: Some(*options),
        };
        let by: ArrayRef = Arc::new(UInt32Array::from(groups.to_vec()));
        let mut sort = vec![SortColumn { values: by, options: None }];
        sort.extend(columns[1..].iter().zip(&self.options).map(column));
        Ok(lexsort_to_indices(&sort, None)?)
    }

    /// Throws away rows that cannot matter, once there are many.
    fn prune(&mut self) -> Result<()> {
        if self.keep == Keep::All || self.rows.rows < self.prune_at {
            return Ok(());
        }
        let (groups, columns) = std::mem::take(&mut self.rows).whole(&self.value, &self.ordering)?;
        let order = self.order(&groups, &columns)?;
        let mut kept: Vec<u32> = vec![];
        for (_, from, to) in stretches(&groups, &order) {
            let (from, to) = match self.keep {
                Keep::All => (from, to),
                Keep::First(n) => (from, to.min(from.saturating_add(n))),
                Keep::Last(n) => (from.max(to.saturating_sub(n)), to),
            };
            kept.extend(&order.values()[from..to]);
        }
        let groups = kept.iter().map(|row| groups[*row as usize]).collect();
        self.rows.push(groups, taken(&columns, &UInt32Array::from(kept))?)?;
        self.prune_at = PRUNE_ROWS.max(2 * self.rows.rows);
        Ok(())
    }

    /// The state's two columns, given each group's number of rows.
    fn lists(&self, lengths: &[usize], columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let rows: usize = lengths.iter().sum();
        if i32::try_from(rows).is_err() {
            return exec_err!("{}: {rows} rows at once are more than a list can hold", self.plain.name());
        }
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths.iter().copied());
        let mut columns = columns.into_iter();
        let Some(values) = columns.next() else { return internal_err!("rows without a value") };
        let ordering = StructArray::try_new_with_length(self.ordering.clone(), columns.collect(), None, rows)?;
        let element = Field::new_list_field(DataType::Struct(self.ordering.clone()), true);
        Ok(vec![
            Arc::new(ListArray::try_new(Arc::clone(&self.value), offsets.clone(), values, None)?),
            Arc::new(ListArray::try_new(Arc::new(element), offsets, Arc::new(ordering), None)?),
        ])
    }
}

impl GroupsAccumulator for OrderedGroups {
    /// Takes rows: the value, the constants, then what it is ordered by.
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups = self.groups.max(total_num_groups);
        let passes = |row: usize| opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let rows: Vec<u32> = (0..group_indices.len()).filter(|row| passes(*row)).map(|row| row as u32).collect();
        let groups = rows.iter().map(|row| group_indices[*row as usize] as u32).collect();
        let columns = self.columns(values);
        self.rows.push(groups, taken(&columns, &UInt32Array::from(rows))?)?;
        self.prune()
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups = self.groups.max(total_num_groups);
        let [values, orderings] = values else { return internal_err!("a state of {} columns", values.len()) };
        let (values, orderings): (&ListArray, &ListArray) = (values.as_list(), orderings.as_list());
        let mut groups = vec![];
        let (mut of_values, mut of_orderings) = (vec![], vec![]);
        for (list, group) in group_indices.iter().enumerate() {
            let rows = if values.is_null(list) { 0 } else { values.value_length(list) };
            groups.extend(std::iter::repeat_n(*group as u32, rows as usize));
            of_values.extend((0..rows).map(|i| (values.value_offsets()[list] + i) as u32));
            of_orderings.extend((0..rows).map(|i| (orderings.value_offsets()[list] + i) as u32));
        }
        let ordering = orderings.values().as_struct().columns();
        let mut columns = taken(std::slice::from_ref(values.values()), &UInt32Array::from(of_values))?;
        columns.extend(taken(ordering, &UInt32Array::from(of_orderings))?);
        self.rows.push(groups, columns)?;
        self.prune()
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (total, groups, columns) = self.take(emit_to)?;
        let order = self.order(&groups, &columns)?;
        let sorted = take(&columns[0], &order, None)?;
        let mut results: Vec<ScalarValue> = Vec::with_capacity(total);
        for (group, from, to) in stretches(&groups, &order) {
            while results.len() < group as usize {
                results.push(self.plain.create_accumulator()?.evaluate()?);
            }
            let mut accumulator = self.plain.create_accumulator()?;
            let mut arguments = vec![sorted.slice(from, to - from)];
            for constant in &self.constants {
                arguments.push(constant.to_array_of_size(to - from)?);
            }
            accumulator.update_batch(&arguments)?;
            results.push(accumulator.evaluate()?);
        }
        while results.len() < total {
            results.push(self.plain.create_accumulator()?.evaluate()?);
        }
        match results.is_empty() {
            true => Ok(arrow::array::new_empty_array(self.plain.field().data_type())),
            false => ScalarValue::iter_to_array(results),
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (total, groups, columns) = self.take(emit_to)?;
        let mut lengths = vec![0; total];
        groups.iter().for_each(|group| lengths[*group as usize] += 1);
        let mut next = starts(&lengths);
        let mut order = vec![0; groups.len()];
        for (row, group) in groups.iter().enumerate() {
            order[next[*group as usize]] = row as u32;
            next[*group as usize] += 1;
        }
        self.lists(&lengths, taken(&columns, &UInt32Array::from(order))?)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |v| v.len());
        let passes = |row: usize| opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let lengths: Vec<usize> = (0..rows).map(|row| usize::from(passes(row))).collect();
        let kept = UInt32Array::from_iter_values((0..rows).filter(|row| passes(*row)).map(|row| row as u32));
        self.lists(&lengths, taken(&self.columns(values), &kept)?)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.rows.bytes()
    }
}

impl OrderedGroups {
    /// Of what a call is given, what is kept: all but the constants.
    fn columns(&self, values: &[ArrayRef]) -> Vec<ArrayRef> {
        let ordering = &values[1 + self.constants.len()..];
        std::iter::once(&values[0]).chain(ordering).cloned().collect()
    }
}

impl Buffer {
    /// Appends rows, whose arrays are their own.
    fn push(&mut self, groups: Vec<u32>, columns: Vec<ArrayRef>) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        self.rows += groups.len();
        if u32::try_from(self.rows).is_err() {
            return exec_err!(
                "an ordered aggregate over more than {} rows of one window: use shorter windows",
                u32::MAX
            );
        }
        self.pieces.push(Piece::new(groups, columns)?);
        while let [.., before, last] = &self.pieces[..]
            && before.groups.len() < 2 * last.groups.len()
        {
            let pieces = self.pieces.split_off(self.pieces.len() - 2);
            self.pieces.push(joined(pieces)?);
        }
        Ok(())
    }

    /// All rows as one piece.
    fn whole(self, value: &FieldRef, ordering: &Fields) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        if self.pieces.is_empty() {
            let types = std::iter::once(value).chain(ordering).map(|f| arrow::array::new_empty_array(f.data_type()));
            return Ok((vec![], types.collect()));
        }
        let Piece { groups, columns, .. } = joined(self.pieces)?;
        Ok((groups, columns))
    }

    fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }
}

impl Piece {
    fn new(groups: Vec<u32>, columns: Vec<ArrayRef>) -> Result<Self> {
        let mut bytes = groups.capacity() * size_of::<u32>();
        for column in &columns {
            bytes += column.to_data().get_slice_memory_size()?;
        }
        Ok(Piece { groups, columns, bytes })
    }
}

fn joined(pieces: Vec<Piece>) -> Result<Piece> {
    let columns = pieces.first().map_or(0, |piece| piece.columns.len());
    let column = |i: usize| {
        let parts: Vec<&dyn Array> = pieces.iter().map(|piece| piece.columns[i].as_ref()).collect();
        Ok(concat(&parts)?)
    };
    let columns = (0..columns).map(column).collect::<Result<Vec<_>>>()?;
    Piece::new(pieces.into_iter().flat_map(|piece| piece.groups).collect(), columns)
}

/// Some rows of some columns, in arrays of their own.
fn taken(columns: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    let column = |column: &ArrayRef| {
        let taken = take(column, rows, None)?;
        // Views would hold on to the whole batch they came from.
        Ok(match taken.data_type() {
            DataType::Utf8View => Arc::new(taken.as_string_view().gc()) as ArrayRef,
            DataType::BinaryView => Arc::new(taken.as_binary_view().gc()),
            _ => taken,
        })
    };
    columns.iter().map(column).collect()
}

fn rows_where(groups: &[u32], what: impl Fn(&u32) -> bool) -> UInt32Array {
    UInt32Array::from_iter_values((0..groups.len()).filter(|row| what(&groups[*row])).map(|row| row as u32))
}

/// Each group that has rows, and its stretch of an order by group.
fn stretches(groups: &[u32], order: &UInt32Array) -> Vec<(u32, usize, usize)> {
    let mut stretches: Vec<(u32, usize, usize)> = vec![];
    for (at, row) in order.values().iter().enumerate() {
        let group = groups[*row as usize];
        match stretches.last_mut() {
            Some((last, _, to)) if *last == group => *to = at + 1,
            _ => stretches.push((group, at, at + 1)),
        }
    }
    stretches
}

fn starts(lengths: &[usize]) -> Vec<usize> {
    let mut at = 0;
    let start = |length: &usize| {
        at += length;
        at - length
    };
    lengths.iter().map(start).collect()
}

#[cfg(test)]
mod tests;
