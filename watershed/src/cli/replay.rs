//! `watershed replay JOB`

use clap::Args;
use serde_json::json;
use watershed::Replayed;
use watershed_core::Result;

use super::Global;
use super::progress::{count, print_line};

#[derive(Args)]
pub(crate) struct Replay {
    /// The job: an INSERT's, a sink's or a materialized view's name
    job: String,

    /// Only say how many could be read now, and what is wrong with the others
    #[arg(long)]
    dry_run: bool,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let replayed = global.engine(&[], vec![])?.replay(&self.job, self.dry_run).await?;
        match self.json {
            true => print_line(&json!(replayed).to_string()),
            false => said(&replayed).iter().for_each(|line| print_line(line)),
        }
        Ok(())
    }
}

fn said(replayed: &Replayed) -> Vec<String> {
    let Replayed { job, dry_run, messages, records_of_files } = replayed;
    let mut lines = vec![match (messages.listed, dry_run) {
        (0, _) => format!("{job}: no messages are listed as malformed"),
        (listed, true) => format!(
            "{job}: of {} messages that could not be read, {} can be read now; nothing was changed",
            count(listed),
            count(messages.readable)
        ),
        (listed, false) => format!(
            "{job}: of {} messages that could not be read, {} were played back, {} rows written",
            count(listed),
            count(messages.readable),
            count(messages.written)
        ),
    }];
    let still = messages.listed - messages.readable;
    if still > 0 {
        lines.push(format!("{} still cannot be read, and stay in the table of late and bad rows:", count(still)));
    }
    let one = |of: &watershed::runtime::StillMalformed| {
        format!("  {}, part {}, offset {}: {}", of.source, of.part, of.offset, of.error)
    };
    lines.extend(messages.malformed.iter().map(one));
    if still > messages.malformed.len() as u64 {
        lines.push("  …".to_string());
    }
    if *records_of_files > 0 {
        lines.push(format!(
            "{} records of files are left as they are: what is mended is read from a file of its own",
            count(*records_of_files)
        ));
    }
    lines
}
