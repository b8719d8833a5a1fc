//! A store that says `503 SlowDown`, and a store that goes away: waited for within limits, then a clear end, then a run
//! that goes on without loss.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::cli::{Cli, failed, succeeded};
use super::proxy::Proxy;
use super::server::{Bucket, Server, shared};

const SLOWLY: [&str; 8] = ["run", "flights.sql", "--slice", "0 s", "--commit-interval", "0 s", "--throttle-rows", "20"];

#[test]
fn minio_throttled_requests_are_tried_again() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("throttled");
    let cli = Cli::loaded(&bucket, 5);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.port(), 3));
    let endpoint = format!("endpoint={}", proxy.endpoint);
    let mut throttled = cli.command(&["--store-option", &endpoint, "run", "flights.sql", "--commit-interval", "0 s"]);
    succeeded(throttled.output().unwrap(), &["run"]);
    let (asked, refused) = proxy.counts();
    assert!(refused >= 10 && refused == asked / 3, "{refused} of {asked} requests were refused");
    assert_eq!(cli.csv("SELECT count(*), sum(flights), sum(delay) FROM delays"), ["5,10,128"]);
    assert_eq!(cli.csv("SELECT count(*) FROM late_ones"), ["3"]);
}

#[test]
fn minio_that_always_refuses_is_given_up() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("refused");
    let cli = Cli::loaded(&bucket, 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.port(), 1));
    let endpoint = format!("endpoint={}", proxy.endpoint);
    let mut refused =
        cli.command(&["--store-option", &endpoint, "--store-option", "max_retries=2", "run", "flights.sql"]);
    let error = failed(refused.output().unwrap(), 3);
    // Which store, which request, how often, and what to change.
    for words in [
        "s3://refused/home",
        "Error performing GET http://127.0.0.1",
        "503 Service Unavailable",
        "SlowDown",
        "after 2 retries",
        "or give it longer with these store options",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(proxy.counts(), (3, 3), "one request, tried three times");
}

#[test]
fn minio_without_the_bucket() {
    let Some(server) = shared() else { return };
    let bucket = server.known("nowhere");
    let cli = Cli::new(&bucket);
    let error = failed(cli.command(&["run", "flights.sql"]).output().unwrap(), 3);
    assert!(error.contains("s3://nowhere/home") && error.contains("Watershed makes no buckets"), "{error}");
}

/// A run that has committed some and is not done.
fn half_done(cli: &Cli<'_>, bucket: &Bucket<'_>, options: &[&str]) -> Child {
    let mut command = cli.command(&SLOWLY);
    for option in options {
        command.args(["--store-option", option]);
    }
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let committed = || runtime.block_on(bucket.list("home/tables/delays/_delta_log")).len();
    while committed() < 3 {
        assert!(running.try_wait().unwrap().is_none(), "it ended before it was half done");
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

#[test]
fn minio_goes_away_and_comes_back() {
    let Some(mut server) = Server::start() else { return };
    for (name, options) in [("waits", &[][..]), ("gives-up", &["max_retries=1", "retry_timeout=1 s"][..])] {
        let bucket = server.bucket(name);
        let cli = Cli::loaded(&bucket, 60);
        let running = half_done(&cli, &bucket, options);
        let dir = cli.dir;
        // The borrow of the server ends here, and with it what knows the bucket.
        server.stop();
        std::thread::sleep(Duration::from_secs(2));
        let ended = if options.is_empty() {
            server.go_on();
            succeeded(running.wait_with_output().unwrap(), &["the run that waited"]);
            None
        } else {
            let ended = failed(running.wait_with_output().unwrap(), 3);
            server.go_on();
            Some(ended)
        };
        let bucket = server.known(name);
        let cli = Cli { dir, bucket: &bucket };
        if let Some(error) = ended {
            for words in
                ["/gives-up/", "max_retries: 1", "Connection refused", "give it longer with these store options"]
            {
                assert!(error.contains(words), "{words}: {error}");
            }
            let said = cli.ok(&["run", "flights.sql"]);
            let read = said.lines().find(|line| line.contains("delays: ")).unwrap_or_default();
            assert!(!read.contains("nothing new") && !read.contains("120 rows"), "it goes on where it was: {said}");
        }
        assert_eq!(cli.csv("SELECT count(*), sum(flights), sum(delay) FROM delays"), ["60,120,1530"]);
        assert_eq!(cli.csv("SELECT count(*), count(DISTINCT at) FROM late_ones"), ["30,30"]);
        let said = cli.ok(&["run", "flights.sql"]);
        assert_eq!(said.lines().filter(|line| line.contains("nothing new")).count(), 2, "{said}");
    }
}
