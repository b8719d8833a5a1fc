//! `watershed verify VIEW`

use std::process::ExitCode;

use clap::Args;
use watershed::{Difference, Verification, VerifyOptions};
use watershed_core::settings::Settings;
use watershed_core::time::EventTime;
use watershed_core::{Error, Result};

use super::Global;
use super::flags::ProcessFlags;
use super::progress::{count, print_line};

/// The table does not hold what it should.
const DIFFERS: u8 = 1;

#[derive(Args)]
pub(crate) struct Verify {
    /// A materialized view
    view: String,

    /// Only windows that begin at or after this time
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Only windows that begin before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,

    /// How many differing rows are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,

    /// The verdict as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    process: ProcessFlags,
}

impl Verify {
    pub(crate) async fn run(self, global: &Global) -> Result<ExitCode> {
        let engine = global.engine(&[], self.process.given())?;
        let options = VerifyOptions {
            from: self.from.map(|text| time("from", &text)).transpose()?.flatten(),
            to: self.to.map(|text| time("to", &text)).transpose()?.flatten(),
            show: self.show,
            ..VerifyOptions::default()
        };
        let verdict = engine.verify(&self.view, &options).await?;
        if self.json {
            let mut object = serde_json::to_value(&verdict).map_err(|e| Error::bug(e.to_string()))?;
            object["watermark"] = verdict.watermark.map(|w| w.to_string()).into();
            object["holds"] = verdict.holds().into();
            print_line(&object.to_string());
        } else {
            said(&verdict);
        }
        Ok(if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
    }
}

/// A time as settings take it.
fn time(name: &str, text: &str) -> Result<Option<EventTime>> {
    let mut settings = Settings::default();
    settings.set(name, text)?;
    Ok(if name == "from" { settings.from } else { settings.to })
}

fn said(verdict: &Verification) {
    for difference in &verdict.shown {
        print_line(&match difference {
            Difference::Missing { expected } => format!("missing    {}", row(expected)),
            Difference::Extra { found } => format!("extra      {}", row(found)),
            Difference::Different { key, expected, found } => {
                let differ = expected.iter().zip(found).filter(|(a, b)| a != b);
                let pairs = differ.map(|((name, a), (_, b))| format!("{name}: expected {a}, found {b}"));
                format!("different  {}: {}", row(key), pairs.collect::<Vec<_>>().join("; "))
            }
        });
    }
    let differ = verdict.missing + verdict.extra + verdict.different;
    if differ > verdict.shown.len() as u64 {
        print_line(&format!("… and {} more", count(differ - verdict.shown.len() as u64)));
    }
    for note in &verdict.notes {
        print_line(&format!("note: {note}"));
    }
    let up_to = verdict.watermark.map(|w| format!(" up to watermark {w}")).unwrap_or_default();
    let found = count(verdict.found);
    print_line(&match verdict.holds() {
        true => format!("{}: holds; {found} rows are what the batch query answers{up_to}", verdict.view),
        false => format!(
            "{}: differs{up_to}: {} rows missing, {} extra, {} different, of {found} found and {} expected",
            verdict.view,
            count(verdict.missing),
            count(verdict.extra),
            count(verdict.different),
            count(verdict.expected)
        ),
    });
}

fn row(values: &[(String, String)]) -> String {
    values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}
