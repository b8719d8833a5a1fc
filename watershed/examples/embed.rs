//! Watershed inside a program: files into a lake, a view over it, and the view's rows, in a folder that goes away.
//!
//! `cargo run --release --example embed`

use std::error::Error;
use std::fs;

use watershed::{Engine, LoadRequest, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).display().to_string();

    fs::write(
        at("rides.csv"),
        "at,city,km\n\
         2024-05-01T08:10:00,Oslo,3.5\n\
         2024-05-01T08:50:00,Oslo,1.5\n\
         2024-05-01T09:05:00,Rome,7\n\
         2024-05-02T09:00:00,Rome,2\n",
    )?;

    // Everything that lasts is in the home; an engine can be dropped and built again at any time.
    let engine = Engine::builder()
        .home(at("home"))
        .variables([("LAKE", at("lake/rides"))])
        .setting("parallelism", "2")
        .build()?;

    let request = LoadRequest {
        files: vec![at("rides.csv")],
        into: at("lake/rides"),
        time_column: Some("at".into()),
        partition_by: Some("day".into()),
        ..LoadRequest::default()
    };
    println!("loaded {} rows", engine.load(&request).await?.rows);

    let sql = "
        CREATE SOURCE rides (WATERMARK FOR at AS at) WITH (lake = '${LAKE}');
        CREATE MATERIALIZED VIEW hourly AS
        SELECT window_start, window_end, city, count(*) AS rides, sum(km) AS km
        FROM TUMBLE(rides, at, INTERVAL '1 hour')
        GROUP BY window_start, window_end, city;
    ";
    for outcome in engine.execute(sql).await? {
        match outcome {
            Outcome::Job(summary) => println!("{}: {} rows written", summary.job, summary.run.written),
            Outcome::Done(note) => println!("{note}"),
            other => println!("{other:?}"),
        }
    }

    for batch in engine.query("SELECT * FROM hourly ORDER BY window_start, city").await? {
        println!("{}", arrow::util::pretty::pretty_format_batches(&[batch])?);
    }
    Ok(())
}
