//! A lowered query in words, for `EXPLAIN` and `watershed plan`: from the sources up to the view.

use std::fmt::Write;

use watershed_operators::{WindowEnd, WindowForm, Windows};

use crate::lower::Lowered;

/// The graph of a lowered query, one stage a paragraph, in the order in which a row passes.
pub fn explain(lowered: &Lowered) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "sources: {}", lowered.inputs.join(", "));
    section(&mut text, "fragment, once a step in parallel:", &lowered.fragment.display());
    if lowered.stages.is_empty() {
        text.push_str("stateless: rows go to the view as they come\n");
    }
    for (i, stage) in lowered.stages.iter().enumerate() {
        let spec = &stage.spec;
        let groups: Vec<_> = spec.group_fields.iter().map(|f| f.name().as_str()).collect();
        let aggregates: Vec<_> = spec.aggregates.iter().map(|a| a.name()).collect();
        let windows = match spec.windows {
            Windows::Single(end) => format!("windows of {}", length(end)),
            Windows::Paned(WindowForm::Hop { slide, size, .. }) => format!("windows of {size} every {slide}, by panes"),
            Windows::Paned(form) => {
                format!("windows that grow by {} up to {}, by panes", length(form.pane_end()), length(form.end()))
            }
        };
        let _ = writeln!(text, "window aggregate, in shards: {windows}, emitted once the watermark passes");
        let _ = writeln!(text, "  by: {}", groups.join(", "));
        let _ = writeln!(text, "  keeps: {}", aggregates.join(", "));
        let title = if i + 1 == lowered.stages.len() {
            "finish, over what became final:"
        } else {
            "from there to the next aggregate, over what became final:"
        };
        section(&mut text, title, &stage.finish.display());
    }
    let columns = lowered.output.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type()));
    let _ = writeln!(text, "view: {}", columns.collect::<Vec<_>>().join(", "));
    if !lowered.key.is_empty() {
        let _ = writeln!(text, "key: {}", lowered.key.join(", "));
    }
    text
}

fn length(end: WindowEnd) -> String {
    match end {
        WindowEnd::Fixed(span) if span.0 == 0 => "the aggregate below".to_string(),
        WindowEnd::Fixed(span) => span.to_string(),
        WindowEnd::Months(1) => "1 month".to_string(),
        WindowEnd::Months(n) => format!("{n} months"),
    }
}

fn section(text: &mut String, title: &str, plan: &str) {
    let _ = writeln!(text, "{title}");
    for line in plan.lines() {
        let _ = writeln!(text, "  {line}");
    }
}
