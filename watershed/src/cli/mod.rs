//! The command line: what can be asked, a file a command, and how it ends.
//!
//! Every command is a thin reading of flags over the library's [`Engine`]: nothing can be done here that an embedder
//! cannot do. Results go to standard output; progress, logs and errors to standard error.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use watershed::{Engine, Stores};
use watershed_core::{Error, Result};

mod flags;

mod run;

mod plan;

mod query;

mod load;

mod compact;

mod retention;

mod vacuum;

mod control;

mod replay;

mod signals;

mod show;

mod verify;

mod output;

mod progress;

/// How long a process waits for its tasks to let go.
const LET_GO: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  watershed load data/*.csv --into lake/flights --time-column date --partition-by day
  watershed run flights.sql
  watershed run flights.sql --final --parallelism 4
  watershed plan flights.sql
  watershed query 'SELECT * FROM delays ORDER BY window_start LIMIT 10'
  watershed --home s3://warehouse/home jobs
  watershed alter delays --throttle-bytes '50 MB' --schedule '22:00-06:00'

Exit codes:
  0   done, also when there was nothing new
  1   verify found that the view differs
  2   the SQL, a setting, a path or a file's content is at fault; the message says which
  3   storage could not be reached, read or written
  4   stopped, because going on could lose or double facts
  5   another runner took the job over
  6   a limit, such as memory_limit, was reached
  70  a fault in Watershed itself
  130 ended at once by a second Ctrl-C (143: SIGTERM); the next run goes on from the last checkpoint";

const RUN_EXAMPLES: &str = "\
Examples:
  watershed run flights.sql                         goes on where the last run ended
  watershed run flights.sql --var LAKE=s3://w/lake  fills ${LAKE} in the SQL
  watershed run flights.sql --to 2001-02-01         ends at that watermark
  watershed run flights.sql --final                 closes every window: the history is complete
  echo \"SELECT 1\" | watershed run -";

const QUERY_EXAMPLES: &str = "\
Examples:
  watershed query 'SELECT origin, sum(flights) FROM delays GROUP BY origin'
  watershed query report.sql --format csv --output report.csv
  watershed query 'SELECT * FROM delays' --output delays.parquet";

const LOAD_EXAMPLES: &str = "\
Examples:
  watershed load flights.parquet --into lake/flights --time-column date --partition-by day
  watershed load 'in/**/*.ndjson' more/ --into s3://warehouse/events --time-column at --partition-by hour

A file is known by its URL, size and SHA-256: loaded again it is skipped, unless --again is given.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  watershed stop rides                    what is read from now on is read by the new declaration
  watershed run mended.sql                CREATE OR REPLACE SOURCE …, alone in its file
  watershed replay rides --dry-run        how many can be read now, and what is wrong with the others
  watershed replay rides

Each message is used once, whatever is killed when: it leaves the table of late and bad rows in the commit of the job that
uses it. What still cannot be read stays there, with what is wrong with it now.";

/// A Kappa+ streaming engine for the lakehouse: one SQL query over history and what follows, into open tables.
#[derive(Parser)]
#[command(name = "watershed", version, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command knows.
#[derive(Args)]
pub(crate) struct Global {
    /// Where catalog, checkpoints and tables are kept: a folder or an object store URL
    #[arg(long, global = true, env = "WATERSHED_HOME", default_value = ".watershed", value_name = "LOCATION")]
    home: String,

    /// What is logged to standard error, such as `info` or `watershed_lake=debug`
    #[arg(long, global = true, env = "WATERSHED_LOG", default_value = "warn", value_name = "FILTER")]
    log: String,

    /// How logs are written
    #[arg(long, global = true, env = "WATERSHED_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,

    /// An option of the object store, such as endpoint=http://localhost:9000 (more than once)
    #[arg(long = "store-option", global = true, value_name = "NAME=VALUE", value_parser = flags::pair)]
    store_options: Vec<(String, String)>,
}

/// Text for people, or one JSON object a line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Global {
    /// An engine over the home, with variables and settings as given by flags.
    fn engine(&self, variables: &[(String, String)], settings: Vec<(String, String)>) -> Result<Engine> {
        let mut builder = Engine::builder()
            .home(&self.home)
            .stores(Stores::new(self.store_options.iter().cloned().collect::<BTreeMap<_, _>>()))
            .environment(std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?))))
            .variables(variables.iter().cloned());
        for (name, value) in settings {
            builder = builder.setting(name, value);
        }
        builder.build()
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the statements of a SQL file; its jobs go on where they ended
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::Run),
    /// Show how the jobs of a SQL file would be run, without running them
    Plan(plan::Plan),
    /// Answer a query over sources and result tables, once
    #[command(after_help = QUERY_EXAMPLES)]
    Query(query::Query),
    /// Put Parquet, CSV or NDJSON files into a table
    #[command(after_help = LOAD_EXAMPLES)]
    Load(load::Load),
    /// Put a table's small files together, and be rid of its marked rows
    Compact(compact::Compact),
    /// Remove files that neither a table nor a job needs any more, and clean up the table's log
    Vacuum(vacuum::Vacuum),
    /// Say which messages of a log are safely in a table, so that the log may forget them
    Retention(retention::Retention),
    /// List the jobs and where they stand
    Jobs(show::Jobs),
    /// Alter a job's limits, also while it runs
    Alter(control::Alter),
    /// Let a job rest, until it is resumed
    Pause(control::Named),
    /// Let a paused job go on
    Resume(control::Named),
    /// End the live run of a job at its next safe point
    Stop(control::Named),
    /// Play back the messages of logs that a job could not read, once its source is mended
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(replay::Replay),
    /// List sources, views and tables
    Tables(show::Tables),
    /// Show the columns of a source, view or table
    Describe(show::Describe),
    /// Compute a view again as a batch query, and show where its table differs
    Verify(verify::Verify),
}

/// Reads the arguments, runs the command, and turns its end into an exit code.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode> {
    let filter = EnvFilter::try_new(&cli.global.log)
        .map_err(|e| Error::input(format!("--log {}: {e}; give a level (info) or module=level", cli.global.log)))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.global.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::Resources(format!("could not start worker threads: {e}")))?;
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Verify(command) => return command.run(&cli.global).await,
            Command::Run(command) => command.run(&cli.global).await,
            Command::Plan(command) => command.run(&cli.global).await,
            Command::Query(command) => command.run(&cli.global).await,
            Command::Load(command) => command.run(&cli.global).await,
            Command::Compact(command) => command.run(&cli.global).await,
            Command::Vacuum(command) => command.run(&cli.global).await,
            Command::Retention(command) => command.run(&cli.global).await,
            Command::Alter(command) => command.run(&cli.global).await,
            Command::Pause(command) => command.pause(&cli.global).await,
            Command::Resume(command) => command.resume(&cli.global).await,
            Command::Stop(command) => command.stop(&cli.global).await,
            Command::Replay(command) => command.run(&cli.global).await,
            Command::Jobs(command) => command.run(&cli.global).await,
            Command::Tables(command) => command.run(&cli.global).await,
            Command::Describe(command) => command.run(&cli.global).await,
        }
        .map(|()| ExitCode::SUCCESS)
    });
    // What is let go removes the files that it put aside; what was given up may still be busy, and is not waited for.
    runtime.shutdown_timeout(LET_GO);
    ended
}
