//! Watershed on Azure Blob Storage, as Azurite, Microsoft's own stand-in for it, has it: the way from files to an answer.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use watershed_core::clock::{Clock, SystemClock};

use crate::minio::cli::{SQL, csv, succeeded};

/// As MinIO's: the server ends with whoever holds the pipe.
const KEEPER: &str = r#"
"$1" --silent --disableTelemetry --skipApiVersionCheck --blobHost 127.0.0.1 --blobPort "$2" --location "$3" </dev/null >/dev/null 2>&1 &
server=$!
read -r line
kill "$server"
wait "$server"
rm -rf "$3"
"#;

/// Makes a container, which object_store does not.
const CONTAINER: &str = r#"
const crypto = require("crypto");
const [endpoint, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString();
const text = `PUT${"\n".repeat(12)}x-ms-date:${date}\nx-ms-version:2021-08-06\n/${account}/${account}/${container}\nrestype:container`;
const signature = crypto.createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8").digest("base64");
const headers = { "x-ms-date": date, "x-ms-version": "2021-08-06", Authorization: `SharedKey ${account}:${signature}` };
fetch(`${endpoint}/${container}?restype=container`, { method: "PUT", headers }).then(async (answer) => {
  if (!answer.ok) { console.error(answer.status, await answer.text()); process.exit(1); }
});
"#;

const ACCOUNT: &str = "lakes";

struct Azurite {
    keeper: Child,
    endpoint: String,
    key: String,
}

impl Azurite {
    fn start(binary: &str) -> Azurite {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Hexadecimal digits are base64 of something, which is all that a key is.
        let key = SystemClock::default().id().simple().to_string();
        let folder: PathBuf = tempfile::tempdir().unwrap().keep();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", binary, &port.to_string()])
            .arg(&folder)
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let server = Azurite { keeper, endpoint: format!("http://127.0.0.1:{port}/{ACCOUNT}"), key };
        let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let waited = (0..1200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            answers()
        });
        assert!(waited, "Azurite does not answer");
        server
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[test]
fn azurite_from_files_to_an_answer_and_nothing_new_after() {
    let Some(binary) = std::env::var("WATERSHED_AZURITE").ok().filter(|binary| !binary.is_empty()) else {
        println!("skipped: WATERSHED_AZURITE names no Azurite (tools/azurite.sh installs it; make test does)");
        return;
    };
    let server = Azurite::start(&binary);
    let made = Command::new("node").args(["-e", CONTAINER, &server.endpoint, ACCOUNT, &server.key, "lake"]).output();
    succeeded(made.expect("node starts"), &["a container"]);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("flights.csv"), csv(1..=3)).unwrap();
    fs::write(dir.path().join("flights.sql"), SQL).unwrap();
    let at = |path: &str| format!("az://lake/{path}");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("WATERSHED_") || n.starts_with("AZURE_")) {
            command.env_remove(name);
        }
        command
            .current_dir(dir.path())
            .envs([("LAKE", at("flights")), ("LATE", at("late ones")), ("WATERSHED_HOME", at("home"))])
            .envs([("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT), ("AZURE_STORAGE_ACCOUNT_KEY", &server.key)])
            .envs([("AZURE_STORAGE_ENDPOINT", server.endpoint.as_str()), ("AZURE_ALLOW_HTTP", "true")])
            .args(arguments);
        succeeded(command.output().unwrap(), arguments)
    };
    run(&["load", "flights.csv", "--into", &at("flights"), "--time-column", "at", "--partition-by", "day"]);
    let said = run(&["run", "flights.sql", "--slice", "0 s", "--commit-interval", "0 s"]);
    assert!(said.contains("delays: 6 rows in 3 slices"), "{said}");
    let said = run(&["run", "flights.sql"]);
    assert_eq!(said.lines().filter(|line| line.contains("nothing new")).count(), 2, "{said}");
    let answer = run(&["query", "SELECT count(*), sum(flights), sum(delay) FROM delays", "--format", "csv"]);
    assert_eq!(answer.lines().nth(1), Some("3,6,77"));
    let answer = run(&["query", "SELECT count(*) FROM late_ones", "--format", "csv"]);
    assert_eq!(answer.lines().nth(1), Some("2"));

    // A sink's files, which Azure copies to their names.
    let sink =
        format!("CREATE SINK lines WITH (location = '{}') AS SELECT at, origin, delay FROM flights;", at("lines"));
    fs::write(dir.path().join("lines.sql"), sink).unwrap();
    run(&["run", "lines.sql"]);
    run(&["load", &at("lines/*.ndjson"), "--into", &at("again")]);
    fs::write(
        dir.path().join("again.sql"),
        format!("CREATE EXTERNAL TABLE again STORED AS DELTA LOCATION '{}';", at("again")),
    )
    .unwrap();
    run(&["run", "again.sql"]);
    let answer = run(&["query", "SELECT count(*), sum(delay) FROM again", "--format", "csv"]);
    assert_eq!(answer.lines().nth(1), Some("6,77"));
}
