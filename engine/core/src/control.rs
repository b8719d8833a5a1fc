//! What an operator asked of a job from outside: other limits, a pause, a stop.
//!
//! It is kept as one small object beside the job's checkpoints, which a live run reads every second and the next run reads
//! when it starts (`docs/formats/checkpoint.md`). What is altered counts above everything that the statement, its text, flags
//! and the environment say, until it is taken back: whoever slows down a job at noon does not want its nightly script to
//! undo that.
//!
//! Invariant: a stop is for the run that is live when it is asked for; a run ignores the one it finds when it starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::time::EventTime;

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// The settings that can be altered while a job runs.
pub const ALTERABLE: [&str; 3] = ["throttle_rows", "throttle_bytes", "schedule"];

/// What takes a limit away, and what takes an alteration back.
const NONE: &str = "none";
const DEFAULT: &str = "default";

/// What is asked of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    pub format: u32,
    /// Which request this is; a run that has read it says so by this id.
    pub id: Uuid,
    /// Wall time of the request, by the clock of whoever asked.
    pub asked: i64,
    /// Since when the job is to rest, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<i64>,
    /// Set anew by each request to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Uuid>,
    /// Settings by name, as text; `null` is no limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub altered: BTreeMap<String, Option<String>>,
}

/// A live run's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub format: u32,
    /// The request that was read.
    pub id: Uuid,
    /// The run that did.
    pub attempt: Uuid,
    /// Wall time, in microseconds.
    pub at: i64,
}

impl Control {
    /// Alters a setting, or takes an alteration back; tells what is wrong with a name or a value.
    pub fn alter(&mut self, name: &str, value: &str) -> Result<()> {
        if !ALTERABLE.contains(&name) {
            return Err(Error::input(format!(
                "{name} cannot be altered while a job runs; what can are {}",
                ALTERABLE.join(", ")
            )));
        }
        match value.trim() {
            DEFAULT => {
                self.altered.remove(name);
            }
            NONE => {
                self.altered.insert(name.to_string(), None);
            }
            value => {
                Settings::default().set(name, value)?;
                self.altered.insert(name.to_string(), Some(value.to_string()));
            }
        }
        Ok(())
    }

    /// The settings with what was altered. Alterations that this version does not know are passed over.
    pub fn over(&self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        for (name, value) in &self.altered {
            match (name.as_str(), value) {
                ("throttle_rows", None) => settings.throttle_rows = None,
                ("throttle_bytes", None) => settings.throttle_bytes = None,
                ("schedule", None) => settings.schedule = None,
                (name, Some(value)) if ALTERABLE.contains(&name) => {
                    // It was checked when it was asked for.
                    let _ = settings.set(name, value);
                }
                _ => {}
            }
        }
        settings
    }

    /// The alterations in words; empty without any.
    pub fn words(&self) -> String {
        let word = |(name, value): (&String, &Option<String>)| format!("{name} = {}", value.as_deref().unwrap_or(NONE));
        self.altered.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    pub fn paused_since(&self) -> Option<EventTime> {
        self.paused.map(EventTime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_altered_counts_until_it_is_taken_back() {
        let settings = Settings { throttle_rows: Some(5), ..Settings::default() };
        let mut control = Control::default();
        assert_eq!(control.over(&settings), settings);
        control.alter("throttle_rows", "7").unwrap();
        control.alter("schedule", "22:00-06:00").unwrap();
        assert_eq!(control.over(&settings).throttle_rows, Some(7));
        assert_eq!(control.over(&settings).schedule, Some("22:00-06:00".parse().unwrap()));
        assert_eq!(control.words(), "schedule = 22:00-06:00, throttle_rows = 7");
        control.alter("throttle_rows", "none").unwrap();
        assert_eq!(control.over(&settings).throttle_rows, None);
        control.alter("throttle_rows", "default").unwrap();
        control.alter("schedule", "default").unwrap();
        assert_eq!((control.over(&settings), control.words()), (settings, String::new()));
    }

    #[test]
    fn only_what_can_be_altered_is() {
        let error = |name: &str, value: &str| Control::default().alter(name, value).unwrap_err().to_string();
        assert!(error("parallelism", "3").contains("what can are throttle_rows, throttle_bytes, schedule"));
        assert!(error("throttle_rows", "fast").contains("expected a number above zero"));
        assert!(error("schedule", "at night").contains("no time zone"));
    }

    #[test]
    fn reads_what_it_wrote() {
        let mut control = Control { format: FORMAT, paused: Some(7), ..Control::default() };
        control.alter("throttle_bytes", "none").unwrap();
        let text = serde_json::to_string(&control).unwrap();
        assert_eq!(serde_json::from_str::<Control>(&text).unwrap(), control);
    }
}
