//! External tables: how they are declared, read, joined, listed and dropped, and what is said of those that cannot be.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use parquet::arrow::ArrowWriter;
use watershed::catalog::Kind;
use watershed::{Engine, LoadRequest, Outcome};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Two days of one row every six hours, k from 0 to 7.
    async fn new() -> Self {
        let world = World { dir: tempfile::tempdir().unwrap() };
        let row = |i: usize| format!("2024-03-{:02}T{:02}:30:00,{i}\n", 1 + i / 4, i % 4 * 6);
        world.write("s.csv", &format!("ts,k\n{}", (0..8).map(row).collect::<String>()));
        let request =
            LoadRequest { files: vec![world.path("s.csv")], into: world.path("lake"), ..LoadRequest::default() };
        world.engine().load(&request).await.unwrap();
        world
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn engine(&self) -> Engine {
        let variables = [("LAKE", self.path("lake")), ("DIR", self.dir.path().display().to_string())];
        Engine::builder().home(self.path("home")).variables(variables).build().unwrap()
    }

    async fn run(&self, sql: &str) -> Vec<Outcome> {
        self.engine().execute(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"))
    }

    async fn refused(&self, sql: &str) -> String {
        match self.engine().execute(sql).await {
            Ok(outcomes) => panic!("{sql}\n{outcomes:?}"),
            Err(e) => e.to_string(),
        }
    }

    /// The rows of a query, each a line of cells.
    async fn rows(&self, sql: &str) -> Vec<String> {
        let batches = self.engine().query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let cells = |line: &str| line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" ");
        text.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csv_in_many_forms() {
    let world = World::new().await;
    world.write("folder/one.csv", "name,ID,more\nzero,0,x\n\"a, b\",1,y\n");
    world.write("folder/two.csv", "id,name\n2,\"two\nlines\"\n3,\n");
    world.write("folder/_ignored.csv", "rubbish");
    world.write("plain.txt", "4;four\n5;five\n");
    world
        .run(
            "CREATE EXTERNAL TABLE folder (id INT, name VARCHAR) STORED AS CSV LOCATION '${DIR}/folder';
             CREATE EXTERNAL TABLE plain (id INT, name VARCHAR) STORED AS CSV LOCATION '${DIR}/plain.txt'
               WITH (has_header = false, delimiter = ';');
             CREATE EXTERNAL TABLE guessed STORED AS CSV LOCATION '${DIR}/folder/one.csv';",
        )
        .await;
    assert_eq!(
        world.rows("SELECT id, replace(name, chr(10), '/') FROM folder ORDER BY id").await,
        ["0 zero", "1 a, b", "2 two/lines", "3"]
    );
    assert_eq!(world.rows("SELECT name, id + 1 FROM plain ORDER BY id").await, ["four 5", "five 6"]);
    assert_eq!(world.rows("SELECT count(*) FROM folder").await, ["4"]);
    assert_eq!(world.rows("SELECT \"ID\" + 1, more FROM guessed ORDER BY 1").await, ["1 x", "2 y"]);
    let described = world.engine().describe("guessed").await.unwrap();
    let columns: Vec<_> = described.iter().map(|c| (c.name.as_str(), c.data_type.as_str())).collect();
    assert_eq!(columns, [("name", "Utf8"), ("ID", "Int64"), ("more", "Utf8")]);

    // Joined, a key of another width; the fact with k = 3 meets a NULL, that with 7 nothing.
    world
        .run(
            "CREATE SOURCE s (WATERMARK FOR ts AS ts) WITH (lake = '${LAKE}', bounded = true);
             CREATE MATERIALIZED VIEW v AS SELECT s.ts, s.k, coalesce(f.name, p.name, '-') AS name FROM s
               LEFT JOIN folder f ON s.k = f.id LEFT JOIN plain p ON p.id = s.k;
             CREATE MATERIALIZED VIEW same AS SELECT count(*) AS n, date_trunc('day', ts) AS day FROM s JOIN guessed g
               ON s.k = g.\"ID\" GROUP BY date_trunc('day', ts);",
        )
        .await;
    assert_eq!(
        world.rows("SELECT k, replace(name, chr(10), '/') FROM v ORDER BY k").await,
        ["0 zero", "1 a, b", "2 two/lines", "3 -", "4 four", "5 five", "6 -", "7 -"]
    );
    assert_eq!(world.rows("SELECT n FROM same").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_as_a_file_and_as_a_folder_with_columns_in_its_names() {
    let world = World::new().await;
    for (path, id) in [("alone.parquet", 1), ("hive/kind=a/x.parquet", 2), ("hive/kind=b%20c/y.parquet", 3)] {
        world.write(path, "");
        let ids: ArrayRef = Arc::new(Int32Array::from(vec![id]));
        let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut writer =
            ArrowWriter::try_new(fs::File::create(world.path(path)).unwrap(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
    world
        .run(
            "CREATE EXTERNAL TABLE alone STORED AS PARQUET LOCATION '${DIR}/alone.parquet';
             CREATE EXTERNAL TABLE hive STORED AS PARQUET LOCATION '${DIR}/hive';
             CREATE SOURCE s (WATERMARK FOR ts AS ts) WITH (lake = '${LAKE}', bounded = true);
             CREATE MATERIALIZED VIEW v AS SELECT s.ts, s.k, a.id, h.kind FROM s LEFT JOIN alone a ON a.id = k LEFT JOIN hive h
               ON h.id = k WHERE k BETWEEN 1 AND 3;",
        )
        .await;
    let rows = world.rows("SELECT k, coalesce(id, -1), coalesce(kind, '-') FROM v ORDER BY k").await;
    assert_eq!(rows, ["1 1 -", "2 -1 a", "3 -1 b c"]);
    assert_eq!(world.engine().tables().await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_listed_kept_replaced_and_dropped() {
    let world = World::new().await;
    world.write("t.csv", "id\n1\n");
    let create = "CREATE EXTERNAL TABLE t (id INT) STORED AS CSV LOCATION '${DIR}/t.csv';";
    assert!(matches!(&world.run(create).await[..], [Outcome::Done(said)] if said == "created external table t"));
    assert!(world.run(create).await.is_empty());
    let tables = world.engine().tables().await.unwrap();
    let listed: Vec<_> = tables.iter().map(|t| (t.name.as_str(), t.kind, t.location.clone())).collect();
    assert_eq!(listed, [("t", Kind::ExternalTable, Some(world.path("t.csv")))]);

    let other = "EXTERNAL TABLE t (id BIGINT) STORED AS CSV LOCATION '${DIR}/t.csv';";
    let message = world.refused(&format!("CREATE {other}")).await;
    assert!(message.contains("CREATE OR REPLACE EXTERNAL TABLE t"), "{message}");
    world.run(&format!("CREATE OR REPLACE {other}")).await;
    assert_eq!(world.engine().describe("t").await.unwrap()[0].data_type, "Int64");
    let message = world.refused("CREATE TABLE t (id INT)").await;
    assert!(message.contains("t is the name of an external table; drop it first (DROP EXTERNAL TABLE t)"), "{message}");

    world.run("CREATE VIEW over_t AS SELECT id FROM t").await;
    assert!(world.refused("DROP EXTERNAL TABLE t").await.contains("is read by view over_t"));
    world.run("DROP VIEW over_t; DROP TABLE t;").await;
    assert!(world.engine().tables().await.unwrap().is_empty());
    assert!(fs::exists(world.path("t.csv")).unwrap());
    world.run(create).await;
    world.run("DROP EXTERNAL TABLE t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_says_why() {
    let world = World::new().await;
    world.write("t.csv", "id,name\n1,one\ntwo,two\n");
    for (sql, parts) in [
        ("STORED AS CSV LOCATION '${DIR}/gone.csv'", &["t", "gone.csv", "no such file"][..]),
        ("(nmae VARCHAR) STORED AS CSV LOCATION '${DIR}/t.csv'", &["no column nmae", "id, name"]),
        ("(id INT) STORED AS CSV LOCATION '${DIR}/t.csv'", &["two"]),
        ("STORED AS DELTA LOCATION '${DIR}'", &["_delta_log"]),
        ("STORED AS PARQUET LOCATION '${DIR}/lake'", &["is a Delta table", "STORED AS DELTA"]),
    ] {
        world.run(&format!("CREATE OR REPLACE EXTERNAL TABLE t {sql}")).await;
        let message = world.refused("SELECT * FROM t").await;
        assert!(parts.iter().all(|part| message.contains(part)), "{sql}: {message}");
    }
    for (sql, parts) in [
        ("STORED AS CSV LOCATION '${DIR}/t.csv' WITH (has_header = false)", &["say its columns"][..]),
        ("STORED AS CSV LOCATION '${DIR}/t.csv' WITH (delimiter = 'ab')", &["one character"]),
        ("STORED AS CSV LOCATION '${DIR}/t.csv' WITH (hedaer = true)", &["hedaer", "has_header"]),
        ("STORED AS PARQUET LOCATION '${DIR}' WITH (delimiter = ';')", &["an option of CSV"]),
        ("(id INT) STORED AS DELTA LOCATION '${DIR}'", &["leave them out"]),
        ("STORED AS ORC LOCATION '${DIR}'", &["line 1, column", "CSV, PARQUET or DELTA", "ORC"]),
        ("STORED AS CSV", &["LOCATION"]),
    ] {
        let message = world.refused(&format!("CREATE EXTERNAL TABLE u {sql}")).await;
        assert!(parts.iter().all(|part| message.contains(part)), "{sql}: {message}");
    }
    let message = world.refused("CREATE MATERIALIZED VIEW v AS SELECT id FROM t").await;
    assert!(message.contains("reads no source") || message.contains("Delta table"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_too_large_for_the_memory_says_so() {
    let world = World::new().await;
    let rows: String = (0..200_000).map(|i| format!("{i},a name of some length {i}\n")).collect();
    world.write("big.csv", &format!("id,name\n{rows}"));
    let sql = "SET memory_limit = '4 MB';
        CREATE SOURCE s (WATERMARK FOR ts AS ts) WITH (lake = '${LAKE}', bounded = true);
        CREATE EXTERNAL TABLE big (id INT, name VARCHAR) STORED AS CSV LOCATION '${DIR}/big.csv';
        CREATE MATERIALIZED VIEW v AS SELECT ts, name FROM s JOIN big ON k = id;";
    let message = world.refused(sql).await;
    assert!(message.contains("job v") && message.contains("a dimension table is too large"), "{message}");
    // Less of it goes.
    world
        .run(
            "SET memory_limit = '40 MB'; CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT ts, name FROM s JOIN (SELECT id, name \
             FROM big WHERE id < 10) b ON k = b.id",
        )
        .await;
    assert_eq!(world.rows("SELECT count(*) FROM v").await, ["8"]);
}
