//! The documentation does what it says: the blocks of every page are run from top to bottom, by the real binary, in a
//! folder with a home of its own.
//!
//! | block | |
//! |---|---|
//! | `sql` | a file that is given to `watershed run` |
//! | `sh` | run by bash; a `text` block right behind it has lines of its output, in which `…` is anything |
//! | any other | must hold no SQL, for nobody would run it |
//!
//! What a block needs besides is said by a comment before it, which readers of the page do not see:
//!
//! | comment | |
//! |---|---|
//! | `<!-- test: setup NAME -->` | first does what [`setup`] has under this name |
//! | `<!-- test: refused: WORDS -->` | the block has to be refused, in these words |
//!
//! A page about logs runs on a real Kafka, and is passed over where there is none. Locations in a store or from the root on become folders in that of the test: `s3://partner/events` is `partner/events`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::kafka::broker::Broker;

/// A broker in the pages' examples, whose place that of the tests takes.
const BROKER: &str = "kafka://broker:9092/";

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A fenced block of a page.
#[derive(Debug)]
struct Block {
    /// Of its fence.
    line: usize,
    language: String,
    text: String,
    /// What stands in the comment before it.
    remark: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = vec![];
    let mut open = false;
    let mut remark = None;
    for (i, line) in page.lines().enumerate() {
        let plain = line.trim();
        match (plain.strip_prefix("```"), open, found.last_mut()) {
            (Some(_), true, _) => open = false,
            (Some(language), false, _) => {
                let (language, remark) = (language.to_string(), remark.take());
                found.push(Block { line: i + 1, language, text: String::new(), remark });
                open = true;
            }
            (None, true, Some(block)) => writeln!(block.text, "{line}").unwrap(),
            _ => {
                let comment = plain.strip_prefix("<!-- test:").and_then(|rest| rest.strip_suffix("-->"));
                remark = comment.map(|text| text.trim().to_string()).or(remark).filter(|_| {
                    // A comment speaks of what comes next, blank lines aside.
                    comment.is_some() || plain.is_empty()
                });
            }
        }
    }
    found
}

/// A folder in which a page is run.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        World { dir: tempfile::tempdir().unwrap() }
    }

    /// What the pages take for granted: the demo's flights, and a few facts of other kinds.
    fn with_facts() -> Self {
        let world = World::new();
        world.write("in/orders.csv", "ordered_at,amount\n2024-05-01T08:00:00,3\n2024-05-02T09:00:00,4\n");
        world.write("in/events.csv", "at,kind\n2024-05-01T08:00:00,a\n2024-05-02T09:00:00,b\n");
        let flights = format!("{ROOT}/examples/flights");
        let load = |file: &str, into: &str, time: &str| {
            let arguments = ["load", file, "--into", into, "--time-column", time, "--partition-by", "day"];
            world.watershed(&arguments).unwrap();
        };
        load(&format!("{flights}/flights.parquet"), "lake/flights", "date");
        load(&format!("{flights}/flights.parquet"), ".demo/flights", "date");
        load("in/orders.csv", "data/orders", "ordered_at");
        load("in/events.csv", "partner/events", "at");
        fs::remove_file(world.path("in/events.csv")).unwrap();
        let airports = fs::read_to_string(format!("{flights}/airports.csv")).unwrap();
        world.write("examples/flights/airports.csv", &airports);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// Standard output, or all that was said if it failed.
    fn run(&self, command: &mut Command) -> Result<String, String> {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
            command.env_remove(name);
        }
        let keys = [("PARTNER_KEY", "a key"), ("PARTNER_SECRET", "a secret")];
        let out = command.current_dir(self.dir.path()).envs(keys).output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if out.status.success() { Ok(said.into_owned()) } else { Err(format!("{said}{complained}")) }
    }

    fn watershed(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(Command::new(env!("CARGO_BIN_EXE_watershed")).args(arguments))
    }

    fn sql(&self, text: &str) -> Result<String, String> {
        let mut text = text.replace("'s3://", "'").replace("'/", "'");
        if text.contains(BROKER) {
            let broker = Broker::shared().ok_or("there is no Kafka")?;
            text = text.replace(BROKER, &format!("kafka://{}/", broker.address()));
        }
        self.write("block.sql", &text);
        // Over a log a run would stay.
        self.watershed(&["run", "block.sql", "--until", "caught-up"])
    }

    fn shell(&self, text: &str) -> Result<String, String> {
        let binary = Path::new(env!("CARGO_BIN_EXE_watershed")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        self.run(Command::new("bash").args(["-euo", "pipefail", "-c", text]).env("PATH", path))
    }

    /// Whether every relation can be opened: a source is not before something reads it.
    fn opens_all(&self) -> Result<(), String> {
        for relation in self.watershed(&["tables", "--json"])?.lines() {
            let relation: Value = serde_json::from_str(relation).unwrap();
            self.watershed(&["describe", relation["name"].as_str().unwrap()])?;
        }
        Ok(())
    }
}

/// What some blocks need and their page does not show.
fn setup(world: &World, name: &str) -> Result<(), String> {
    match name {
        "a view delays, for which some flights came late" => {
            let sql = "CREATE SOURCE flights (WATERMARK FOR date AS date) WITH (lake = 'lake/flights');
                CREATE MATERIALIZED VIEW delays AS SELECT window_start, window_end, origin, count(*) AS flights
                FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_start, window_end, origin;";
            world.sql(sql)?;
            world.write("late.csv", "date,origin\n2001-01-05T10:00:00,JFK\n");
            world.watershed(&["load", "late.csv", "--into", "lake/flights"])?;
            world.sql(sql).map(|_| ())
        }
        "events that have landed" => {
            let line =
                |hour: u32| format!("{{\"at\":\"2024-05-01T{hour:02}:30:00\",\"kind\":\"a\",\"amount\":{hour}.5}}\n");
            world.write("landing/events/1.json", &(0..12).map(line).collect::<String>());
            world.write("landing/events/2.json", &(12..24).map(line).collect::<String>());
            Ok(())
        }
        "a keyed table of gates" => {
            for (name, rows) in [("1.csv", "LX14,3\nLX16,5\n"), ("2.csv", "LX16,7\n")] {
                world.write(name, &format!("flight,gate\n{rows}"));
                world.watershed(&["load", name, "--into", "lake/gates", "--mode", "upsert", "--key", "flight"])?;
            }
            Ok(())
        }
        "rides in a topic" => {
            let broker = Broker::shared().ok_or("there is no Kafka")?;
            broker.create("rides", 2, &[]);
            let ride = |n: i32| {
                let text = format!(r#"{{"at":"2024-05-01T{:02}:00:00Z","city":"Oslo","km":{n}}}"#, n % 24);
                (n % 2, None, Some(text.into_bytes()), None)
            };
            broker.produce("rides", (0..48).map(ride));
            Ok(())
        }
        "rides loaded by others" => {
            let ride = |n: i32| format!("2024-05-01T{n:02}:00:00,Oslo,{n},{},{}\n", n % 2, n / 2);
            let rides: String = (0..12).map(ride).collect();
            world.write("in/rides.csv", &format!("at,city,km,_part,_offset\n{rides}"));
            let into = ["--into", "lake/rides_by_others", "--time-column", "at", "--partition-by", "day"];
            world.watershed(&[&["load", "in/rides.csv"], &into[..]].concat()).map(drop)
        }
        "rides whose times are numbers" => {
            let broker = Broker::shared().ok_or("there is no Kafka")?;
            let ride = |n: i64| {
                let text = format!(r#"{{"at":{},"city":"Oslo","km":{n}}}"#, 1_714_608_000_000 + n * 60_000);
                (0, None, Some(text.into_bytes()), None)
            };
            broker.produce("rides", (0..12).map(ride));
            world.sql("INSERT INTO rides SELECT at, city, km, _part, _offset FROM rides_log;")?;
            let mended = format!(
                "CREATE OR REPLACE SOURCE rides_log (
                     at TIMESTAMP, city VARCHAR, km BIGINT, _part INT, _offset BIGINT,
                     WATERMARK FOR at AS at - INTERVAL '10 minutes'
                 ) WITH (tail = 'kafka://{}/rides', format = 'json', json.timestamp = 'ms');",
                broker.address()
            );
            world.write("mended.sql", &mended);
            Ok(())
        }
        "orders with headers, in a topic" => {
            let broker = Broker::shared().ok_or("there is no Kafka")?;
            broker.create("orders", 1, &[]);
            let order = r#"{"at":"2024-05-01T08:00:00Z","amount":3.5}"#;
            broker.produce_with_headers("orders", 0, &[(order, &[("tenant", Some(b"a"))]), (order, &[])]);
            Ok(())
        }
        "events in a topic" => {
            let broker = Broker::shared().ok_or("there is no Kafka")?;
            broker.create("events", 1, &[]);
            let descriptors = format!("{ROOT}/connectors/formats/tests/data/protobuf/shop.binpb");
            fs::copy(descriptors, world.path("shop.binpb")).map_err(|e| e.to_string())?;
            // Their time is the field 3, of seconds since 1970, and their kind the field 5.
            let event = |n: u8| (0, None, Some(vec![0x1a, 3, 8, n, 1, 0x28, 1]), None);
            broker.produce("events", (0x80..0xa0).map(event));
            Ok(())
        }
        "customers that change, in a topic" => {
            let broker = Broker::shared().ok_or("there is no Kafka")?;
            broker.create("shop.public.customers", 1, &[]);
            let message = |op: &str, image: &str| {
                let text = format!(
                    r#"{{"{image}":{{"id":1,"name":"Ann","joined":19844}},"op":"{op}","source":{{"ts_ms":1714550400000}}}}"#
                );
                (0, None, Some(text.into_bytes()), None)
            };
            broker.produce("shop.public.customers", [message("c", "after"), message("d", "before")]);
            Ok(())
        }
        _ => Err(format!("there is no set-up `{name}`")),
    }
}

/// Runs the blocks of a page; how many there were that could be run.
fn run(world: &World, page: &str) -> Result<usize, String> {
    let mut ran = 0;
    let mut said: Option<String> = None;
    for block in blocks(page) {
        let at = |e: String| format!("line {}, a block of {}: {e}\n{}", block.line, block.language, block.text);
        let refused = block.remark.as_ref().and_then(|remark| remark.strip_prefix("refused: "));
        if let (Some(remark), None) = (&block.remark, refused) {
            let name = remark.strip_prefix("setup ").ok_or_else(|| at(format!("`{remark}` is no remark")))?;
            setup(world, name).map_err(at)?;
        }
        let ended = match block.language.as_str() {
            "sql" => world.sql(&block.text),
            "sh" => world.shell(&block.text),
            "text" if said.is_some() => {
                says(&said.take().unwrap_or_default(), &block.text).map_err(at)?;
                continue;
            }
            _ if block.text.lines().any(is_sql) => return Err(at("it holds SQL: mark it as sql".into())),
            _ => continue,
        };
        said = match (ended, refused) {
            (Ok(said), None) => (block.language == "sh").then_some(said),
            (Err(e), Some(words)) if e.contains(words) => None,
            (Err(e), _) => return Err(at(e)),
            (Ok(_), Some(_)) => return Err(at("it was not refused".into())),
        };
        ran += 1;
    }
    world.opens_all()?;
    Ok(ran)
}

/// Whether a line begins a statement.
fn is_sql(line: &str) -> bool {
    let begins = ["CREATE ", "SELECT ", "INSERT INTO ", "DROP ", "EXPLAIN ", "DESCRIBE "];
    begins.iter().any(|begin| line.trim_start().starts_with(begin))
}

/// Looks for the lines in the output, in their order.
fn says(output: &str, lines: &str) -> Result<(), String> {
    let mut said = output.lines();
    for line in lines.lines() {
        // How long something took is another time each time.
        let wanted = line.replace(" in 0.0 s", " in … s");
        if !said.any(|said| matches(said, &wanted)) {
            return Err(format!("`{line}` was not said, or not there:\n{output}"));
        }
    }
    Ok(())
}

/// Whether a line is as a pattern in which `…` is anything.
fn matches(line: &str, pattern: &str) -> bool {
    match pattern.split_once('…') {
        None => line == pattern,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            line.char_indices().map(|(i, _)| i).chain([line.len()]).any(|i| matches(&line[i..], rest))
        }),
    }
}

/// The pages: those of the root, and all below these folders.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![PathBuf::from(ROOT)];
    folders.extend(["docs", "examples", "benchmarks"].map(|name| Path::new(ROOT).join(name)));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && folder != Path::new(ROOT) {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_block_of_every_page_runs() {
    let mut ran = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        let runs = blocks(&page).iter().any(|block| ["sql", "sh"].contains(&block.language.as_str()));
        if page.contains(BROKER) && Broker::shared().is_none() {
            continue;
        }
        let world = if runs { World::with_facts() } else { World::new() };
        ran += run(&world, &page).unwrap_or_else(|e| panic!("{}, {e}", path.display()));
    }
    assert!(ran > 20, "only {ran} blocks were found");
}

#[test]
fn a_block_that_does_not_do_what_it_says_is_found() {
    let fence = |language: &str, text: &str| format!("```{language}\n{text}\n```\n");
    let fails = |page: String| run(&World::new(), &page).unwrap_err();
    assert_eq!(run(&World::new(), &fence("sql", "SELECT 1;")), Ok(1));
    assert!(fails(fence("sql", "SELECT nothing;")).contains("nothing"));
    assert!(fails(fence("", "SELECT 1;")).contains("mark it as sql"));
    assert!(fails(fence("sql", "CREATE SOURCE s WITH (lake = '/nowhere');")).contains("nowhere"));
    // What a page shows to be refused.
    let refused = |text: &str| format!("<!-- test: refused: nothing -->\n\n{}", fence("sql", text));
    assert_eq!(run(&World::new(), &refused("SELECT nothing;")), Ok(1));
    assert!(fails(refused("SELECT 1;")).contains("it was not refused"));
    assert!(fails(refused("SELECT missing;")).contains("missing"));
    assert!(fails(format!("<!-- test: odd -->\n{}", fence("sql", "SELECT 1;"))).contains("`odd` is no remark"));
    // What a shell says.
    let shell =
        |said: &str| fence("sh", "watershed tables; echo 'took 3 s in all'") + "\nIt says:\n\n" + &fence("text", said);
    assert_eq!(run(&World::new(), &shell("took … s in all")), Ok(1));
    assert!(fails(shell("took … s for all")).contains("was not said"));
    assert!(fails(fence("sh", "false")).contains("a block of sh"));
}
