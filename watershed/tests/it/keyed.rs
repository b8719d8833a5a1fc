//! Keyed tables as a user meets them: CREATE TABLE with a key, `load --mode upsert`, INSERT from a source, and what is said of
//! those that cannot be.

use std::fs;

use arrow::util::pretty::pretty_format_batches;
use watershed::{Engine, LoadMode, LoadRequest};
use watershed_lake::{Stores, table_info};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        World { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.dir.path().join(name), text).unwrap();
        self.path(name)
    }

    fn engine(&self) -> Engine {
        Engine::builder()
            .home(self.path("home"))
            .setting("commit_interval", "0 s")
            .setting("slice", "0 s")
            .build()
            .unwrap()
    }

    async fn run(&self, sql: &str) {
        self.engine().execute(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    }

    async fn refused(&self, sql: &str) -> String {
        match self.engine().execute(sql).await {
            Ok(outcomes) => panic!("{sql}\n{outcomes:?}"),
            Err(e) => e.to_string(),
        }
    }

    async fn load(&self, request: LoadRequest) -> watershed_core::Result<watershed::Loaded> {
        self.engine().load(&request).await
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
async fn files_are_upserted_by_key() {
    let world = World::new();
    let request = |text: &str, file: &str| LoadRequest {
        files: vec![world.write(file, text)],
        into: world.path("t"),
        key: vec!["id".into()],
        ..LoadRequest::default()
    };
    world.load(request("id,v\n1,a\n2,b\n3,c\n", "1.csv")).await.unwrap();
    // The table knows its key from here on.
    let again = LoadRequest { key: vec![], ..request("id,v\n2,B\n4,d\n", "2.csv") };
    world.load(again).await.unwrap();
    let changes = LoadRequest { operation: Some("op".into()), ..request("id,v,op\n1,,d\n3,C,u\n9,,delete\n", "3.csv") };
    world.load(changes.clone()).await.unwrap();
    assert_eq!(world.load(changes).await.unwrap().version, None);
    world.run(&format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{}'", world.path("t"))).await;
    assert_eq!(world.rows("SELECT id, v FROM t ORDER BY id").await, ["2 B", "3 C", "4 d"]);

    let append = LoadRequest { mode: Some(LoadMode::Append), key: vec![], ..request("id,v\n1,x\n", "4.csv") };
    let error = world.load(append).await.unwrap_err().to_string();
    assert!(error.contains("has the key (id)") && error.contains("--mode upsert"), "{error}");
    let twice = world.load(request("id,v\n7,x\n8,y\n7,z\n", "5.csv")).await.unwrap_err().to_string();
    assert!(twice.contains("the key (id = 7) comes more than once"), "{twice}");
    let nameless = LoadRequest {
        files: vec![world.write("6.csv", "id\n1\n")],
        into: world.path("u"),
        mode: Some(LoadMode::Upsert),
        ..LoadRequest::default()
    };
    let error = world.load(nameless).await.unwrap_err().to_string();
    assert!(error.contains("has no key recorded") && error.contains("--key id"), "{error}");
    assert_eq!(world.rows("SELECT count(*) FROM t").await, ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_version_by_version() {
    let world = World::new();
    for (file, text) in [("1.csv", "id,v\n1,a\n2,b\n"), ("2.csv", "id,v\n2,B\n3,c\n"), ("3.csv", "id,v,op\n1,,d\n")] {
        let request = LoadRequest {
            files: vec![world.write(file, text)],
            into: world.path("t"),
            key: vec!["id".into()],
            operation: text.contains(",op").then(|| "op".to_string()),
            ..LoadRequest::default()
        };
        world.load(request).await.unwrap();
    }
    let t = world.path("t");
    let columns = "_commit_version AS at, id, v, _change_type AS what";
    let all = format!("SELECT {columns} FROM CHANGES('{t}', 0) ORDER BY at, id, what DESC");
    assert_eq!(
        world.rows(&all).await,
        [
            "1 1 a insert",
            "1 2 b insert",
            "2 2 b update_preimage",
            "2 2 B update_postimage",
            "2 3 c insert",
            "3 1 a delete"
        ]
    );
    world.run(&format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{t}'")).await;
    let some = format!("SELECT {columns} FROM changes(t, 2, 2) WHERE _change_type = 'insert'");
    assert_eq!(world.rows(&some).await, ["2 3 c insert"]);
    let newest = "SELECT count(*) FROM CHANGES(t, '2000-01-01') WHERE changes._commit_timestamp > '2020-01-01'";
    assert_eq!(world.rows(newest).await, ["6"]);
    for (sql, words) in [
        ("SELECT * FROM CHANGES(t, 9)", "the first is after the last"),
        ("SELECT * FROM CHANGES(t, 1, 9)", "has no version 9 yet; its newest is 3"),
        ("SELECT * FROM CHANGES(t)", "give CHANGES(table, from [, to])"),
    ] {
        let error = world.engine().query(sql).await.unwrap_err().to_string();
        assert!(error.contains(words), "{sql}: {error}");
    }
    fs::remove_file(world.dir.path().join("t/_delta_log/00000000000000000001.json")).unwrap();
    let error = world.engine().query(&all).await.unwrap_err().to_string();
    assert!(
        error.contains("log entry 1") && error.contains("is gone") || error.contains("cannot read table"),
        "{error}"
    );
}

/// Changes of twenty keys over four days; the last of each key by its number is what the table must end with.
fn changes() -> (String, Vec<String>) {
    let mut text = "at,id,v,n,op\n".to_string();
    let mut last = std::collections::BTreeMap::new();
    for i in 0..200u64 {
        // Numbers in an order of their own, so that newer ones come before older ones.
        let (id, n) = (i * 7 % 20, i * 37 % 211);
        let delete = n % 4 == 0;
        text += &format!(
            "2024-01-{:02}T{:02}:00:00,{id},{},{n},{}\n",
            1 + i / 50,
            i % 24,
            i * 3,
            if delete { "d" } else { "u" }
        );
        let newest = last.entry(id).or_insert((n, i, delete));
        if n >= newest.0 {
            *newest = (n, i, delete);
        }
    }
    let rows = last.into_iter().filter(|(_, (_, _, delete))| !delete);
    (text, rows.map(|(id, (n, i, _))| format!("{id} {} {n}", i * 3)).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_changes_fills_a_keyed_table() {
    let world = World::new();
    let (text, expected) = changes();
    let facts = LoadRequest {
        files: vec![world.write("changes.csv", &text)],
        into: world.path("lake"),
        time_column: Some("at".into()),
        ..LoadRequest::default()
    };
    world.load(facts).await.unwrap();
    let sql = format!(
        "CREATE SOURCE changes (WATERMARK FOR at AS at) WITH (lake = '{}');
         CREATE TABLE latest (id BIGINT, v BIGINT, n BIGINT, PRIMARY KEY (id)) WITH (sequence_by = 'n');
         INSERT INTO latest WITH (operation = 'op') SELECT id, v, n, op FROM changes;",
        world.path("lake")
    );
    world.run(&sql).await;
    world.run(&sql).await;
    assert_eq!(world.rows("SELECT id, v, n FROM latest ORDER BY id").await, expected);
    let table = world.path("home/tables/latest");
    let info = table_info(&Stores::default(), &table).await.unwrap();
    assert_eq!(info.properties["watershed.primary_key"], "id");
    assert!(info.version > 3, "an epoch a slice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_keyed_is_refused() {
    let world = World::new();
    for (sql, words) in [
        ("CREATE TABLE t (a BIGINT, PRIMARY KEY (b))", "there is no column b; the columns are a"),
        ("CREATE TABLE t (a BIGINT PRIMARY KEY, b BIGINT PRIMARY KEY)", "one primary key"),
        ("CREATE TABLE t (a BIGINT PRIMARY KEY, PRIMARY KEY (a))", "one primary key"),
        ("CREATE TABLE t (a BIGINT, UNIQUE (a))", "constraints other than PRIMARY KEY"),
        ("CREATE TABLE t (a BIGINT) WITH (sequence_by = 'a')", "add PRIMARY KEY"),
        ("CREATE TABLE t (a BIGINT PRIMARY KEY, s VARCHAR) WITH (sequence_by = 's')", "must be a whole number"),
        ("CREATE TABLE t (a BIGINT) WITH (merge = 'partial')", "add PRIMARY KEY"),
        ("CREATE TABLE t (a BIGINT PRIMARY KEY) WITH (merge = 'newest')", "give 'replace'"),
        ("CREATE TABLE t (a BIGINT PRIMARY KEY) WITH (write_mode = 'lazy')", "give 'merge-on-read'"),
        ("CREATE TABLE t (a BIGINT) WITH (change_data_feed = 'yes')", "give true or false"),
    ] {
        let error = world.refused(sql).await;
        assert!(error.contains(words), "{sql}: {error}");
    }
    assert!(!fs::exists(world.path("home/tables/t")).unwrap());
}
