//! The aggregate of a run of panes that moves forward: windows that overlap share the work of merging.
//!
//! A window is merged from two halves, as a queue is made from two stacks (Tangwongsan, Hirzel, Schneider: *Low-latency
//! sliding-window aggregation in worst-case constant time*, the amortised form). The *front* holds, for each of the older
//! panes, that pane with all newer ones of the front; the *back* one aggregate of all panes since. When the front is used
//! up the back is turned into a new one. So a window costs a handful of merges, however many panes it has, and no
//! aggregate has to know how to subtract.
//!
//! Partial states are merged by the number of their key (see [`crate::pane_keys`]), so nothing is hashed here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use watershed_core::EventTime;
use watershed_core::time::Interval;

use crate::groups::accumulators;

/// Partial states of some keys, each once.
#[derive(Clone)]
pub(crate) struct Partials {
    /// The number of each row's key.
    pub(crate) keys: Vec<u32>,
    /// The state columns of all aggregates side by side.
    pub(crate) states: Vec<ArrayRef>,
}

impl Partials {
    pub(crate) fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|s| s.get_array_memory_size()).sum();
        states + self.keys.capacity() * size_of::<u32>()
    }
}

/// Keys, and accumulators with a group for each, in the same order.
type Combined = (Vec<u32>, Vec<Box<dyn GroupsAccumulator>>);

/// The moving run.
pub(crate) struct Sliding {
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// State columns of each aggregate, by type.
    states: Vec<Vec<DataType>>,
    /// Older panes, the oldest last; each with all newer ones of the front.
    front: Vec<(EventTime, Partials)>,
    /// The panes since, and all of them together.
    back: Vec<EventTime>,
    total: Option<Partials>,
    /// The first pane that was not taken yet.
    next: EventTime,
    /// For each key's number, its place in the result being made; all unset between two.
    places: Vec<u32>,
}

const UNSET: u32 = u32::MAX;

impl Sliding {
    /// `states` are the types of each aggregate's state columns.
    pub(crate) fn new(aggregates: Vec<Arc<AggregateFunctionExpr>>, states: Vec<Vec<DataType>>) -> Self {
        let (front, back, places) = (vec![], vec![], vec![]);
        Sliding { aggregates, states, front, back, total: None, next: EventTime::MIN, places }
    }

    /// Forgets what it knows of panes: one of them changed, or keys got other numbers.
    pub(crate) fn reset(&mut self) {
        self.front.clear();
        self.back.clear();
        self.total = None;
        self.next = EventTime::MIN;
        self.places.clear();
    }

    /// Whether a change of a pane would go unnoticed.
    pub(crate) fn has_taken(&self, pane: EventTime) -> bool {
        pane < self.next
    }

    pub(crate) fn bytes(&self) -> usize {
        let front: usize = self.front.iter().map(|(_, p)| p.bytes()).sum();
        front + self.total.as_ref().map_or(0, Partials::bytes) + self.places.capacity() * size_of::<u32>()
    }

    /// The keys and results of a window, given all panes in it; windows come in order of their ends.
    pub(crate) fn window(
        &mut self,
        window: Interval,
        panes: &BTreeMap<EventTime, Partials>,
    ) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        while self.front.last().is_some_and(|(pane, _)| *pane < window.start) {
            self.front.pop();
        }
        if self.front.is_empty() && self.back.first().is_some_and(|pane| *pane < window.start) {
            self.turn(window.start, panes)?;
        }
        for (pane, partials) in panes.range(self.next.max(window.start)..window.end) {
            self.total = Some(match self.total.take() {
                Some(total) => self.merged(&[&total, partials])?,
                None => partials.clone(),
            });
            self.back.push(*pane);
        }
        self.next = self.next.max(window.end);
        let front = self.front.pop();
        let total = self.total.take();
        let parts: Vec<&Partials> = front.iter().map(|(_, p)| p).chain(&total).collect();
        let combined = self.combine(&parts);
        (self.total, _) = (total, self.front.extend(front));
        let (keys, mut accumulators) = combined?;
        let results = accumulators.iter_mut().map(|a| a.evaluate(EmitTo::All)).collect::<Result<_>>()?;
        Ok((keys, results))
    }

    /// Makes a new front of the back's panes from `start` on.
    fn turn(&mut self, start: EventTime, panes: &BTreeMap<EventTime, Partials>) -> Result<()> {
        self.total = None;
        for pane in std::mem::take(&mut self.back).into_iter().rev().filter(|pane| *pane >= start) {
            let Some(partials) = panes.get(&pane) else { continue };
            let with_newer = match self.front.pop() {
                Some(newer) => {
                    let merged = self.merged(&[partials, &newer.1]);
                    self.front.push(newer);
                    merged?
                }
                None => partials.clone(),
            };
            self.front.push((pane, with_newer));
        }
        Ok(())
    }

    /// Partials of several runs as one.
    fn merged(&mut self, parts: &[&Partials]) -> Result<Partials> {
        let (keys, accumulators) = self.combine(parts)?;
        let mut states = vec![];
        for (mut accumulator, types) in accumulators.into_iter().zip(&self.states) {
            for (state, kind) in accumulator.state(EmitTo::All)?.into_iter().zip(types) {
                // Accumulators may answer with another type than they take, such as a view.
                states.push(if state.data_type() == kind { state } else { cast(&state, kind)? });
            }
        }
        Ok(Partials { keys, states })
    }

    fn combine(&mut self, parts: &[&Partials]) -> Result<Combined> {
        let mut accumulators = accumulators(&self.aggregates)?;
        let mut keys: Vec<u32> = vec![];
        let mut merge = |places: &mut Vec<u32>| -> Result<()> {
            for part in parts {
                let place = part.keys.iter().map(|key| {
                    let at = *key as usize;
                    if places.len() <= at {
                        places.resize(at + 1, UNSET);
                    }
                    if places[at] == UNSET {
                        places[at] = keys.len() as u32;
                        keys.push(*key);
                    }
                    places[at] as usize
                });
                let place: Vec<usize> = place.collect();
                let mut states = &part.states[..];
                for (accumulator, types) in accumulators.iter_mut().zip(&self.states) {
                    let (mine, rest) = states.split_at(types.len());
                    accumulator.merge_batch(mine, &place, keys.len())?;
                    states = rest;
                }
            }
            Ok(())
        };
        let done = merge(&mut self.places);
        for key in &keys {
            self.places[*key as usize] = UNSET;
        }
        done.map(|()| (keys, accumulators))
    }
}
