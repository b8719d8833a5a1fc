//! `watershed run FILE.sql`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinHandle;
use watershed::runtime::Stop;
use watershed::{Metrics, Outcome, RunOptions};
use watershed_core::Result;

use super::Global;
use super::flags::{SettingFlags, pair, read_text};
use super::output::{Format, Output};
use super::progress::Shown;
use super::signals::stop_on_signals;

/// Between two writes of the metrics.
const METRICS_EVERY: Duration = Duration::from_secs(5);

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

    /// End at the newest message of the logs, instead of waiting for more
    #[arg(long, value_name = "caught-up", value_parser = ["caught-up"])]
    until: Option<String>,

    /// Go on with a job that was ended by --final, from its checkpoint before
    #[arg(long)]
    reopen: bool,

    /// Progress and results as JSON, one object a line, on standard output (progress on standard error, if a sink writes
    /// to standard output)
    #[arg(long)]
    json: bool,

    /// Keeps this file up to date with metrics in Prometheus' text form, for node_exporter's textfile collector
    #[arg(long, value_name = "PATH")]
    metrics_file: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingFlags,
}

impl Run {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let text = read_text(&self.file)?;
        let engine = global.engine(&self.variables, self.settings.given)?;
        let shown = Shown::new(self.json, engine.prints_rows(&text));
        let stop = Stop::default();
        stop_on_signals(stop.clone())?;
        let metrics = Arc::new(Metrics::before(shown.progress()).of(&engine));
        let written = self.metrics_file.map(|path| kept_up(Arc::clone(&metrics), path)).transpose()?;
        let progress = Arc::clone(&metrics) as _;
        let options = RunOptions {
            to_the_end: self.to_the_end,
            until_caught_up: self.until.is_some(),
            reopen: self.reopen,
            progress,
            stop,
        };
        let mut seen = |outcome: Outcome| {
            if let Outcome::Job(summary) = &outcome {
                metrics.ended(summary);
            }
            show(outcome, &shown, self.json)
        };
        let ended = engine.execute_with(&text, &options, &mut seen).await;
        metrics.all_ended();
        shown.requests(&engine);
        if let Some((writer, path)) = written {
            writer.abort();
            // What became of the jobs matters more than what became of this file.
            match metrics.write(&path) {
                Err(e) if ended.is_ok() => return Err(e),
                Err(e) => tracing::error!("{e}"),
                Ok(()) => {}
            }
        }
        ended
    }
}

/// Writes the metrics now, so that a path that cannot be written is told at once, and then every few seconds.
fn kept_up(metrics: Arc<Metrics>, path: PathBuf) -> Result<(JoinHandle<()>, PathBuf)> {
    metrics.write(&path)?;
    let file = path.clone();
    let writer = tokio::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_EVERY).await;
            if let Err(e) = metrics.write(&file) {
                tracing::warn!("{e}");
            }
        }
    });
    Ok((writer, path))
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
