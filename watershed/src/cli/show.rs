//! `watershed jobs`, `watershed tables`, `watershed describe NAME`: small tables for people, or JSON lines for programs.

use clap::Args;
use serde_json::{Value, json};
use watershed_core::Result;

use super::Global;
use super::progress::{bytes, count, print_line};

#[derive(Args)]
pub(crate) struct Jobs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Tables {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Describe {
    /// A source, view or table
    name: String,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Jobs {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let jobs = global.engine(&[], vec![])?.jobs().await?;
        if self.json {
            return print_objects(jobs.iter().map(|job| {
                json!({
                    "job": job.name,
                    "kind": job.kind,
                    "location": job.location,
                    "created": job.created.to_string(),
                    "epoch": job.checkpoint.as_ref().map(|c| c.epoch),
                    "watermark": job.checkpoint.as_ref().map(|c| c.watermark.to_string()),
                    "counts": job.checkpoint.as_ref().map(|c| c.counts),
                    "ended": job.checkpoint.as_ref().is_some_and(|c| c.ended),
                    "trouble": job.trouble,
                    "paused": job.control.paused_since().map(|since| since.to_string()),
                    "altered": job.control.altered,
                })
            }));
        }
        let rows = jobs.iter().map(|job| {
            let (epoch, watermark, read, written, state) = match (&job.checkpoint, &job.trouble) {
                (Some(c), _) => (
                    c.epoch.to_string(),
                    c.watermark.to_string(),
                    count(c.counts.rows),
                    count(c.counts.written),
                    match c.ended {
                        true => "ended".to_string(),
                        false if job.control.paused.is_some() => "paused".to_string(),
                        false => "open".to_string(),
                    },
                ),
                (None, Some(why)) => ("?".into(), "?".into(), "?".into(), "?".into(), why.clone()),
                (None, None) => ("-".into(), "-".into(), "0".into(), "0".into(), "not run yet".to_string()),
            };
            vec![job.name.clone(), epoch, watermark, read, written, state, job.location.clone()]
        });
        print_table(&["JOB", "EPOCH", "WATERMARK", "ROWS READ", "ROWS WRITTEN", "STATE", "TABLE"], rows.collect());
        Ok(())
    }
}

impl Tables {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let tables = global.engine(&[], vec![])?.tables().await?;
        if self.json {
            return print_objects(tables.iter().map(|table| {
                json!({
                    "name": table.name,
                    "kind": table.kind,
                    "location": table.location,
                    "version": table.version,
                    "files": table.files,
                    "rows": table.rows,
                    "bytes": table.bytes,
                })
            }));
        }
        let rows = tables.iter().map(|table| {
            let number = |n: Option<u64>| n.map_or("-".to_string(), count);
            vec![
                table.name.clone(),
                table.kind.to_string(),
                number(table.rows),
                number(table.files),
                table.bytes.map_or("-".to_string(), bytes),
                number(table.version),
                table.location.clone().unwrap_or_default(),
            ]
        });
        print_table(&["NAME", "KIND", "ROWS", "FILES", "SIZE", "VERSION", "LOCATION"], rows.collect());
        Ok(())
    }
}

impl Describe {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let columns = global.engine(&[], vec![])?.describe(&self.name).await?;
        if self.json {
            return print_objects(
                columns.iter().map(|c| json!({ "column": c.name, "type": c.data_type, "note": c.note })),
            );
        }
        let rows = columns.into_iter().map(|c| vec![c.name, c.data_type, c.note]);
        print_table(&["COLUMN", "TYPE", ""], rows.collect());
        Ok(())
    }
}

fn print_objects(objects: impl Iterator<Item = Value>) -> Result<()> {
    objects.for_each(|object| print_line(&object.to_string()));
    Ok(())
}

/// Columns as wide as their widest cell.
fn print_table(head: &[&str], rows: Vec<Vec<String>>) {
    let head: Vec<String> = head.iter().map(|h| h.to_string()).collect();
    let width = |at: usize| rows.iter().chain([&head]).map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in [&head].into_iter().chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        print_line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
