//! `watershed retention SOURCE`

use clap::Args;
use serde_json::json;
use watershed::{Forgets, Handover};
use watershed_core::settings::parse_span;
use watershed_core::{Error, Result};

use super::Global;
use super::progress::{count, print_line};

#[derive(Args)]
pub(crate) struct Retention {
    /// A source with a lake and a log, or a view over some
    source: String,

    /// How long the log keeps messages, such as '6 hours', where that is not what its topic says (retention.ms)
    #[arg(long, value_name = "SPAN")]
    keeps: Option<String>,

    /// Warn of what the log forgets within this time and the table does not have
    #[arg(long, value_name = "SPAN", default_value = "1 hour")]
    within: String,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Retention {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let engine = global.engine(&[], vec![])?;
        let span = |flag: &str, text: &str| {
            parse_span(text).ok_or_else(|| Error::input(format!("--{flag} {text}: give a span, such as '6 hours'")))
        };
        let within = span("within", &self.within)?;
        let keeps = self.keeps.as_ref().map(|keeps| span("keeps", keeps)).transpose()?;
        let found = engine.handover(&self.source, Some(Forgets { keeps, within })).await?;
        for handover in &found {
            match self.json {
                true => print_line(&json!(handover).to_string()),
                false => said(handover).iter().for_each(|line| print_line(line)),
            }
        }
        if found.iter().any(|handover| !handover.closes()) {
            return Err(Error::stopped("the log has forgotten messages that the table does not have"));
        }
        if found.iter().any(Handover::is_in_danger) {
            return Err(Error::stopped(format!(
                "within {} the log forgets messages that the table does not have; see that the archive runs, or keep the log \
                 for longer",
                self.within
            )));
        }
        Ok(())
    }
}

/// What of the log is safe, part by part.
fn said(handover: &Handover) -> Vec<String> {
    let keeps = handover.keeps.map_or(String::new(), |keeps| format!("; the log keeps messages for {keeps}"));
    let mut lines = vec![format!("{}: version {} of {}{keeps}", handover.source, handover.version, handover.lake)];
    for (part, at) in &handover.parts {
        let safe = match at.archived {
            Some(last) => format!("offsets up to {last} are in the table: the log may forget them"),
            None => "nothing of it is in the table: the log may forget nothing".to_string(),
        };
        let behind = count(u64::try_from(at.has.end - at.begins).unwrap_or(0));
        let mut line = format!("part {part}: {safe}; {behind} more are in the log");
        if let Some(missing) = &at.missing {
            line += &format!("; LOST: {} to {} are in neither", missing.start, missing.end - 1);
        }
        if let Some(going) = &at.about_to_go {
            line += &format!("; ABOUT TO BE LOST: {} to {}", going.start, going.end - 1);
        }
        lines.push(line);
    }
    lines
}
