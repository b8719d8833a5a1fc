//! Folders of JSON and CSV files as sources: as a history, in increments, and live; with lines that are none. What comes out is
//! held against DuckDB over the same files, or against the rides they were written from.

mod live;

mod refused;

mod world;

use crate::binary::all_said;
use world::*;

fn source(more: &str) -> String {
    format!("CREATE SOURCE rides ({COLUMNS}) WITH (lake = '${{DIR}}/in', {more});")
}

/// The types that DuckDB is to read.
const TYPES: &str = "{'at': 'TIMESTAMP', 'city': 'VARCHAR', 'km': 'BIGINT', 'note': 'VARCHAR'}";

#[test]
fn json_by_days_equals_duckdb() {
    let world = World::new();
    let all = rides(21, 0..6_000, 60);
    let mut malformed = 0;
    let days: std::collections::BTreeSet<String> = all.iter().map(Ride::day).collect();
    for (i, day) in days.iter().enumerate() {
        let of_day: Vec<Ride> = all.iter().filter(|ride| ride.day() == *day).cloned().collect();
        let (first, second) = of_day.split_at(of_day.len() / 2);
        let mut bytes = json(first);
        bytes.extend(b"\r\n   \n{\"at\": \"2026-01-0\n{\"at\":\"2026-01-02T00:00:00\",\"km\":\"many\"}\nnothing\n");
        malformed += 3;
        match i % 3 {
            0 => world.put(&format!("at_day={day}/a.json"), &bytes),
            1 => world.put(&format!("at_day={day}/a.ndjson.gz"), &gzip(&bytes)),
            _ => world.put(&format!("at_day={day}/a.jsonl.zst"), &zstd(&bytes)),
        }
        world.put(&format!("at_day={day}/b.json"), &json(second));
        world.put(&format!("at_day={day}/_c.json"), b"hidden");
        world.put(&format!("at_day={day}/d.txt"), b"of another kind");
    }
    let sql = source("format = 'json'") + HOURLY;
    let said = world.run(&sql, &["--final", "--slice", "1 day"]);
    assert_eq!(world.hourly(), hours(&all), "{said}");
    let read = format!("read_json('in/*/*.*', columns = {TYPES}, format = 'newline_delimited', ignore_errors = true)");
    let read = read.replace("'in/*/*.*'", "['in/*/?.json', 'in/*/?.ndjson.gz', 'in/*/?.jsonl.zst']");
    // DuckDB makes a row of NULLs of a line that is none.
    if let Some(expected) = world.by_duckdb(&format!("(FROM {read} WHERE km IS NOT NULL AND \"at\" IS NOT NULL)")) {
        assert_eq!(world.hourly(), expected);
    }
    // What is no record is listed with its file and line, and in no query's way.
    let listed =
        world.query("SELECT _row, _reason, CAST(_payload AS VARCHAR) FROM hourly_late WHERE _file LIKE '%a.%'");
    assert_eq!(listed.len(), malformed, "{listed:?}");
    assert!(listed.iter().any(|line| line.ends_with("malformed,nothing")), "{listed:?}");
    let lines = world.query(
        "SELECT CAST(_payload AS VARCHAR), _row, _partition, _error FROM hourly_late WHERE _file LIKE '%at_day=2026-01-01/a.json' \
         AND CAST(_payload AS VARCHAR) LIKE '%many%'",
    );
    let half = all.iter().filter(|ride| ride.day() == "2026-01-01").count() / 2;
    assert!(lines[0].contains(&format!(",{},at_day=2026-01-01,", half + 3)), "{lines:?}");
    assert!(lines[0].contains("km") && lines[0].contains("many"), "{lines:?}");
    assert_eq!(world.query("SELECT count(*), count(at_day) FROM rides"), ["6000,6000"]);
    assert_eq!(world.query("SELECT count(*) FROM rides WHERE at_day = DATE '2026-01-02'").len(), 1);
    let verified = world.command(&["verify", "hourly"]).output().unwrap();
    assert!(verified.status.success(), "{}", all_said(&verified));
    let explained = world.run(&format!("EXPLAIN {}", HOURLY.trim().replace("hourly", "other")), &[]);
    assert!(explained.contains("rides"), "{explained}");
    let explained = world.run(&format!("EXPLAIN BACKFILL {}", HOURLY.trim().replace("hourly", "other")), &[]);
    assert!(explained.contains("rides"), "{explained}");
}

#[test]
fn csv_without_partitions_equals_duckdb() {
    let world = World::new();
    let all = rides(22, 0..5_000, 60);
    for (i, part) in all.chunks(700).enumerate() {
        let mut bytes = csv(part);
        bytes.extend(b"too,few\r\n\"a\",b,c,2026-01-01T00:00:00,c1\r\n\r\n");
        match i % 3 {
            0 => world.put(&format!("{i}.csv"), &bytes),
            1 => world.put(&format!("deep/er/{i}.csv.gz"), &gzip(&bytes)),
            // With a byte order mark, as tables of other programs have.
            _ => world.put(&format!("{i}.csv.zst"), &zstd(&[b"\xEF\xBB\xBF", bytes.as_slice()].concat())),
        }
    }
    let sql = source("format = 'csv'") + HOURLY;
    world.run(&sql, &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
    let read = "(SELECT \"at\"::TIMESTAMP AS \"at\", city, km::BIGINT AS km, note FROM read_csv(['in/*.csv', 'in/deep/er/*.gz', \
                'in/*.zst'], header = true, all_varchar = true, null_padding = true, quote = '\"') WHERE try_cast(km AS BIGINT) \
                IS NOT NULL AND note <> 'too')";
    if let Some(expected) = world.by_duckdb(read) {
        assert_eq!(world.hourly(), expected);
    }
    let listed = world.query("SELECT _reason, count(*) FROM hourly_late GROUP BY _reason");
    assert_eq!(listed, [format!("malformed,{}", 2 * all.chunks(700).count())]);
    assert_eq!(world.query("SELECT count(*), sum(km) FROM rides"), [format!("5000,{}", km(&all))]);
    let verified = world.command(&["verify", "hourly"]).output().unwrap();
    assert!(verified.status.success(), "{}", all_said(&verified));
}

#[test]
fn csv_by_position_in_another_dialect() {
    let world = World::new();
    let line = |ride: &Ride| ride.position();
    let all = rides(23, 0..500, 60);
    world.put("a.csv", all[..300].iter().map(line).collect::<String>().as_bytes());
    world.put("b.csv", all[300..].iter().map(line).collect::<String>().trim_end().as_bytes());
    let sql = source("format = 'csv', csv.header = 'false', csv.delimiter = ';', csv.quote = '|', csv.null = 'none'")
        + HOURLY;
    world.run(&sql, &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
    assert_eq!(world.query("SELECT count(*) FROM hourly_late"), ["0"]);
    // Read by a name that they do not have, all of their lines are kept aside.
    let other = source("format = 'csv'").replace("rides", "named")
        + &HOURLY.replace("hourly", "named_hours").replace("rides,", "named,");
    world.run(&other, &["--final"]);
    assert_eq!(world.query("SELECT count(*) FROM named_hours"), ["0"]);
    let lines = all.iter().map(|ride| ride.position().lines().count()).sum::<usize>();
    let listed = world.query("SELECT count(*), min(_error) FROM named_hours_late");
    assert!(listed[0].starts_with(&format!("{lines},")) && listed[0].contains("csv.header"), "{listed:?}");
}

#[test]
fn each_file_once_in_increments() {
    for (by_day, format) in [(true, "json"), (false, "json"), (false, "csv")] {
        let world = World::new();
        let all = rides(24, 0..4_000, 60);
        let sql = source(&format!("format = '{format}'")) + HOURLY;
        let (mut done, mut files) = (0, 0);
        for part in all.chunks(800) {
            for part in part.chunks(300) {
                let bytes = if format == "json" { json(part) } else { csv(part) };
                match by_day {
                    true => {
                        for day in part.iter().map(Ride::day).collect::<std::collections::BTreeSet<_>>() {
                            let of_day: Vec<Ride> = part.iter().filter(|ride| ride.day() == day).cloned().collect();
                            world.put(&format!("day={day}/{files}.json"), &json(&of_day));
                        }
                    }
                    false => world.put(&format!("{files}.{format}"), &bytes),
                }
                files += 1;
            }
            done += part.len();
            world.run(&sql, &[]);
            let verified = world.command(&["verify", "hourly"]).output().unwrap();
            assert!(verified.status.success(), "{by_day} {format} {done}: {}", all_said(&verified));
        }
        let said = world.run(&sql, &[]);
        assert!(said.contains("nothing new"), "{said}");
        world.run(&sql, &["--final"]);
        // A file that came to what had been read: its rows are counted, or listed as late.
        let late = world.query("SELECT count(*) FROM hourly_late")[0].parse::<u64>().unwrap();
        let counted = world.query("SELECT sum(rides) FROM hourly")[0].parse::<u64>().unwrap();
        assert_eq!(late + counted, 4_000, "{by_day} {format}");
        if late == 0 {
            assert_eq!(world.hourly(), hours(&all), "{by_day} {format}");
        }
    }
}

#[test]
fn folders_tell_columns_in_their_declared_types() {
    let world = World::new();
    let all = rides(25, 0..300, 60);
    world.put("region=05/a.json", &json(&all[..100]));
    world.put("region=7/a.json", &json(&all[100..]));
    let columns = COLUMNS.replace("note VARCHAR,", "region VARCHAR NOT NULL, note VARCHAR,");
    world.run(
        &format!("CREATE SOURCE rides ({columns}) WITH (lake = '${{DIR}}/in', format = 'json', bounded = true);"),
        &[],
    );
    let found = world.query("SELECT region, count(*), count(at) FROM rides GROUP BY region");
    assert_eq!(found, ["05,100,100", "7,200,200"]);
    assert_eq!(world.query("SELECT count(*) FROM rides WHERE region = '05'"), ["100"]);
    // Text that only groups comes as codes.
    world.run(
        "CREATE MATERIALIZED VIEW by_region AS SELECT window_start, region, city, count(*) AS rides
         FROM TUMBLE(rides, at, INTERVAL '1 day') GROUP BY window_start, region, city;",
        &["--final"],
    );
    assert_eq!(world.query("SELECT region, sum(rides) FROM by_region GROUP BY region"), ["05,100", "7,200"]);
}
