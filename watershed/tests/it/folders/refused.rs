//! What is refused, and in which words; what is done about lines that are none, and about files that change.

use std::fs;

use super::source;
use super::world::*;

#[test]
fn a_source_that_cannot_be_is_refused_with_the_way_out() {
    let world = World::new();
    world.put("a.json", &json(&rides(41, 0..10, 60)));
    let read = "SELECT count(*) FROM s;";
    for (sql, expected) in [
        ("CREATE SOURCE s WITH (lake = '${DIR}/in', format = 'json');", "say what columns its files have"),
        ("CREATE SOURCE s (at TIMESTAMP) WITH (lake = '${DIR}/in', format = 'jsn');", "did you mean json?"),
        ("CREATE SOURCE s (at TIMESTAMP) WITH (lake = '${DIR}/in', format = 'avro');", "there are 'json' and 'csv'"),
        ("CREATE SOURCE s (at TIMESTAMP) WITH (lake = '${DIR}/in', format = 'parquet');", "leave it out"),
        ("CREATE SOURCE s (at TIMESTAMP) WITH (lake = '${DIR}/in');", "format = 'json'"),
        (
            "CREATE SOURCE s (at TIMESTAMP, _offset BIGINT) WITH (lake = '${DIR}/in', format = 'json');",
            "files have none",
        ),
        (
            "CREATE SOURCE s (at TIMESTAMP) WITH (lake = '${DIR}/in', format = 'json', start = 'latest');",
            "speaks of a log",
        ),
        (
            "CREATE SOURCE s (at TIMESTAMP) WITH (lake = '${DIR}/in', format = 'csv', csv.header = 'no');",
            "'true' or 'false'",
        ),
        ("CREATE SOURCE s (at TIMESTAMP) WITH (lake = '${DIR}/in', format = 'csv');", "no files that end with .csv"),
        (
            "CREATE SOURCE s (at BIGINT, WATERMARK FOR at AS at) WITH (lake = '${DIR}/in', format = 'json');",
            "TIMESTAMP",
        ),
        (
            "CREATE SOURCE s (at TIMESTAMP) WITH (tail = 'kafka://b:9092/t', format = 'csv', csv.header = 'false');",
            "csv.header is for files",
        ),
    ] {
        let view = "CREATE MATERIALIZED VIEW v AS SELECT at FROM s;";
        let said = world.refused(&format!("{sql}{read}{view}"), &[]);
        assert!(said.contains(expected), "{sql}\n{said}");
        fs::remove_dir_all(world.dir.path().join("home")).ok();
    }
    // A table with a log tells its own columns.
    world.run(&(source("format = 'json'") + HOURLY), &["--final"]);
    let said = world.refused(
        "CREATE SOURCE t (window_start TIMESTAMP) WITH (lake = '${DIR}/hourly', format = 'json'); \
         CREATE MATERIALIZED VIEW w AS SELECT window_start FROM t;",
        &[],
    );
    assert!(said.contains("is a Delta table"), "{said}");
}

#[test]
fn a_line_that_is_none_is_kept_skipped_or_fatal() {
    let world = World::new();
    let all = rides(42, 0..100, 60);
    world.put("a.json", &[json(&all[..50]), b"[1]\n".to_vec(), json(&all[50..])].concat());
    for (on_error, listed) in [("table", "1"), ("skip", "0")] {
        let sql = source(&format!("format = 'json', on_error = '{on_error}'")) + HOURLY;
        world.run(&sql, &["--final"]);
        assert_eq!(world.hourly(), hours(&all), "{on_error}");
        assert_eq!(world.query("SELECT count(*) FROM hourly_late"), [listed], "{on_error}");
        for folder in ["home", "hourly", "hourly_late"] {
            fs::remove_dir_all(world.dir.path().join(folder)).ok();
        }
    }
    let said = world.refused(&(source("format = 'json', on_error = 'fail'") + HOURLY), &["--final"]);
    assert!(said.contains("a.json, line 51: it cannot be read") && said.contains("on_error = 'table'"), "{said}");
}

#[test]
fn a_packed_file_that_is_cut_off_stops_the_job() {
    let world = World::new();
    let all = rides(43, 0..2_000, 60);
    for (name, bytes) in [("a.json.gz", gzip(&json(&all))), ("a.json.zst", zstd(&json(&all)))] {
        world.put(name, &bytes[..bytes.len() - 20]);
        let said = world.refused(&(source("format = 'json'") + HOURLY), &["--final"]);
        assert!(said.contains(name) && said.contains("cannot be unpacked, or is cut off"), "{said}");
        world.put(name, &bytes);
        world.run(&(source("format = 'json'") + HOURLY), &["--final"]);
        assert_eq!(world.hourly(), hours(&all), "{name}");
        for folder in ["home", "hourly", "hourly_late", "in"] {
            fs::remove_dir_all(world.dir.path().join(folder)).ok();
        }
    }
}

#[test]
fn a_file_that_changes_or_goes_stops_the_job_unless_told_otherwise() {
    for by_day in [true, false] {
        let world = World::new();
        let all = rides(44, 0..3_000, 60);
        let folder = |ride: &Ride| if by_day { format!("day={}/", ride.day()) } else { String::new() };
        let days: Vec<Vec<Ride>> = all.chunk_by(|a, b| a.day() == b.day()).map(<[Ride]>::to_vec).collect();
        for (i, part) in days.iter().enumerate() {
            world.put(&format!("{}{i}.json", folder(&part[0])), &json(part));
        }
        let sql = source("format = 'json'") + HOURLY;
        world.run(&sql, &[]);
        let before = world.hourly();
        assert!(before.len() > 20);
        // One that grew.
        let grown = format!("{}0.json", folder(&days[0][0]));
        world.put(&grown, &[json(&days[0]), json(&days[0])].concat());
        let said = world.refused(&sql, &[]);
        assert!(said.contains("facts that were read are gone") && said.contains(&grown), "{said}");
        assert!(said.contains("put files in place whole"), "{said}");
        world.run(&sql, &["--on-change", "ignore"]);
        assert_eq!(world.hourly(), before, "what it has now is not read again");
        // One that went.
        fs::remove_file(world.dir.path().join("in").join(grown)).unwrap();
        let said = world.refused(&sql, &[]);
        assert!(said.contains("facts that were read are gone"), "{said}");
        world.run(&sql, &["--on-change", "ignore"]);
        assert_eq!(world.hourly(), before);
    }
}

#[test]
fn a_file_without_bytes_is_not_there_yet() {
    let world = World::new();
    let all = rides(45, 0..2_000, 60);
    world.put("a.json", &json(&all[..1_000]));
    world.put("b.json", b"");
    let sql = source("format = 'json'") + HOURLY;
    world.run(&sql, &[]);
    world.put("b.json", &json(&all[1_000..]));
    world.run(&sql, &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
    assert_eq!(world.query("SELECT count(*) FROM hourly_late"), ["0"]);
}
