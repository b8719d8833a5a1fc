//! From files to an answer, as on disk, with all that lasts in a bucket.

use super::cli::{Cli, csv};
use super::server::shared;

#[test]
fn minio_from_files_to_an_answer_and_nothing_new_after() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("path");
    let cli = Cli::loaded(&bucket, 3);
    let said = cli.ok(&["run", "flights.sql", "--slice", "0 s", "--commit-interval", "0 s"]);
    assert!(said.contains("created source flights") && said.contains("delays: 6 rows in 3 slices"), "{said}");
    assert!(said.lines().last().unwrap().starts_with("requests to stores: "), "{said}");
    assert_eq!(
        cli.csv("SELECT origin, flights, delay FROM delays ORDER BY window_start"),
        ["OSL,2,26", "OSL,2,25", "OSL,2,26"]
    );
    assert_eq!(cli.csv("SELECT count(*), min(delay) FROM late_ones"), ["2,21"]);

    let said = cli.ok(&["run", "flights.sql"]);
    assert_eq!(said.lines().filter(|line| line.contains("nothing new")).count(), 2, "{said}");

    // What comes later is taken up where the run ended.
    cli.write("more.csv", &csv(4..=5));
    cli.ok(&["load", "more.csv", "--into", &bucket.at("lake")]);
    assert!(cli.ok(&["load", "more.csv", "--into", &bucket.at("lake")]).contains("nothing new"));
    let said = cli.ok(&["run", "flights.sql"]);
    assert!(said.contains("delays: 4 rows"), "{said}");
    assert_eq!(cli.csv("SELECT count(*), sum(flights), sum(delay) FROM delays"), ["5,10,128"]);
    for words in [vec!["tables"], vec!["jobs"], vec!["describe", "flights"], vec!["plan", "flights.sql"]] {
        cli.ok(&words);
    }

    // A view that is built anew leaves nothing of the old one, and one that is dropped nothing at all.
    cli.write(
        "anew.sql",
        &super::cli::SQL
            .replace("sum(delay)", "max(delay)")
            .replace("CREATE MATERIALIZED VIEW delays", "CREATE OR REPLACE MATERIALIZED VIEW delays"),
    );
    cli.ok(&["run", "anew.sql", "--final"]);
    assert_eq!(cli.csv("SELECT count(*), sum(flights), max(delay) FROM delays"), ["5,10,21"]);
    cli.write("drop.sql", "DROP MATERIALIZED VIEW delays; DROP MATERIALIZED VIEW late_ones;");
    cli.ok(&["run", "drop.sql"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(bucket.list("home/tables")), []);
    assert_eq!(runtime.block_on(bucket.list("late ones")), []);
}
