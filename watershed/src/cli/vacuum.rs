//! `watershed vacuum TABLE…`

use clap::Args;
use watershed::upkeep::{CleanedLog, Pin, VacuumOptions, Vacuumed};
use watershed_core::settings::parse_span;
use watershed_core::{Error, Result};

use super::Global;
use super::progress::{bytes, count, print_line};

#[derive(Args)]
pub(crate) struct Vacuum {
    /// Tables and materialized views by name, or Delta tables by location
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,

    /// How long files stay that the table does not need any more [default: the table's delta.deletedFileRetentionDuration, else 7
    /// days]
    #[arg(long, value_name = "SPAN")]
    retention: Option<String>,

    /// Allow a retention that is shorter than the default: files may go that others still read, or have not committed yet
    #[arg(long)]
    allow_shorter_retention: bool,

    /// Leave old entries of the log where they are
    #[arg(long)]
    keep_log: bool,

    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Vacuum {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let engine = global.engine(&[], vec![])?;
        let span = |text: &String| {
            parse_span(text).ok_or_else(|| Error::input(format!("--retention {text}: give a span, such as '7 days'")))
        };
        let options = VacuumOptions {
            retention: self.retention.as_ref().map(span).transpose()?,
            allow_shorter: self.allow_shorter_retention,
            keep_log: self.keep_log,
            dry_run: self.dry_run,
        };
        for table in &self.tables {
            let done = engine.vacuum(table, options).await?;
            for file in done.files.iter().filter(|_| self.dry_run) {
                print_line(&format!("{} ({})", file.path, bytes(file.bytes)));
            }
            said(&done, self.dry_run).iter().for_each(|line| print_line(&format!("{table}: {line}")));
        }
        Ok(())
    }
}

/// What there is to say of a table.
fn said(done: &Vacuumed, dry_run: bool) -> Vec<String> {
    let mut lines = vec![];
    let removed = if dry_run { "would remove" } else { "removed" };
    lines.push(match done.files.len() as u64 {
        0 => "no file is there to be removed".to_string(),
        files => format!("{removed} {} files ({})", count(files), bytes(done.bytes)),
    });
    if done.held > 0 {
        let by = if done.pins.is_empty() { String::new() } else { format!(": {}", standing(&done.pins)) };
        lines.push(format!(
            "{} files ({}) stay for jobs that may still read them{by}",
            count(done.held),
            bytes(done.held_bytes)
        ));
    }
    if !done.lost.is_empty() {
        lines.push(format!("its log does not reach back any more to where jobs stand: {}", standing(&done.lost)));
    }
    let Some(log) = &done.log else { return lines };
    lines.extend(of_log(log, removed));
    lines
}

fn of_log(log: &CleanedLog, removed: &str) -> Vec<String> {
    let mut lines = vec![];
    if let Some(why) = &log.left_alone {
        lines.push(format!("the log was left alone: {why}"));
    }
    if let Some(version) = log.checkpoint {
        lines.push(format!("wrote a log checkpoint of version {version}"));
    }
    if let Some(first) = log.first.filter(|_| log.files > 0) {
        lines.push(format!(
            "{removed} {} files of the log ({}); version {first} is the first that can be read",
            count(log.files),
            bytes(log.bytes)
        ));
    }
    lines
}

fn standing(pins: &[Pin]) -> String {
    pins.iter().map(|pin| format!("{} at version {}", pin.job, pin.version)).collect::<Vec<_>>().join(", ")
}
