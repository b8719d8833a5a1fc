//! `watershed plan FILE.sql`

use clap::Args;
use watershed_core::Result;

use super::Global;
use super::flags::{SettingFlags, pair, read_text};
use super::progress::print_line;

#[derive(Args)]
pub(crate) struct Plan {
    /// The SQL file; `-` reads standard input
    file: String,

    /// Fills ${NAME} in the SQL (more than once); without it the environment does
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,

    #[command(flatten)]
    settings: SettingFlags,
}

impl Plan {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let text = read_text(&self.file)?;
        let engine = global.engine(&self.variables, self.settings.given)?;
        print_line(engine.plan(&text).await?.trim_end());
        Ok(())
    }
}
