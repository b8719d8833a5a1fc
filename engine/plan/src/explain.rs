//! A lowered query in words, for `EXPLAIN` and `watershed plan`: from the sources up to the view.

use std::fmt::Write;

use crate::lower::Lowered;

/// The graph of a lowered query, one stage a paragraph, in the order in which a row passes.
pub fn explain(lowered: &Lowered) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "sources: {}", lowered.inputs.join(", "));
    section(&mut text, "fragment, once a step in parallel:", &lowered.fragment.display());
    match &lowered.window {
        None => text.push_str("stateless: rows go to the view as they come\n"),
        Some(stage) => {
            let spec = &stage.spec;
            let groups: Vec<_> = spec.group_fields.iter().map(|f| f.name().as_str()).collect();
            let aggregates: Vec<_> = spec.aggregates.iter().map(|a| a.name()).collect();
            let width = match spec.end {
                watershed_operators::WindowEnd::Fixed(span) => span.to_string(),
                watershed_operators::WindowEnd::Months(1) => "1 month".to_string(),
                watershed_operators::WindowEnd::Months(n) => format!("{n} months"),
            };
            let _ =
                writeln!(text, "window aggregate, in shards: windows of {width}, emitted once the watermark passes");
            let _ = writeln!(text, "  by: {}", groups.join(", "));
            let _ = writeln!(text, "  keeps: {}", aggregates.join(", "));
            section(&mut text, "finish, over what became final:", &stage.finish.display());
        }
    }
    let columns = lowered.output.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type()));
    let _ = writeln!(text, "view: {}", columns.collect::<Vec<_>>().join(", "));
    if !lowered.key.is_empty() {
        let _ = writeln!(text, "key: {}", lowered.key.join(", "));
    }
    text
}

fn section(text: &mut String, title: &str, plan: &str) {
    let _ = writeln!(text, "{title}");
    for line in plan.lines() {
        let _ = writeln!(text, "  {line}");
    }
}
