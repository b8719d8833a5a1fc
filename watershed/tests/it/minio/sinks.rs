//! A sink's files in a bucket: the server copies what is staged, and after kills each row is there once.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::cli::Cli;
use super::server::{Bucket, shared};

const SQL: &str = "
CREATE SOURCE rides (id BIGINT, city VARCHAR, at TIMESTAMP, WATERMARK FOR at AS at)
WITH (tail = 'generate://', generate.rows_per_second = 5000, generate.rows = 20000, generate.sequence = 'id');
CREATE SINK lines WITH (location = '${LATE}/lines') AS SELECT id, city, at FROM rides;
";

/// The rows that readers see, who pass over names with a `_`.
async fn ids(bucket: &Bucket<'_>) -> Vec<u64> {
    let mut found = vec![];
    for (path, bytes) in bucket.contents().await {
        if path.starts_with("late ones/lines/") && !path.contains("/_watershed/") {
            let text = String::from_utf8(bytes).unwrap();
            assert!(path.ends_with(".ndjson") && text.ends_with("}\n"), "{path}");
            found.extend(text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].as_u64().unwrap()));
        }
    }
    found.sort_unstable();
    found
}

#[tokio::test]
async fn minio_has_the_files_of_a_sink_once_however_often_it_is_killed() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("sinks");
    let cli = Cli::new(&bucket);
    cli.write("lines.sql", SQL);
    for round in 0..4 {
        let mut run = cli.command(&["run", "lines.sql", "--commit-interval", "10 ms"]);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(900));
        assert!(run.try_wait().unwrap().is_none(), "round {round}");
        run.kill().unwrap();
        run.wait().unwrap();
        let found = ids(&bucket).await;
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "round {round}: a row is there twice");
    }
    assert!(!ids(&bucket).await.is_empty());
    sleep(Duration::from_secs(4));
    cli.ok(&["run", "lines.sql", "--until", "caught-up"]);
    assert_eq!(ids(&bucket).await, (0..20_000).collect::<Vec<_>>());
}
