//! `watershed query "SQL"`

use std::path::{Path, PathBuf};

use clap::Args;
use futures::TryStreamExt;
use watershed_core::Result;

use super::Global;
use super::flags::{ProcessFlags, pair, read_text};
use super::output::{Format, Output};

#[derive(Args)]
pub(crate) struct Query {
    /// The query, or a file that holds it; `-` reads standard input
    sql: String,

    /// Without it, what the output file's name says, or a table
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// A file for the result, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Fills ${NAME} in the SQL (more than once); without it the environment does
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,

    #[command(flatten)]
    process: ProcessFlags,
}

impl Query {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let sql = if is_file(&self.sql) { read_text(&self.sql)? } else { self.sql };
        let engine = global.engine(&self.variables, self.process.given())?;
        let mut rows = engine.query_stream(&sql).await?;
        let by_name = self.output.as_deref().and_then(Format::of);
        let format = self.format.or(by_name).unwrap_or(Format::Table);
        let mut output = Output::open(format, self.output.as_deref(), rows.schema())?;
        while let Some(batch) = rows.try_next().await? {
            output.write(batch)?;
        }
        output.finish()
    }
}

/// SQL has spaces in it; what has none and is a file is taken for one.
fn is_file(argument: &str) -> bool {
    argument == "-" || Path::new(argument).is_file()
}
