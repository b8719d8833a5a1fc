//! `watershed vacuum` beside a job that was stopped half-way, as an operator meets it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::control::{BATCH, World};

const AT_ONCE: [&str; 4] = ["lake", "--retention", "0 s", "--allow-shorter-retention"];

fn vacuum(world: &World, more: &[&str]) -> String {
    world.ok(&[&["vacuum"], &AT_ONCE[..], more].concat())
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(below(&entry)),
            false => found.push(entry),
        }
    }
    found.sort();
    found
}

fn parquet(world: &World) -> usize {
    let in_log = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "_delta_log");
    below(&world.path().join("lake")).iter().filter(|path| !in_log(path)).count()
}

fn newest_manifest(world: &World) -> PathBuf {
    let all = below(&world.path().join(".watershed/jobs/v"));
    all.into_iter().rfind(|path| path.parent().unwrap().ends_with("manifests")).unwrap()
}

#[test]
fn what_a_stopped_job_may_go_back_to_stays() {
    let world = World::of_days(&[50; 8]);
    let more: String = (1..=8).fold("at,k,x\n".to_string(), |mut csv, day| {
        writeln!(csv, "2001-01-{day:02}T12:00:00,k1,{day}").unwrap();
        csv
    });
    fs::write(world.path().join("more.csv"), more).unwrap();
    world.ok(&["load", "more.csv", "--into", "lake", "--time-column", "at"]);
    let mut run = world.start(&["--throttle-rows", "50"]);
    run.until_slices(2);
    world.ok(&["stop", "v"]);
    assert_eq!(run.end().1, 0);
    let expected = world.ok(&["query", BATCH, "--format", "csv"]);

    // The files that it read are replaced behind its back, all of it long ago as far as the log's own age goes.
    assert!(world.ok(&["compact", "lake"]).contains("16 files"));
    for path in below(&world.path().join("lake/_delta_log")) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_500_000_000)).unwrap();
    }
    let refused = world.command(&["vacuum", "lake", "--retention", "1 day"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--allow-shorter-retention"));
    for more in [&["--dry-run"][..], &[]] {
        let said = vacuum(&world, more);
        assert!(said.contains("lake: no file is there to be removed"), "{said}");
        assert!(
            said.contains("16 files") && said.contains("stay for jobs") && said.contains("v at version 2"),
            "{said}"
        );
        assert!(!said.contains("files of the log"), "{said}");
    }
    assert_eq!(parquet(&world), 24);

    // It loses its newest checkpoint, goes back to the one before, and reads the same files again.
    fs::write(newest_manifest(&world), "{").unwrap();
    let unclear = world.command(&[&["vacuum"], &AT_ONCE[..]].concat()).output().unwrap();
    assert_eq!(unclear.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&unclear.stderr).contains("what job v needs of the table is not known"));
    assert_eq!(parquet(&world), 24);
    world.ends_right();

    // Without the job nothing holds them.
    assert!(world.ok(&["vacuum", "v"]).contains("v: no file is there to be removed"));
    fs::write(world.path().join("drop.sql"), "DROP MATERIALIZED VIEW v;").unwrap();
    world.ok(&["run", "drop.sql"]);
    let listed = vacuum(&world, &["--dry-run"]);
    assert_eq!(listed.lines().filter(|line| line.contains(".parquet (")).count(), 16, "{listed}");
    assert!(listed.contains("lake: would remove 16 files"), "{listed}");
    let said = vacuum(&world, &[]);
    assert!(
        said.contains("lake: removed 16 files") && said.contains("version 3 is the first that can be read"),
        "{said}"
    );
    assert_eq!(parquet(&world), 8);
    assert_eq!(world.ok(&["query", BATCH, "--format", "csv"]), expected);
}
