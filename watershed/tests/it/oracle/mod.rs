//! The oracle: every query is run as a streaming job, whole, sliced, stopped and restored, and must give what DataFusion's
//! batch answer gives (design §10).
//!
//! * [`facts`]: drawn histories.
//! * [`tables`]: what they are joined with.
//! * [`compare`]: answers as bags of rows.
//! * [`plain`]: a query without our window forms.
//! * [`check`]: the one function that all cases go through.
//! * [`remote`]: the same over a bucket.
//! * [`divided`]: the same, divided between a history and a log.
//! * [`cases`]: queries over drawn facts.
//! * [`ordered`]: aggregates with ORDER BY inside.
//! * [`types`]: columns of every type, as keys, arguments and results; lists unnested.
//! * [`joins`]: queries that join tables, and tables that change between runs.
//! * [`grammar`]: queries drawn at random.
//! * [`increments`]: histories that grow between runs, also where they were read before.
//! * [`slt`]: queries as data, in `watershed/tests/slt`; with the same answers from [`duckdb`], which shares no code with us.
//! * [`squeezed`]: memory so short that state goes to disk.
//! * [`planted`]: faults that must make `check` fail.
//! * [`shapes`]: layouts of histories in time, joined and cut.
//! * [`chaos`]: kills and store faults from seeds, and two runners at once.
//! * [`kill`]: `kill -9` over the real binary.

pub(crate) mod facts;

pub(crate) mod tables;

pub(crate) mod compare;

mod plain;

mod remote;

mod divided;

pub(crate) mod check;

mod cases;

mod joins;

mod ordered;

mod shapes;

mod types;

mod slt;

mod grammar;

mod increments;

mod duckdb;

mod squeezed;

mod planted;

mod chaos;

mod kill;
