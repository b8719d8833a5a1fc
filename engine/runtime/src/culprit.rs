//! Which file it was. A step reads many files at once, and the reader's errors do not name theirs: when a step fails, its files
//! are read again one by one until one of them fails alone.
//!
//! Costs nothing while all is well, and no more than the step when it is not. An error that already names a file of the
//! step is left as it is, and so is one that no file gives alone.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use futures::StreamExt;
use watershed_core::history::DataFile;
use watershed_core::{Error, Result};

use crate::fragment::Running;
use crate::job::Graph;
use crate::sources::Step;

/// The error of a step with the name of the file that gave it, if one did.
pub(crate) async fn named(graph: &Graph, step: &Step, tasks: &Arc<TaskContext>, error: Error) -> Error {
    let Error::Input(message) = error else { return error };
    let files: Vec<(usize, usize, &DataFile)> =
        (0..).zip(&step.reads).flat_map(|(input, files)| (0..).zip(files).map(move |(i, f)| (input, i, f))).collect();
    if files.iter().any(|(_, _, file)| message.contains(&file.path)) {
        return Error::Input(message);
    }
    for (input, i, file) in files {
        if let Err(Error::Input(found)) = alone(graph, step, input, i, tasks).await {
            return Error::input(format!(
                "file {}: {found}; if the file is damaged, write it anew or take it away, then run again: nothing of this \
                 slice was kept",
                file.path
            ));
        }
    }
    Error::Input(message)
}

/// Reads one file of a step to its end, and drops what comes.
async fn alone(graph: &Graph, step: &Step, input: usize, file: usize, tasks: &Arc<TaskContext>) -> Result<()> {
    let reads = (0..).zip(&step.reads).map(|(i, files)| match i == input {
        true => vec![files[file].clone()],
        false => vec![],
    });
    let deleted = (0..).zip(&step.deleted).map(|(i, marks)| match (i == input, marks.get(file)) {
        (true, Some(marks)) => vec![marks.clone()],
        _ => vec![],
    });
    let step = Step { reads: reads.collect(), deleted: deleted.collect(), ..step.clone() };
    let running = Running::start(graph, step, tasks)?;
    for mut stream in running.streams {
        while let Some(batch) = stream.next().await {
            batch.map_err(crate::in_engine)?;
        }
    }
    Ok(())
}
