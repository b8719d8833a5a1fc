//! A job whose messages are played back: whether that comes out right, and the runtime set to it.

use watershed_core::settings::Late;
use watershed_core::{Error, Result};
use watershed_runtime::{PlayedBack, ReadList};

use super::made::{Made, context};
use super::{Output, Planned};
use crate::engine::{Engine, RunOptions};

impl Planned {
    /// The sources that have a log.
    pub(crate) fn logs(&self) -> Vec<String> {
        let logs = self.known.sources.values().filter(|source| source.tail.is_some());
        logs.map(|source| source.name.clone()).collect()
    }
}

/// Errors unless facts that come long after their neighbours leave the job's result right.
pub(crate) fn check_playback(planned: &Planned) -> Result<()> {
    let refuse = |because: &str| Err(Error::input(format!("job {}: {because}", planned.name)));
    if planned.settings.late == Late::Repair && !planned.lowered.stages.is_empty() {
        return refuse(
            "its windows are put right from the history (late = 'repair'), which would not have the messages: play them back into \
             the archive of the log, and build the view anew with CREATE OR REPLACE",
        );
    }
    let by_time = planned.known.sources.values().find(|s| s.tail.as_ref().is_some_and(|tail| !tail.key().is_empty()));
    if let Some(source) = by_time {
        return refuse(&format!(
            "source {} is joined with its log by event time (key = '…'), so whether its table has these messages already is not known; \
             write them to the log once more instead",
            source.name
        ));
    }
    match &planned.output {
        Output::Table { spec, .. } if spec.key.as_ref().is_some_and(|key| key.sequence_by.is_none()) => refuse(
            "its table has a key and no sequence_by, so an old message would take the place of what newer ones have written; write \
             them to the log once more instead",
        ),
        _ => Ok(()),
    }
}

/// Plays back what can be read now, or only says what that would be.
pub(crate) async fn play_back(
    engine: &Engine,
    options: &RunOptions,
    made: Made,
    list: &ReadList,
    dry_run: bool,
) -> Result<PlayedBack> {
    let _writing = made.writing;
    match dry_run {
        true => watershed_runtime::try_back(&made.job, list).await,
        false => watershed_runtime::play_back(made.job, list, &context(engine, options, made.tasks)).await,
    }
}
