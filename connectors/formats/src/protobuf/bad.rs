//! Why a message gives no row.
//!
//! Invariant: one word wide, so that what has no fault is not slowed by what might be said of one.

/// A message's fault.
#[derive(Debug)]
pub(super) struct Bad(Box<Fault>);

#[derive(Debug)]
struct Fault {
    reason: String,
    too_many: bool,
}

impl<S: Into<String>> From<S> for Bad {
    #[cold]
    fn from(reason: S) -> Self {
        Bad(Box::new(Fault { reason: reason.into(), too_many: false }))
    }
}

impl Bad {
    /// It is not the message's fault alone: a batch of fewer messages may do.
    pub(super) fn too_many(reason: &str) -> Self {
        Bad(Box::new(Fault { reason: reason.into(), too_many: true }))
    }

    pub(super) fn is_too_many(&self) -> bool {
        self.0.too_many
    }

    #[cold]
    pub(super) fn within(mut self, what: &str, name: &str) -> Self {
        self.0.reason = format!("{what} '{name}': {}", self.0.reason);
        self
    }

    pub(super) fn reason(self) -> String {
        self.0.reason
    }
}
