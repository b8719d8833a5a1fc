//! From SQL to a graph that the runtime drives, with what cannot be made incremental refused here and nowhere else.
//!
//! ```text
//!  text ──parse──▶ statements          CREATE SOURCE, CREATE MATERIALIZED VIEW, INSERT, SELECT, …
//!  query ─rewrite─▶ query              TUMBLE and plain views become subqueries
//!        ─refuse──▶ error              with line, column, reason, and what to write instead
//!        ─DataFusion─▶ logical plan
//!        ─shape───▶ one aggregate, or none
//!        ─lower───▶ Lowered            a fragment with a hole a source, a window's specification, a finish
//! ```
//!
//! A lowered query is planned once a job. A step binds its fragment to files ([`Fragment::bind`]), the operator merges
//! what comes out, and what a watermark makes final goes through [`Finish::bind`] to the view. The same query, by the same
//! rewrites, runs as an ordinary batch query ([`Planner::batch`]): the oracle, and `watershed query`.
//!
//! Modules in the order in which a query meets them:
//!
//! * [`sql`]: text to statements; rewrites and refusals that need no plan.
//! * [`session`]: the planner and its catalogs.
//! * [`tables`]: sources and tables, as DataFusion sees them.
//! * [`ties`]: an order inside an aggregate, made complete.
//! * [`shape`]: stateless, or one aggregate; all else is refused.
//! * [`trace`]: where a column comes from.
//! * [`joins`]: a stream with tables; [`dimension`]: a table's rows, read once a run.
//! * [`window`]: which expressions are windows.
//! * [`lower`]: the cut at the aggregate.
//! * [`fragment`]: plans with holes, bound once a step.
//! * [`scan`]: files into holes; [`paced`]: no faster than the job may read.
//! * [`watched`]: which row groups were opened; [`counted`], [`account`]: what became of rows.
//! * [`stored`]: the names that files know columns by; [`relabel`]: those inside of nested columns.
//! * [`coded`]: text that only groups rows, as dictionaries.
//! * [`checked`]: files whose columns nobody declared; [`accounted`]: what readers hold in memory; [`ahead`]:
//!   fewer and larger fetches from servers.
//! * [`finish`]: what stands above the aggregate.
//! * [`explain`]: a lowered query in words.

pub mod sql;

pub mod session;

mod tables;

mod ties;

mod shape;

mod trace;

mod joins;

mod dimension;

mod window;

pub mod lower;

pub mod fragment;

mod scan;

mod paced;

mod watched;

mod counted;

mod account;

mod stored;

mod relabel;

mod coded;

mod checked;

mod accounted;

mod ahead;

pub mod finish;

pub mod explain;

pub use datafusion::sql::sqlparser::ast::Query;
pub use explain::explain;
pub use finish::Finish;
pub use fragment::Fragment;
pub use lower::{LowerOptions, Lowered, WindowStage};
pub use session::{Planner, SourceTable};
pub use sql::columns::{columns_of, sql_type};
pub use sql::parse::parse;
pub use sql::statement::{
    Backfill, CreateExternalTable, CreateMaterializedView, CreateSink, CreateSource, CreateTable, CreateView, Drop,
    ExternalFormat, Insert, Kind, Options, Parsed, Statement, columns_text,
};
pub use tables::files_table;
