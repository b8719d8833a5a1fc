//! What went wrong, whose turn it is, and, for storage, whether it may have happened all the same.
//!
//! Every message says what, where and what to do. The kinds are few and each asks for one thing:
//!
//! | kind | whose turn |
//! |---|---|
//! | [`Error::Sql`] | the author of the SQL: it points at line and column |
//! | [`Error::Input`] | the user: a setting, a path, a file's content |
//! | [`Error::Storage`] | the environment: try again, or mend access; [`Effect`] says what is known |
//! | [`Error::Fenced`] | nobody: another runner of the job took over |
//! | [`Error::Stopped`] | the operator: going on could lose or double facts |
//! | [`Error::Resources`] | the operator: a limit was reached |
//! | [`Error::Bug`] | us |

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a request that failed may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It did not happen.
    None,
    /// It may have happened: read back before trying again.
    Unknown,
}

/// A place in a SQL text, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}{message}", at.map(|p| format!("{p}: ")).unwrap_or_default())]
    Sql { message: String, at: Option<Place> },

    #[error("{0}")]
    Input(String),

    #[error("{what} {location}: {source}{}{}", match effect { Effect::None => "", Effect::Unknown => " (it may have taken effect)" }, way_out(source.as_ref()))]
    Storage { what: String, location: String, effect: Effect, source: Box<dyn std::error::Error + Send + Sync> },

    #[error("another runner took over job {job}: {message}")]
    Fenced { job: String, message: String },

    #[error("stopped: {0}")]
    Stopped(String),

    #[error("{0}")]
    Resources(String),

    #[error("this is a fault in Watershed, please report it: {0}")]
    Bug(String),
}

/// What to do about a storage error, where that is known.
fn way_out(source: &(dyn std::error::Error + Send + Sync)) -> &'static str {
    // By text, for stores wrap the operating system's error in their own, each in another way.
    match source.to_string() {
        text if text.contains("No space left on device") || text.contains("Disk quota exceeded") => {
            "; the disk is full: make room and run again, which goes on from the last checkpoint"
        }
        _ => "",
    }
}

impl Error {
    pub fn sql(message: impl Into<String>) -> Self {
        Error::Sql { message: message.into(), at: None }
    }

    pub fn sql_at(message: impl Into<String>, at: Option<Place>) -> Self {
        Error::Sql { message: message.into(), at }
    }

    pub fn input(message: impl Into<String>) -> Self {
        Error::Input(message.into())
    }

    pub fn stopped(message: impl Into<String>) -> Self {
        Error::Stopped(message.into())
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Error::Bug(message.into())
    }

    /// A storage error that certainly had no effect (reads, or refused before sending).
    pub fn storage(
        what: impl Into<String>,
        location: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::Storage { what: what.into(), location: location.into(), effect: Effect::None, source: source.into() }
    }

    /// A storage error of a write whose effect is not known.
    pub fn storage_unknown(
        what: impl Into<String>,
        location: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::Storage { what: what.into(), location: location.into(), effect: Effect::Unknown, source: source.into() }
    }

    /// The process exit code that stands for this kind; documented in `watershed --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Sql { .. } | Error::Input(_) => 2,
            Error::Storage { .. } => 3,
            Error::Stopped(_) => 4,
            Error::Fenced { .. } => 5,
            Error::Resources(_) => 6,
            Error::Bug(_) => 70,
        }
    }
}
