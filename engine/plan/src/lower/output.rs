//! What the columns of a windowed view are: its key, and the start of its window.

use datafusion::common::DataFusionError;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use watershed_operators::{Edge, WindowForm};

use super::grouping::Grouping;
use crate::shape;
use crate::trace::{Traced, column, trace};

/// Output columns that are group columns, and the one that is the window's start.
pub(super) fn output_key(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    grouping: &Grouping,
) -> Result<(Vec<String>, Option<String>), DataFusionError> {
    let mut carriers = vec![];
    for i in 0..plan.schema().fields().len() {
        let traced = trace(&column(plan, i), plan)?;
        let [Traced { expr: Expr::Column(c), .. }] = &traced[..] else { continue };
        let group = aggregate.schema.maybe_index_of_column(c);
        if let Some(group) = group.and_then(|g| grouping.groups.get(g)) {
            carriers.push((plan.schema().field(i).name().clone(), group));
        }
    }
    let start = carriers.iter().find(|(_, group)| group.edge == Some(Edge::Start)).map(|(name, _)| name.clone());
    if shape::multiplies(plan) {
        return Ok((vec![], start));
    }
    // One edge tells the window, but where several windows have the same start.
    let needs_end = start.is_none() || matches!(grouping.form, WindowForm::Cumulate { .. });
    let mut seen = vec![];
    let mut key = vec![];
    for (name, group) in carriers {
        let counts = group.edge != Some(Edge::End) || needs_end;
        if counts && !seen.contains(&group.output) {
            seen.push(group.output);
            key.push(name);
        }
    }
    Ok((key, start))
}

/// Names that differ.
pub(super) fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken: Vec<String> = vec![];
    for mut name in names {
        while taken.contains(&name) {
            name.push('_');
        }
        taken.push(name);
    }
    taken
}
