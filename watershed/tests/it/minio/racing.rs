//! Conditional put decides: of two runners of one job the later wins, and of many writers of one object exactly one.

use std::process::Stdio;
use std::time::Duration;

use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};

use super::cli::{Cli, SQL, csv, failed, succeeded};
use super::server::shared;

#[test]
fn minio_two_runners_of_one_job() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("runners");
    let cli = Cli::loaded(&bucket, 40);
    let (one_view, _) = SQL.split_once("CREATE MATERIALIZED VIEW late_ones").unwrap();
    cli.write("flights.sql", one_view);
    let slowly = ["run", "flights.sql", "--slice", "0 s", "--commit-interval", "0 s", "--throttle-rows", "10"];
    let first = cli.command(&slowly).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has begun once it has checkpoints.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let checkpoints = || {
        let jobs = runtime.block_on(bucket.list("home/jobs"));
        jobs.iter().filter(|path| path.as_ref().contains("/manifests/")).count()
    };
    while checkpoints() < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = cli.command(&["run", "flights.sql", "--commit-interval", "0 s"]).output().unwrap();
    let first = first.wait_with_output().unwrap();
    // As a rule the later one wins, unless the earlier one writes a checkpoint while the later one begins.
    let (winner, loser) = if second.status.success() { (second, first) } else { (first, second) };
    succeeded(winner, &["one of two runners"]);
    let complained = failed(loser, 5);
    assert!(complained.contains("another runner took over job delays"), "{complained}");
    assert_eq!(cli.csv("SELECT count(*), sum(flights), sum(delay) FROM delays"), ["40,80,1020"]);
    let said = cli.ok(&["run", "flights.sql"]);
    assert!(said.contains("delays: nothing new"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_of_many_writers_exactly_one_succeeds() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("writers");
    // Each writer with connections of its own, as if in a process of its own.
    let stores: Vec<_> = (0..8).map(|_| bucket.store()).collect();
    for version in 0..25 {
        let path = Path::from(format!("t/_delta_log/{version:020}.json"));
        let puts = stores.iter().enumerate().map(|(writer, store)| {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            store.put_opts(&path, format!("writer {writer}").into(), options)
        });
        let answers = join_all(puts).await;
        let won: Vec<usize> = (0..8).filter(|writer| answers[*writer].is_ok()).collect();
        assert_eq!(won.len(), 1, "version {version}: {answers:?}");
        for lost in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(
                matches!(lost, Error::AlreadyExists { .. } | Error::Precondition { .. }),
                "version {version}: {lost}"
            );
        }
        let kept = stores[0].get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(kept, format!("writer {}", won[0]), "version {version}");
    }
}

#[test]
fn minio_many_loads_into_one_table() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("loads");
    let cli = Cli::loaded(&bucket, 1);
    let into = bucket.at("lake");
    let loads: Vec<_> = (2..8)
        .map(|day| {
            let name = format!("{day}.csv");
            cli.write(&name, &csv(day..=day));
            cli.command(&["load", &name, "--into", &into])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for load in loads {
        succeeded(load.wait_with_output().unwrap(), &["load"]);
    }
    cli.ok(&["run", "flights.sql", "--final"]);
    assert_eq!(cli.csv("SELECT count(*), sum(flights) FROM delays"), ["7,14"]);
    assert_eq!(cli.csv("SELECT count(*), count(DISTINCT at) FROM flights"), ["14,14"]);
}
