//! Where credentials come from, and where they never go.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use super::cli::{Cli, SQL, failed, succeeded};
use super::server::{Bucket, shared};

/// Files as `aws configure` writes them, and what makes the binary find them.
fn profiles(cli: &Cli<'_>, config: &str, credentials: &str) {
    let folder = cli.dir.path().join(".aws");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config"), config).unwrap();
    std::fs::write(folder.join("credentials"), credentials).unwrap();
}

fn with(mut command: Command, environment: &[(&str, &str)]) -> Output {
    command.env("AWS_ALLOW_HTTP", "true").envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn minio_profiles_give_credentials_region_and_endpoint() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("profiles");
    let cli = Cli::loaded(&bucket, 2);
    let (key, secret) = server.keys();
    let process = cli.dir.path().join("give-keys");
    let answer = format!("{{\"Version\": 1, \"AccessKeyId\": \"{key}\", \"SecretAccessKey\": \"{secret}\"}}");
    std::fs::write(&process, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    std::fs::set_permissions(&process, std::fs::Permissions::from_mode(0o700)).unwrap();
    let endpoint = server.endpoint();
    profiles(
        &cli,
        &format!(
            "[default]\nregion = us-east-1\nendpoint_url = {endpoint}\n\n\
             [profile lake]\nregion = us-east-1\nendpoint_url = {endpoint}\n\n\
             [profile process]\nregion = us-east-1\nendpoint_url = {endpoint}\ncredential_process = {}\n\n\
             [profile wrong]\nendpoint_url = {endpoint}\n",
            process.display()
        ),
        &format!(
            "[lake]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n\n\
             [wrong]\naws_access_key_id = {key}\naws_secret_access_key = not-the-secret\n"
        ),
    );
    let run = ["run", "flights.sql"];
    succeeded(with(cli.bare(&run), &[("AWS_PROFILE", "lake")]), &["AWS_PROFILE"]);
    let said = succeeded(with(cli.bare(&run), &[("AWS_PROFILE", "process")]), &["credential_process"]);
    assert!(said.contains("nothing new"), "{said}");

    // A profile that is named counts before keys in the environment, and those before a profile that is not.
    let keys = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
    let wrong = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", "neither")];
    succeeded(with(cli.bare(&[&["--store-option", "profile=lake"], &run[..]].concat()), &wrong), &["profile="]);
    succeeded(with(cli.bare(&run), &[&keys[..], &[("AWS_PROFILE", "wrong")]].concat()), &["keys first"]);

    // One source by a profile of its own, which the catalog may keep; all else by the environment.
    cli.write("own.sql", "CREATE SOURCE own (WATERMARK FOR at AS at) WITH (lake = '${LAKE}', profile = 'lake'); SELECT count(*) AS n FROM own;");
    let said = cli.ok(&["run", "own.sql"]);
    assert!(said.contains("| 4 |"), "{said}");

    let error = failed(with(cli.bare(&run), &[("AWS_PROFILE", "wrong")]), 3);
    assert!(error.contains("SignatureDoesNotMatch") && error.contains("see to the credentials"), "{error}");
    assert!(!error.contains("not-the-secret"), "{error}");
    let error = failed(with(cli.bare(&run), &[("AWS_PROFILE", "nobody")]), 3);
    assert!(error.contains("no AWS credentials were found") && error.contains("AWS_ACCESS_KEY_ID"), "{error}");
    let error = failed(with(cli.bare(&[&["--store-option", "profile=nobody"], &run[..]].concat()), &[]), 3);
    assert!(error.contains("profile nobody of ~/.aws gives no credentials"), "{error}");
}

/// All that a run leaves and says, for one who looks for secrets.
struct Traces {
    secrets: Vec<String>,
    seen: usize,
}

impl Traces {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.seen += bytes.len();
        for secret in &self.secrets {
            let found = bytes.windows(secret.len()).position(|part| part == secret.as_bytes());
            if let Some(at) = found {
                let around = &bytes[at.saturating_sub(300)..bytes.len().min(at + 100)];
                panic!("a secret is in {place}: …{}…", String::from_utf8_lossy(around));
            }
        }
    }

    fn look_at(&mut self, what: &str, out: Output) -> Output {
        self.look(&format!("standard output of {what}"), &out.stdout);
        self.look(&format!("standard error of {what}"), &out.stderr);
        out
    }
}

const TRACE: [&str; 2] = ["--log", "trace"];

#[test]
fn minio_secrets_are_left_nowhere() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("secrets");
    let cli = Cli::loaded(&bucket, 4);
    let (key, secret) = server.keys();
    let mut traces = Traces { secrets: vec![key.to_string(), secret.to_string()], seen: 0 };
    // The source has its own credentials in its statement, by the names of variables; the home those of the environment.
    let sql = SQL.replace(
        "WITH (lake = '${LAKE}')",
        "WITH (lake = '${LAKE}', access_key_id = '${LAKE_KEY}', secret_access_key = '${LAKE_SECRET}')",
    );
    cli.write("flights.sql", &sql);
    cli.write("explain.sql", &sql.replace("CREATE MATERIALIZED", "EXPLAIN CREATE MATERIALIZED"));
    let command = |words: &[&str], secret: &str| {
        let mut command = cli.command(&[&TRACE, words].concat());
        command.env("LAKE_KEY", key).env("LAKE_SECRET", secret);
        command
    };
    let mut run = |what: &str, words: &[&str]| {
        let out = command(words, secret).output().unwrap();
        succeeded(traces.look_at(what, out), words)
    };
    run("explain", &["run", "explain.sql"]);
    run("run", &["run", "flights.sql"]);
    run("run again", &["run", "flights.sql", "--json"]);
    run("plan", &["plan", "flights.sql"]);
    run("describe", &["describe", "flights"]);
    run("describe view", &["describe", "delays", "--json"]);
    run("jobs", &["jobs", "--json"]);
    run("tables", &["tables", "--json"]);
    assert!(run("query", &["query", "SELECT count(*) AS n FROM flights"]).contains("| 8 |"));
    // A changed statement is shown with the old one.
    cli.write("changed.sql", &sql.replace("'${LAKE_KEY}'", "'${LAKE_SECRET}'"));
    let out = command(&["run", "changed.sql"], secret).output().unwrap();
    let error = failed(traces.look_at("a changed statement", out), 2);
    assert!(error.contains("access_key_id = '${LAKE_SECRET}'"), "{error}");
    // Wrong ones are secrets too.
    traces.secrets.push("a-wrong-secret".into());
    let out = command(&["query", "SELECT count(*) FROM flights"], "a-wrong-secret").output().unwrap();
    let error = failed(traces.look_at("a wrong secret", out), 3);
    assert!(error.contains("see to the credentials"), "{error}");
    let out = cli.command(&["query", "SELECT count(*) FROM flights"]).output().unwrap();
    let error = failed(traces.look_at("an unset secret", out), 2);
    assert!(error.contains("${LAKE_KEY} is not set"), "{error}");
    // Written out they are refused, and not repeated.
    cli.write("clear.sql", &sql.replace("${LAKE_SECRET}", "a-wrong-secret"));
    let out = command(&["run", "clear.sql"], secret).output().unwrap();
    let error = failed(traces.look_at("a secret in clear", out), 2);
    assert!(error.contains("`secret_access_key` would be written to the catalog"), "{error}");
    cli.write("location.sql", "CREATE SOURCE x WITH (lake = 's3://me:a-wrong-secret@bucket/x')");
    let out = command(&["run", "location.sql"], secret).output().unwrap();
    failed(traces.look_at("a secret in a location", out), 2);

    let kept = contents(&bucket);
    assert!(kept.keys().any(|path| path.contains("/manifests/")), "{:?}", kept.keys());
    let catalog = kept.iter().find(|(path, _)| path.starts_with("home/catalog/source/flights/")).unwrap().1;
    assert!(String::from_utf8_lossy(catalog).contains("secret_access_key = '${LAKE_SECRET}'"));
    for (path, bytes) in &kept {
        traces.look(path, bytes);
    }
    assert!(traces.seen > 1_000_000, "trace logs say more than {} bytes", traces.seen);
}

fn contents(bucket: &Bucket<'_>) -> std::collections::BTreeMap<String, Vec<u8>> {
    tokio::runtime::Runtime::new().unwrap().block_on(bucket.contents())
}
