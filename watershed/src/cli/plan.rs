//! `watershed plan FILE.sql`

use clap::Args;
use serde_json::json;
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

    /// As for a run with --final
    #[arg(long = "final")]
    to_the_end: bool,

    /// The plans alone: no file is read to estimate what a run costs
    #[arg(long)]
    no_estimate: bool,

    /// One JSON object a job
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: SettingFlags,
}

impl Plan {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let text = read_text(&self.file)?;
        let engine = global.engine(&self.variables, self.settings.given)?;
        if self.no_estimate && !self.json {
            print_line(engine.plan(&text).await?.trim_end());
            return Ok(());
        }
        let plans = engine.estimate(&text, self.to_the_end).await?;
        for (i, plan) in plans.iter().enumerate() {
            if self.json {
                print_line(&json!({ "plan": plan.text, "estimate": plan.estimate }).to_string());
                continue;
            }
            if i > 0 {
                print_line("");
            }
            let estimate = plan.estimate.as_ref().map(ToString::to_string);
            let parts: Vec<&str> = [Some(plan.text.trim_end()), estimate.as_deref()].into_iter().flatten().collect();
            print_line(&parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    }
}
