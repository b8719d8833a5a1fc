//! `watershed run FILE.sql`

use clap::Args;
use watershed::runtime::Stop;
use watershed::{Outcome, RunOptions};
use watershed_core::Result;

use super::Global;
use super::flags::{SettingFlags, pair, read_text};
use super::output::{Format, Output};
use super::progress::Shown;
use super::signals::stop_on_signals;

#[derive(Args)]
pub(crate) struct Run {
    /// The SQL file; `-` reads standard input
    file: String,

    /// Fills ${NAME} in the SQL (more than once); without it the environment does
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,

    /// Read to the end, close every window, and end the jobs for good
    #[arg(long = "final")]
    to_the_end: bool,

    /// Go on with a job that was ended by --final, from its checkpoint before
    #[arg(long)]
    reopen: bool,

    /// Progress and results as JSON, one object a line, on standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: SettingFlags,
}

impl Run {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let text = read_text(&self.file)?;
        let engine = global.engine(&self.variables, self.settings.given)?;
        let shown = Shown::new(self.json);
        let stop = Stop::default();
        stop_on_signals(stop.clone())?;
        let options = RunOptions { to_the_end: self.to_the_end, reopen: self.reopen, progress: shown.progress(), stop };
        let mut seen = |outcome: Outcome| show(outcome, &shown, self.json);
        engine.execute_with(&text, &options, &mut seen).await
    }
}

fn show(outcome: Outcome, shown: &Shown, json: bool) -> Result<()> {
    match outcome {
        Outcome::Done(note) => shown.note(&note),
        Outcome::Job(summary) => shown.summary(&summary),
        Outcome::Text(text) => shown.note(&text),
        Outcome::Rows { schema, batches } => {
            let mut output = Output::open(if json { Format::Json } else { Format::Table }, None, schema)?;
            for batch in batches {
                output.write(batch)?;
            }
            output.finish()?;
        }
    }
    Ok(())
}
