//! Which files a position says have been read: for those who compute a view again from the same facts, or ask what is left.

use watershed_core::Result;
use watershed_core::cut;
use watershed_core::epoch::Position;
use watershed_core::history::{DataFile, Snapshot};

use crate::checkpoint::Checkpoints;
use crate::job::Input;
use crate::sources::{by_pieces, grown, pin_at};

/// The files, and pieces of files, of the pinned version that have been read. Those of a version that is gone are an error.
pub async fn read_so_far(input: &Input, position: &Position, checkpoints: &Checkpoints) -> Result<Vec<DataFile>> {
    if position.version.is_none() {
        return Ok(vec![]);
    }
    let mut snapshot = pin_at(input, position, checkpoints).await?;
    by_pieces(input, &mut snapshot, position).await?;
    cut::settle(&mut snapshot, position);
    let timeless = if position.timeless_read { snapshot.timeless } else { vec![] };
    let read = snapshot.partitions.into_iter().filter(|p| p.interval.start < position.boundary).flat_map(|p| p.files);
    let pending = |file: &DataFile| position.pending.iter().any(|p| p.path == file.path && p.range == file.range);
    Ok(timeless.into_iter().chain(read).filter(|file| !pending(file)).collect())
}

/// A position as it would be in a newer version of its history: what came to partitions that had been read is pending there.
pub async fn brought_to(
    input: &Input,
    position: &Position,
    now: &Snapshot,
    checkpoints: &Checkpoints,
) -> Result<Position> {
    let Some(then) = position.version.clone().filter(|then| *then != now.version) else { return Ok(position.clone()) };
    let grown = grown(input, then, position, now, checkpoints).await?;
    let pending = position.pending.iter().cloned().chain(grown.pending).collect();
    Ok(Position { pending, boundary: grown.boundary, cut: grown.cut, ..position.clone() })
}
