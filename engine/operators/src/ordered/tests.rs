//! Random cuts, merges and orders against a plain sort of the same rows, and what an accumulator holds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, new_empty_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::first_last::{first_value_udaf, last_value_udaf};
use datafusion::functions_aggregate::nth_value::nth_value_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::logical_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr_common::sort_expr::PhysicalSortExpr;
use watershed_core::clock::mix;

use super::*;
use crate::groups::accumulators;

/// A row: its group, value, text, and what it is ordered by: `a`, which ties and may be NULL, then `id`.
#[derive(Clone, Debug)]
struct Row {
    group: usize,
    value: Option<i64>,
    a: Option<f64>,
    id: i64,
    kept: Option<bool>,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % n
    }
}

fn text(value: i64) -> String {
    format!("text number {value}")
}

fn rows(dice: &mut Dice, count: u64, groups: u64) -> Vec<Row> {
    let row = |id: u64| Row {
        group: dice.below(groups) as usize,
        value: (dice.below(6) > 0).then(|| dice.below(100) as i64),
        a: (dice.below(8) > 0).then(|| dice.below(5) as f64 - 2.0),
        id: id as i64,
        kept: (dice.below(10) > 0).then(|| dice.below(4) > 0),
    };
    (0..count).map(row).collect()
}

fn options() -> [SortOptions; 2] {
    [SortOptions { descending: true, nulls_first: false }, SortOptions { descending: false, nulls_first: false }]
}

/// `a DESC NULLS LAST, id`.
fn sorted(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.sort_by(|x, y| match (x.a, y.a) {
        (Some(a), Some(b)) => b.total_cmp(&a).then(x.id.cmp(&y.id)),
        (None, None) => x.id.cmp(&y.id),
        (x, y) => y.is_some().cmp(&x.is_some()),
    });
    rows
}

fn call(function: Arc<AggregateUDF>, constant: Option<ScalarValue>, ignore_nulls: bool) -> Arc<AggregateFunctionExpr> {
    let text = function.name() == "string_agg";
    let schema = Schema::new(vec![
        Field::new("value", if text { DataType::Utf8 } else { DataType::Int64 }, true),
        Field::new("a", DataType::Float64, true),
        Field::new("id", DataType::Int64, false),
    ]);
    let column = |name: &str, i: usize| Arc::new(Column::new(name, i)) as Arc<dyn PhysicalExpr>;
    let mut arguments = vec![column("value", 0)];
    arguments.extend(constant.map(|c| Arc::new(Literal::new(c)) as Arc<dyn PhysicalExpr>));
    let order = [column("a", 1), column("id", 2)].into_iter().zip(options());
    let built = AggregateExprBuilder::new(function, arguments)
        .order_by(order.map(|(e, o)| PhysicalSortExpr::new(e, o)).collect())
        .schema(Arc::new(schema))
        .alias("x")
        .with_ignore_nulls(ignore_nulls)
        .build();
    Arc::new(built.unwrap())
}

fn columns(call: &AggregateFunctionExpr, rows: &[Row]) -> Vec<ArrayRef> {
    let value: ArrayRef = match call.fun().name() {
        "string_agg" => Arc::new(StringArray::from_iter(rows.iter().map(|r| r.value.map(text)))),
        _ => Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.value))),
    };
    let mut columns = vec![value];
    for constant in &call.expressions()[1..] {
        let constant = constant.downcast_ref::<Literal>().unwrap().value();
        columns.push(constant.to_array_of_size(rows.len()).unwrap());
    }
    columns.push(Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.a))));
    columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))));
    columns
}

fn accumulator(call: &Arc<AggregateFunctionExpr>) -> Box<dyn GroupsAccumulator> {
    accumulators(std::slice::from_ref(call)).unwrap().remove(0)
}

/// The rows cut and shuffled, some as rows, some as states, some as states a row, merged in any order.
fn answer(call: &Arc<AggregateFunctionExpr>, rows: &[Row], groups: usize, dice: &mut Dice) -> ArrayRef {
    let mut rows = rows.to_vec();
    for i in (1..rows.len()).rev() {
        rows.swap(i, dice.below(i as u64 + 1) as usize);
    }
    let mut whole = accumulator(call);
    let mut rest = &rows[..];
    while !rest.is_empty() {
        let (part, next) = rest.split_at(1 + dice.below(rest.len() as u64) as usize);
        rest = next;
        let filter = BooleanArray::from_iter(part.iter().map(|r| r.kept));
        let of: Vec<_> = part.iter().map(|r| r.group).collect();
        let columns = columns(call, part);
        match dice.below(3) {
            0 => whole.update_batch(&columns, &of, Some(&filter), groups).unwrap(),
            1 => {
                let states = whole.convert_to_state(&columns, Some(&filter)).unwrap();
                whole.merge_batch(&states, &of, groups).unwrap();
            }
            _ => {
                let mut other = accumulator(call);
                other.update_batch(&columns, &of, Some(&filter), groups).unwrap();
                assert!(other.size() > 0);
                let states = other.state(EmitTo::All).unwrap();
                let fields = call.state_fields().unwrap();
                assert_eq!(states.len(), fields.len());
                for (state, field) in states.iter().zip(&fields) {
                    assert_eq!((state.data_type(), state.len()), (field.data_type(), groups));
                }
                whole.merge_batch(&states, &(0..groups).collect::<Vec<_>>(), groups).unwrap();
            }
        }
        if dice.below(4) == 0 {
            // As a checkpoint does.
            let states = whole.state(EmitTo::All).unwrap();
            whole = accumulator(call);
            whole.merge_batch(&states, &(0..groups).collect::<Vec<_>>(), groups).unwrap();
        }
    }
    whole.evaluate(EmitTo::All).unwrap()
}

/// Each group's rows that pass the filter, in order.
fn expected(rows: &[Row], groups: usize) -> Vec<Vec<Row>> {
    let rows = sorted(rows);
    (0..groups).map(|g| rows.iter().filter(|r| r.group == g && r.kept == Some(true)).cloned().collect()).collect()
}

fn int(value: i64) -> Option<ScalarValue> {
    Some(ScalarValue::Int64(Some(value)))
}

#[test]
fn any_order_of_merging_gives_what_a_plain_sort_gives() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let groups = 1 + dice.below(9) as usize;
        // The last groups may have no rows at all.
        let with_rows = 1 + dice.below(groups as u64);
        // Enough rows of few groups that pruning comes in.
        let count = [1, 40, 400, 5_000][dice.below(4) as usize];
        let rows = rows(&mut dice, count, with_rows);
        let expected = expected(&rows, groups);
        let of = |group: &[Row], ignore: bool| -> Vec<Option<i64>> {
            group.iter().map(|r| r.value).filter(|v| !ignore || v.is_some()).collect()
        };

        for ignore in [false, true] {
            let lists = answer(&call(array_agg_udaf(), None, ignore), &rows, groups, &mut dice);
            for (g, group) in expected.iter().enumerate() {
                let list = lists.as_list::<i32>();
                let list = list.is_valid(g).then(|| list.value(g).as_primitive::<Int64Type>().iter().collect());
                let expected = Some(of(group, ignore)).filter(|list| !list.is_empty());
                assert_eq!(list, expected, "array_agg, seed {seed}, group {g}, ignore {ignore}");
            }
            for (function, last) in [(first_value_udaf(), false), (last_value_udaf(), true)] {
                let values = answer(&call(function, None, ignore), &rows, groups, &mut dice);
                let values: Vec<_> = values.as_primitive::<Int64Type>().iter().collect();
                let one = |group: &Vec<Row>| {
                    let all = of(group, ignore);
                    if last { all.last().copied().flatten() } else { all.first().copied().flatten() }
                };
                let expected: Vec<_> = expected.iter().map(one).collect();
                assert_eq!(values, expected, "last {last}, seed {seed}, ignore {ignore}");
            }
        }

        let texts = answer(&call(string_agg_udaf(), Some(ScalarValue::from("; ")), false), &rows, groups, &mut dice);
        let joined = |group: &Vec<Row>| {
            let texts: Vec<_> = of(group, true).into_iter().flatten().map(text).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        };
        let expected_texts: Vec<_> = expected.iter().map(joined).collect();
        let texts: Vec<_> = texts.as_string::<i64>().iter().map(|t| t.map(str::to_string)).collect();
        assert_eq!(texts, expected_texts, "string_agg, seed {seed}");

        for n in [1, 3, -1, -2, 700] {
            let values = answer(&call(nth_value_udaf(), int(n), false), &rows, groups, &mut dice);
            let nth = |group: &Vec<Row>| {
                let at = if n > 0 { Some(n as usize - 1) } else { group.len().checked_sub(-n as usize) };
                at.and_then(|at| group.get(at)).and_then(|r| r.value)
            };
            let expected: Vec<_> = expected.iter().map(nth).collect();
            let values: Vec<_> = values.as_primitive::<Int64Type>().iter().collect();
            assert_eq!(values, expected, "nth_value {n}, seed {seed}");
        }
    }
}

#[test]
fn a_reversed_call_answers_the_same() {
    let mut dice = Dice(7);
    let rows = rows(&mut dice, 300, 4);
    for (function, constant) in [(array_agg_udaf(), None), (nth_value_udaf(), int(2)), (nth_value_udaf(), int(-3))] {
        let forward = call(function, constant, false);
        let reversed = Arc::new(forward.reverse_expr().unwrap());
        assert!(reversed.is_reversed());
        let answers = [&forward, &reversed].map(|call| answer(call, &rows, 4, &mut dice));
        assert_eq!(&answers[0], &answers[1]);
    }
}

#[test]
fn rows_that_cannot_matter_are_thrown_away() {
    let rows = rows(&mut Dice(1), 50_000, 3);
    let of: Vec<_> = rows.iter().map(|r| r.group).collect();
    let call = call(nth_value_udaf(), int(2), false);
    let mut accumulator = super::accumulator(&call).unwrap();
    for (rows, of) in rows.chunks(100).zip(of.chunks(100)) {
        accumulator.update_batch(&columns(&call, rows), of, None, 3).unwrap();
        assert!(accumulator.rows.rows < PRUNE_ROWS + 100);
    }
}

#[test]
fn pieces_are_few_and_the_size_is_that_of_the_rows() {
    let rows = rows(&mut Dice(2), 20_000, 3);
    let call = call(array_agg_udaf(), None, false);
    let mut accumulator = super::accumulator(&call).unwrap();
    let all = columns(&call, &rows);
    for (i, row) in rows.iter().enumerate() {
        let one: Vec<_> = all.iter().map(|c| c.slice(i, 1)).collect();
        accumulator.update_batch(&one, &[row.group], None, 3).unwrap();
        assert!(accumulator.rows.pieces.len() <= 16);
    }
    let bytes = rows.len() * (4 + 8 + 8 + 8);
    assert!((bytes..2 * bytes).contains(&accumulator.size()), "{} for {bytes}", accumulator.size());
}

#[test]
fn the_first_groups_can_be_taken_alone() {
    let rows = rows(&mut Dice(3), 500, 5);
    let of: Vec<_> = rows.iter().map(|r| r.group).collect();
    let call = call(array_agg_udaf(), None, false);
    let columns = columns(&call, &rows);
    let mut whole = super::accumulator(&call).unwrap();
    whole.update_batch(&columns, &of, None, 5).unwrap();
    let mut parts = super::accumulator(&call).unwrap();
    parts.update_batch(&columns, &of, None, 5).unwrap();
    let first = parts.evaluate(EmitTo::First(2)).unwrap();
    let rest = parts.evaluate(EmitTo::All).unwrap();
    let whole = whole.evaluate(EmitTo::All).unwrap();
    assert_eq!((first.len(), rest.len()), (2, 3));
    assert_eq!(&whole.slice(0, 2), &first);
    assert_eq!(&whole.slice(2, 3), &rest);
}

#[test]
fn no_groups_and_bad_calls() {
    let good = call(array_agg_udaf(), None, false);
    let mut accumulator = super::accumulator(&good).unwrap();
    assert_eq!(&accumulator.evaluate(EmitTo::All).unwrap(), &new_empty_array(good.field().data_type()));
    assert!(super::accumulator(&call(nth_value_udaf(), int(0), false)).is_err());
    assert!(super::accumulator(&call(nth_value_udaf(), Some(ScalarValue::from("x")), false)).is_err());
    assert!(super::accumulator(&call(string_agg_udaf(), int(1), false)).is_err());
}
