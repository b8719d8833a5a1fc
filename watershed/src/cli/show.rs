//! `watershed jobs`, `watershed tables`, `watershed describe NAME`: small tables for people, or JSON lines for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use watershed::JobInfo;
use watershed_core::epoch::Position;
use watershed_core::{EventTime, Result};

use super::Global;
use super::progress::{bytes, count, print_line, time};

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
                    "state": job.state,
                    "epoch": job.checkpoint.as_ref().map(|c| c.epoch),
                    "watermark": watermark(job).map(|w| w.to_string()),
                    "lag_ms": job.lag().map(|lag| lag / 1000),
                    "lag_bytes": job.lag_bytes(),
                    "left": job.left.map(|left| json!({
                        "files": left.files,
                        "bytes": left.bytes,
                        "closed_files": left.closed_files,
                        "closed_bytes": left.closed_bytes,
                        "closed_until": left.closed_until.map(|t| t.to_string()),
                        "newest": left.newest.map(|t| t.to_string()),
                        "messages": left.messages,
                        "message_bytes": left.message_bytes,
                    })),
                    "positions": job.checkpoint.as_ref().map(|c| positions(&c.positions)),
                    "last_commit": job.last_commit.map(|t| t.to_string()),
                    "last_run": job.run.as_ref().map(|run| json!({
                        "state": run.state,
                        "began": run.began.to_string(),
                        "heard": run.heard.to_string(),
                    })),
                    "counts": job.checkpoint.as_ref().map(|c| c.counts),
                    "ended": job.checkpoint.as_ref().is_some_and(|c| c.ended),
                    "trouble": job.trouble,
                    "paused": job.control.paused_since().map(|since| since.to_string()),
                    "altered": job.control.altered,
                })
            }));
        }
        let dash = || "-".to_string();
        let rows = jobs.iter().map(|job| {
            let counts = job.checkpoint.as_ref().map(|c| c.counts).unwrap_or_default();
            let left = job.left.map(|l| match l.messages {
                Some(messages) => match l.message_bytes.filter(|_| messages > 0) {
                    Some(estimated) => format!("{} messages, about {}", count(messages), bytes(estimated)),
                    None => format!("{} messages", count(messages)),
                },
                None => format!("{} files, {}", count(l.closed_files), bytes(l.closed_bytes)),
            });
            vec![
                job.name.clone(),
                serde_json::to_value(job.state).ok().and_then(|s| s.as_str().map(str::to_string)).unwrap_or_default(),
                watermark(job).map_or_else(dash, |w| w.to_string()),
                job.lag().map_or_else(dash, |lag| time(Duration::from_micros(lag.unsigned_abs()))),
                left.unwrap_or_else(dash),
                count(counts.account.opened.max(counts.rows)),
                count(counts.written),
                count(counts.late + counts.bad),
                job.last_commit.map_or_else(dash, |t| t.to_string()),
                job.location.clone(),
            ]
        });
        let titles = [
            "JOB",
            "STATE",
            "WATERMARK",
            "LAG",
            "LEFT",
            "ROWS READ",
            "ROWS WRITTEN",
            "LATE OR BAD",
            "LAST COMMIT",
            "TABLE",
        ];
        print_table(&titles, rows.collect());
        for job in &jobs {
            if let Some(trouble) = &job.trouble {
                print_line(&format!("{}: {trouble}", job.name));
            }
        }
        Ok(())
    }
}

fn watermark(job: &JobInfo) -> Option<EventTime> {
    job.checkpoint.as_ref().map(|c| c.watermark).filter(|w| *w != EventTime::MIN)
}

/// Where each source stands, and each table that is joined.
fn positions(positions: &BTreeMap<String, Position>) -> Value {
    let position = |(name, position): (&String, &Position)| {
        let boundary = (position.boundary != EventTime::MIN).then(|| position.boundary.to_string());
        let value = json!({ "version": position.version, "boundary": boundary, "pending": position.pending.len() });
        (name.clone(), value)
    };
    Value::Object(positions.iter().map(position).collect())
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
                    "marked_rows": table.marked,
                    "small_files": table.small_files,
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
                number(table.small_files),
                dead(table.rows, table.marked),
                number(table.version),
                table.location.clone().unwrap_or_default(),
            ]
        });
        print_table(
            &["NAME", "KIND", "ROWS", "FILES", "SIZE", "SMALL FILES", "DEAD ROWS", "VERSION", "LOCATION"],
            rows.collect(),
        );
        Ok(())
    }
}

/// Marked rows, as a part of all that files hold.
fn dead(rows: Option<u64>, marked: Option<u64>) -> String {
    match rows.zip(marked) {
        None => "-".to_string(),
        Some((_, 0)) => "0".to_string(),
        Some((rows, marked)) => {
            format!("{} ({:.0} %)", count(marked), 100.0 * marked as f64 / (rows + marked) as f64)
        }
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
