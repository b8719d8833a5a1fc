//! Stateful and time-aware operators, one a file; DataFusion does the vectorised work inside them.
//!
//! * [`window_form`]: forms of windows, and what a watermark means to them.
//! * [`window_spec`]: which windows an aggregate has and what its columns are.
//! * [`gate`]: keeps rows aside that must not be used: late ones, and ones without a usable time.
//! * [`window_start`]: where a row's window starts.
//! * `groups`, `ordered`: the groups of one window, and aggregates whose answer depends on the order of rows.
//! * [`codes`]: text keys as numbers, where files hold them so.
//! * [`window_partial`]: a worker's rows to partial states, window by window.
//! * [`window_aggregate`]: merges partial aggregates into windows, emits each once when it is final, and forgets it.
//! * [`pane_aggregate`]: the same for windows that overlap, which share their panes.

pub mod window_form;

pub mod window_spec;

pub mod gate;

pub(crate) mod groups;

pub(crate) mod ordered;

pub mod window_start;

pub mod codes;

pub mod window_partial;

pub mod spill;

pub(crate) mod window_state;

pub mod window_aggregate;

pub(crate) mod pane_keys;

pub(crate) mod sliding;

pub mod pane_aggregate;

pub use codes::coded_text;
pub use gate::{BAD, GateColumns, GateExec, GateLimits, LATE, PARTLY_LATE, message_fields, rejected_fields};
pub use groups::check_aggregates;
pub use pane_aggregate::PaneAggregate;
pub use spill::Spill;
pub use window_aggregate::{WindowAggregate, window_operator};
pub use window_form::{WindowEnd, WindowForm};
pub use window_partial::WindowPartialExec;
pub use window_spec::{Below, Edge, WindowSpec, Windows};
pub use window_start::{WindowStartExpr, scaled, window_starts};
pub use window_state::StateAccount;
