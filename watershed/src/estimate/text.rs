//! An estimate in words.

use std::fmt;

use super::Estimate;

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.resumes { ", going on from its checkpoint" } else { "" };
        writeln!(f, "backfill of {}{what}", self.job)?;
        for source in &self.sources {
            let rows = source.rows.map_or("rows unknown".to_string(), |rows| format!("{} rows", count(rows)));
            writeln!(
                f,
                "  source {}: {} partitions, {} files, {}, {rows}, version {}",
                source.name,
                count(source.partitions),
                count(source.files),
                bytes(source.bytes),
                source.version
            )?;
            writeln!(
                f,
                "    to read: {} files, {}; {} files ruled out by partition values; at most {} in one step",
                count(source.read_files),
                bytes(source.read_bytes),
                count(source.pruned_files),
                bytes(source.widest_step_bytes)
            )?;
            if source.leaking_files > 0 {
                writeln!(
                    f,
                    "    {} files in {} partitions hold rows of other times than their partition's, up to {} off: such rows may come \
                     late (max_leak, or a delay of the watermark, waits for them)",
                    count(source.leaking_files),
                    count(source.leaking_partitions),
                    watershed_core::time::Span(source.furthest_leak)
                )?;
            }
            if source.times_known < source.files {
                writeln!(
                    f,
                    "    leaks were looked for in {} of {} files",
                    count(source.times_known),
                    count(source.files)
                )?;
            }
        }
        writeln!(
            f,
            "  {} steps; {} of {} in files are fetched",
            count(self.steps),
            bytes(self.read_bytes),
            bytes(self.file_bytes)
        )?;
        writeln!(f, "  rows: about {} opened, {} used", count(self.rows), count(self.used_rows))?;
        writeln!(f, "  result: about {} rows, {}", count(self.output_rows), bytes(self.output_bytes))?;
        writeln!(
            f,
            "  state: about {} groups in {} windows at most, {}",
            count(self.peak_groups),
            count(self.peak_windows),
            bytes(self.peak_bytes)
        )?;
        writeln!(
            f,
            "  requests to the store: about {} reads, {} writes",
            count(self.requests.reads),
            count(self.requests.writes)
        )?;
        let sample = &self.calibration;
        write!(
            f,
            "  time: about {:.1} s, from a sample of {} rows ({} of {} files) in {:.1} s",
            self.seconds,
            count(sample.rows),
            bytes(sample.bytes),
            count(sample.files),
            sample.seconds
        )
    }
}

fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}
