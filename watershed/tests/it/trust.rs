//! What an operator trusts in: rows that are accounted for, a view that can be verified, jobs that say where they stand,
//! metrics that others can parse.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

const SQL: &str = "
CREATE SOURCE rides (WATERMARK FOR at AS at) WITH (lake = '${LAKE}');

CREATE MATERIALIZED VIEW hourly AS
SELECT window_start, window_end, city, count(*) AS rides, sum(km) AS km
FROM TUMBLE(rides, at, INTERVAL '1 hour') GROUP BY window_start, window_end, city;

CREATE MATERIALIZED VIEW moving AS
SELECT window_start, city, avg(km) AS km
FROM HOP(rides, at, INTERVAL '1 hour', INTERVAL '3 hours') GROUP BY window_start, city;

CREATE MATERIALIZED VIEW growing AS
SELECT window_start, window_end, count(*) AS rides
FROM CUMULATE(rides, at, INTERVAL '1 hour', INTERVAL '6 hours') GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW daily AS
SELECT date_trunc('day', window_start) AS day, max(rides) AS busiest FROM (
  SELECT window_start, city, count(*) AS rides FROM TUMBLE(rides, at, INTERVAL '1 hour') GROUP BY window_start, city
) GROUP BY date_trunc('day', window_start);

CREATE MATERIALIZED VIEW long_rides AS SELECT at, city, km * 2 AS km FROM rides WHERE km > 5;
";

const VIEWS: [&str; 5] = ["hourly", "moving", "growing", "daily", "long_rides"];

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Five days of rides, a few a hour.
    fn new() -> Self {
        let world = World { dir: tempfile::tempdir().unwrap() };
        let mut csv = "at,city,km\n".to_string();
        for i in 0..600 {
            let city = ["Oslo", "Rome", "Lima"][i % 3];
            let minutes = i * 12;
            let (day, hour, minute) = (1 + minutes / 1440, minutes / 60 % 24, minutes % 60);
            csv += &format!("2024-05-{day:02}T{hour:02}:{minute:02}:00,{city},{}.{}\n", i % 11, i % 7);
        }
        world.write("rides.csv", &csv);
        world.write("rides.sql", SQL);
        world.ok(&["load", "rides.csv", "--into", "lake", "--time-column", "at", "--partition-by", "day"]);
        world
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).env("LAKE", self.path("lake")).args(arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{arguments:?}\n{said}\n{complained}");
        said.into_owned()
    }

    /// The code and the verdict of a verification.
    fn verify(&self, view: &str, more: &[&str]) -> (i32, Value) {
        let out = self.run(&[&["verify", view, "--json"], more].concat());
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let verdict = serde_json::from_str(&said);
        let verdict = verdict.unwrap_or_else(|e| panic!("{e}: {said}\n{}", String::from_utf8_lossy(&out.stderr)));
        (out.status.code().unwrap(), verdict)
    }

    /// Adds rides that come too late for some windows, and for some not at all.
    fn late(&self) {
        let csv = "at,city,km\n2024-05-02T10:30:00,Oslo,9\n2024-05-05T22:10:00,Rome,7.5\n2024-05-05T23:30:00,Lima,6.25\n\
                   2024-05-06T08:30:00,Oslo,1\n";
        self.write("late.csv", csv);
        self.ok(&["load", "late.csv", "--into", "lake"]);
        self.ok(&["run", "rides.sql"]);
    }
}

#[test]
fn views_hold_after_every_run_and_at_the_end() {
    let world = World::new();
    world.ok(&["run", "rides.sql", "--to", "2024-05-03T05:30:00"]);
    let hold = |when: &str| {
        for view in VIEWS {
            let (code, verdict) = world.verify(view, &[]);
            assert_eq!((code, &verdict["holds"]), (0, &Value::from(true)), "{when}: {verdict}");
            assert_eq!(verdict["expected"], verdict["found"], "{when}: {verdict}");
            assert!(verdict["found"].as_u64() > Some(0), "{when}: {verdict}");
        }
    };
    hold("part of the way");
    world.ok(&["run", "rides.sql"]);
    hold("as far as it goes");
    world.late();
    hold("with late rows");
    world.ok(&["run", "rides.sql", "--final"]);
    hold("at the end");
    let said = world.ok(&["verify", "hourly", "--from", "2024-05-02", "--to", "2024-05-03"]);
    assert!(said.contains("hourly: holds; 72 rows are what the batch query answers"), "{said}");
}

#[test]
fn late_rows_are_listed_by_name_with_their_partition() {
    let world = World::new();
    world.ok(&["run", "rides.sql"]);
    let none = world.ok(&["query", "SELECT _reason FROM hourly_late", "--format", "csv"]);
    assert_eq!(none, "_reason\n");
    world.late();
    let sql = "SELECT _reason, _partition, _row, _watermark, city FROM hourly_late ORDER BY _event_time";
    let listed = world.ok(&["query", sql, "--format", "csv"]);
    let lines: Vec<&str> = listed.lines().skip(1).collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[0].starts_with("late,at_day=2024-05-02,"), "{listed}");
    assert!(lines.iter().all(|l| l.contains("2024-05-06T00:00:00")), "{listed}");
    assert!(world.ok(&["describe", "hourly_late"]).contains("_partition"));
    // Of three hours' windows those that were still open took two of them.
    let said = world.ok(&["jobs", "--json"]);
    let moving =
        said.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).find(|j| j["job"] == "moving").unwrap();
    let account = &moving["counts"]["account"];
    assert_eq!((&account["partly_late"], &account["late"]), (&Value::from(2), &Value::from(1)), "{moving}");
    assert_eq!(account["opened"], Value::from(604), "{moving}");
}

/// Each fault is planted by another writer, in a table of its own world.
#[test]
fn planted_faults_are_found_and_shown() {
    let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
        println!("skipped: WATERSHED_PYTHON names no Python with deltalake (make test sets it up)");
        return;
    };
    let world = World::new();
    world.ok(&["run", "rides.sql"]);
    let plant = |view: &str, program: &str| {
        let table = world.path(&format!(".watershed/tables/{view}"));
        let head = "import sys, deltalake, pyarrow as pa\nt = deltalake.DeltaTable(sys.argv[1])\n";
        let out = Command::new(&python).args(["-c", &format!("{head}{program}"), &table]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let counts = |verdict: &Value| ["missing", "extra", "different"].map(|kind| verdict[kind].as_u64().unwrap());
    plant("hourly", "t.delete(\"city = 'Rome' AND window_start = '2024-05-02T07:00:00Z'\")");
    let (code, verdict) = world.verify("hourly", &[]);
    assert_eq!((code, counts(&verdict)), (1, [1, 0, 0]), "{verdict}");
    let shown = verdict["shown"][0].to_string();
    assert!(shown.contains("missing") && shown.contains("Rome") && shown.contains("2024-05-02T07"), "{shown}");
    // Elsewhere nothing is wrong.
    assert_eq!(world.verify("hourly", &["--from", "2024-05-03"]).0, 0);

    plant("hourly", "t.update(updates={'rides': 'rides + 1'}, predicate=\"city = 'Lima' AND rides = 2\")");
    let (code, verdict) = world.verify("hourly", &["--show", "3"]);
    assert_eq!((code, verdict["missing"].as_u64()), (1, Some(1)), "{verdict}");
    assert!(verdict["different"].as_u64() > Some(3) && verdict["shown"].as_array().unwrap().len() == 3, "{verdict}");
    let different = verdict["shown"].as_array().unwrap().iter().find(|d| d["kind"] == "different").unwrap().to_string();
    assert!(different.contains("[\"rides\",\"2\"]") && different.contains("[\"rides\",\"3\"]"), "{different}");

    let double = "import datetime\nrows = t.to_pyarrow_table().slice(5, 1)\n\
                  deltalake.write_deltalake(sys.argv[1], rows, mode='append')";
    plant("moving", double);
    let (code, verdict) = world.verify("moving", &[]);
    assert_eq!((code, counts(&verdict)), (1, [0, 1, 0]), "{verdict}");
    let out = world.run(&["verify", "moving"]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("extra") && said.contains("moving: differs"), "{said}");

    plant("long_rides", double);
    plant("long_rides", "t.delete(\"km = 12.4\")");
    let (code, verdict) = world.verify("long_rides", &[]);
    let [missing, extra, different] = counts(&verdict);
    assert!(code == 1 && missing > 0 && extra == 1 && different == 0, "{verdict}");

    // A change too small to be one, and one that is.
    plant("growing", "t.update(updates={'rides': 'rides'}, predicate='rides > 0')");
    assert_eq!(world.verify("growing", &[]).0, 0);
    plant("moving", "t.update(updates={'km': 'km * 1.00000001'}, predicate=\"city = 'Oslo'\")");
    let (_, verdict) = world.verify("moving", &[]);
    assert!(verdict["different"].as_u64() > Some(10), "{verdict}");
    let out = world.run(&["verify", "rides"]);
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn jobs_say_where_they_stand() {
    let world = World::new();
    world.write("one.sql", SQL.split("CREATE MATERIALIZED VIEW moving").next().unwrap());
    world.ok(&["run", "one.sql", "--to", "2024-05-03", "--slice", "0 s"]);
    let job = || serde_json::from_str::<Value>(world.ok(&["jobs", "--json"]).lines().next().unwrap()).unwrap();
    let part = job();
    assert_eq!(part["state"], "idle", "{part}");
    assert_eq!((&part["watermark"], &part["lag_ms"]), (&"2024-05-03T00:00:00Z".into(), &Value::from(3 * 86_400_000)));
    assert_eq!((&part["left"]["closed_files"], &part["left"]["files"]), (&Value::from(3), &Value::from(3)), "{part}");
    assert_eq!(part["positions"]["rides"]["boundary"], "2024-05-03T00:00:00Z", "{part}");
    assert!(part["last_commit"].as_str().is_some(), "{part}");
    world.ok(&["run", "one.sql"]);
    let whole = job();
    assert_eq!((&whole["lag_ms"], &whole["left"]["bytes"]), (&Value::from(0), &Value::from(0)), "{whole}");
    fs::remove_dir_all(world.path("lake/_delta_log")).unwrap();
    assert!(!world.run(&["run", "one.sql"]).status.success());
    let text = world.ok(&["jobs"]);
    assert!(text.lines().next().unwrap().contains("LAST COMMIT") && text.contains("hourly"), "{text}");
}

const PARSE: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
found = {}
for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    assert family.documentation, family
    assert family.type in ("counter", "gauge"), family
    for sample in family.samples:
        found[sample.name + json.dumps(sample.labels, sort_keys=True)] = sample.value
print(json.dumps(found))
"#;

#[test]
fn metrics_are_what_others_parse() {
    let world = World::new();
    world.ok(&["run", "rides.sql", "--metrics-file", "metrics.prom"]);
    assert_eq!(
        fs::read_dir(world.dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("prom"))
            .count(),
        1
    );
    let text = fs::read_to_string(world.path("metrics.prom")).unwrap();
    assert!(text.contains("watershed_rows_total{job=\"hourly\",outcome=\"used\"} 600"), "{text}");
    let puts = text.lines().find_map(|line| line.strip_prefix("watershed_requests_total{kind=\"put\"} "));
    assert!(puts.and_then(|n| n.parse::<u64>().ok()) > Some(5), "{text}");
    let documented = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    for name in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter_map(|l| l.split(' ').next()) {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
    }
    let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
        println!("skipped: WATERSHED_PYTHON names no Python with prometheus-client (make test sets it up)");
        return;
    };
    let out = Command::new(python).args(["-c", PARSE, &world.path("metrics.prom")]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    let value = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("{name}: {found}"));
    let of =
        |outcome: &str| value(&format!("watershed_rows_total{{\"job\": \"long_rides\", \"outcome\": \"{outcome}\"}}"));
    assert_eq!(of("used") + of("filtered"), 600.0);
    assert_eq!(value("watershed_written_rows_total{\"job\": \"long_rides\"}"), of("used"));
    assert_eq!(value("watershed_running{\"job\": \"hourly\"}"), 0.0);
    assert_eq!(value("watershed_watermark_seconds{\"job\": \"hourly\"}"), 1_714_953_600.0);
    let error = world.run(&["run", "rides.sql", "--metrics-file", "no/such/folder/m.prom"]);
    assert_eq!(error.status.code(), Some(3), "{}", String::from_utf8_lossy(&error.stderr));
}

#[test]
fn logs_are_json_where_asked() {
    let world = World::new();
    let out = world.run(&["run", "rides.sql", "--log", "watershed_runtime=debug", "--log-format", "json"]);
    let said = String::from_utf8_lossy(&out.stderr);
    let lines: Vec<Value> =
        said.lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |message: &str| lines.iter().filter(|l| l["message"] == message).collect::<Vec<_>>();
    assert!(!of("step").is_empty() && !of("checkpoint").is_empty(), "{said}");
    for line in of("checkpoint") {
        assert!(line["job"].is_string() && line["epoch"].as_u64() > Some(0) && line["level"] == "INFO", "{line}");
    }
}
