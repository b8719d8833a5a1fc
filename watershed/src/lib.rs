//! Watershed as a library: one SQL query over a lake's history and what follows, into open tables.
//!
//! An [`Engine`] stands on a *home*, a folder or object store URL that keeps the catalog, the checkpoints and, unless said
//! otherwise, the result tables. It runs the same SQL files as the `watershed` command, which is a thin layer over it.
//!
//! ```
//! use watershed::{Engine, LoadRequest, Outcome};
//!
//! # async fn example() -> watershed::Result<()> {
//! # let dir = tempfile::tempdir().expect("a temporary folder");
//! # let dir = dir.path().display().to_string();
//! let csv = format!("{dir}/rides.csv");
//! std::fs::write(&csv, "at,city,km\n2024-05-01T08:10:00,Oslo,3.5\n2024-05-01T08:50:00,Oslo,1.5\n2024-05-02T09:00:00,Rome,2\n")
//!     .expect("a file to load");
//!
//! let engine = Engine::builder().home(format!("{dir}/home")).variables([("LAKE", format!("{dir}/lake/rides"))]).build()?;
//! engine
//!     .load(&LoadRequest {
//!         files: vec![csv],
//!         into: format!("{dir}/lake/rides"),
//!         time_column: Some("at".into()),
//!         partition_by: Some("day".into()),
//!         ..LoadRequest::default()
//!     })
//!     .await?;
//!
//! let sql = "
//!     CREATE SOURCE rides (WATERMARK FOR at AS at) WITH (lake = '${LAKE}');
//!     CREATE MATERIALIZED VIEW hourly AS
//!     SELECT window_start, city, count(*) AS rides, sum(km) AS km
//!     FROM TUMBLE(rides, at, INTERVAL '1 hour') GROUP BY window_start, city;
//! ";
//! let outcomes = engine.execute(sql).await?;
//! let Some(Outcome::Job(summary)) = outcomes.last() else { panic!("{outcomes:?}") };
//! assert_eq!(summary.run.written, 2);
//!
//! // Run again, it finds that there is nothing new.
//! let outcomes = engine.execute(sql).await?;
//! assert!(matches!(&outcomes[..], [Outcome::Job(summary)] if summary.nothing_new));
//!
//! // The result is a plain Delta table that anybody can read; here with a batch query over the same catalog.
//! let rows = engine.query("SELECT city, rides FROM hourly").await?;
//! assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(example()).expect("the example runs");
//! ```
//!
//! Modules in the order in which a statement meets them:
//!
//! * [`engine`]: the home and what can be done in it.
//! * `layers`: which value of a setting counts.
//! * `execute`: one text, statement by statement.
//! * `declare`: what a CREATE comes to: create, resume, replace or refuse. Pure.
//! * [`catalog`]: what has been created, by name.
//! * `tails`: the log of a source; `keys`: the facts that its history has too, where offsets do not tell.
//! * `inferred`: the columns of a log that nobody declared.
//! * `handover`: where a history ends and its log begins.
//! * `folders`: files of text as a history.
//! * `sources`, `names`, `relations`: from names in a query to histories and a planner that knows them.
//! * `dimensions`, `csv`, `late`: tables as queries read them.
//! * `jobs`, `bindings`: from a statement to a running job.
//! * `storable`: rejected rows in columns that a table can have.
//! * `tables`: tables made, replaced and dropped.
//! * `compact`, `vacuum`: tables brought back into shape, and what jobs need of them.
//! * [`load`]: files into tables.
//! * [`batch`], [`listing`]: answers, and what there is.
//! * [`control`]: jobs told from outside what to do.
//! * [`replay`]: messages that could not be read, read once more.
//! * [`standing`]: the jobs, and where they stand; [`metrics`]: what they count, for Prometheus.
//! * [`estimate`]: what a backfill will cost.
//! * [`verify`]: a view held against the batch answer.
//! * [`memory`]: the one budget.

pub mod engine;

mod layers;

mod execute;

mod declare;

mod diff;

pub mod catalog;

mod folders;

mod sources;

mod tails;

mod inferred;

mod keys;

mod chained;

mod handover;

mod names;

mod relations;

mod dimensions;

mod late;

mod repair;

mod early;

mod csv;

mod jobs;

mod bindings;

mod storable;

mod tables;

mod compact;

mod vacuum;

mod changes;

pub mod load;

pub mod batch;

pub mod listing;

pub mod control;

pub mod replay;

pub mod standing;

pub mod metrics;

pub mod verify;

pub mod estimate;

pub mod memory;

/// Arrow and DataFusion in the very versions that this crate's interface speaks of.
pub use {arrow, datafusion};

pub use control::Asked;
pub use engine::{Builder, Engine, JobPlan, Outcome, RunOptions};
pub use estimate::Estimate;
pub use handover::{Forgets, Handover, PartHandover};
pub use layers::settings_help;
pub use listing::{ColumnInfo, RelationInfo};
pub use load::{LoadMode, LoadRequest, Loaded, LoadedFile};
pub use metrics::Metrics;
pub use replay::Replayed;
pub use standing::{JobInfo, JobState, Left};
pub use verify::{Difference, Verification, VerifyOptions};
pub use watershed_core::{Error, Result};
pub use watershed_lake::{Merge, RequestCounts, Stores, WriteMode};

/// How tables are brought back into shape.
pub mod upkeep {
    pub use watershed_lake::upkeep::{
        CleanedLog, CompactOptions, Compacted, Pin, RowOrder, UnneededFile, VacuumOptions, Vacuumed,
    };
}

/// What a run is told and tells.
pub mod runtime {
    pub use watershed_runtime::{
        GivenUp, NoProgress, PlayedBack, Progress, ProgressUpdate, StillMalformed, Stop, Summary,
    };
}
