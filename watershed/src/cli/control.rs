//! `watershed alter JOB …`, `pause JOB`, `resume JOB`, `stop JOB`: a live run heeds them within a second or two.

use clap::Args;
use watershed::Asked;
use watershed_core::{Error, Result};

use super::Global;
use super::progress::print_line;

#[derive(Args)]
pub(crate) struct Alter {
    /// The job: a materialized view's name, or an INSERT's
    job: String,

    /// Rows read a second, at most; `none` for no limit, `default` for what the job's own settings say
    #[arg(long, value_name = "N")]
    throttle_rows: Option<String>,

    /// Bytes read a second, at most, such as '50 MB'; `none` or `default`
    #[arg(long, value_name = "SIZE")]
    throttle_bytes: Option<String>,

    /// Hours in which it may run, such as '22:00-06:00 Europe/Berlin'; `none` or `default`
    #[arg(long, value_name = "HOURS")]
    schedule: Option<String>,
}

#[derive(Args)]
pub(crate) struct Named {
    /// The job: a materialized view's name, or an INSERT's
    job: String,
}

impl Alter {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let given = [
            ("throttle_rows", self.throttle_rows),
            ("throttle_bytes", self.throttle_bytes),
            ("schedule", self.schedule),
        ];
        let changes: Vec<(&str, String)> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        if changes.is_empty() {
            return Err(Error::input("alter what? Give --throttle-rows, --throttle-bytes or --schedule"));
        }
        let changes: Vec<(&str, &str)> = changes.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let asked = global.engine(&[], vec![])?.alter(&self.job, &changes).await?;
        let words = match asked.control.words() {
            words if words.is_empty() => "nothing is altered any more".to_string(),
            words => format!("{words}; counts above all other settings until it is taken back with `default`"),
        };
        say(&self.job, &words, &asked, "the live run goes by it now", "no live run answered; the next run goes by it");
        Ok(())
    }
}

impl Named {
    pub(crate) async fn pause(self, global: &Global) -> Result<()> {
        let asked = global.engine(&[], vec![])?.pause(&self.job).await?;
        let live = "the live run rests at its next safe point, with all it has read committed";
        let none = "no live run answered; runs of it end without doing anything";
        say(&self.job, &format!("paused until `watershed resume {}`", self.job), &asked, live, none);
        Ok(())
    }

    pub(crate) async fn resume(self, global: &Global) -> Result<()> {
        let asked = global.engine(&[], vec![])?.resume(&self.job).await?;
        say(&self.job, "resumed", &asked, "the live run goes on", "no live run answered; start one");
        Ok(())
    }

    pub(crate) async fn stop(self, global: &Global) -> Result<()> {
        let asked = global.engine(&[], vec![])?.stop(&self.job).await?;
        let live = "the live run ends at its next safe point; the next run goes on from there";
        say(&self.job, "asked to stop", &asked, live, "no live run answered, so there is none to stop");
        Ok(())
    }
}

fn say(job: &str, what: &str, asked: &Asked, live: &str, none: &str) {
    print_line(&format!("{job}: {what}; {}", if asked.heeded { live } else { none }));
}
