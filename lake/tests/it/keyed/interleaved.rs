//! Two writers, a compaction that is run again and again, and a reader, over stores that wait and fail at random: every
//! version is what its commits make of a map, whatever the order in which they won, and so is all that the reader saw.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use watershed_core::Error;
use watershed_core::clock::{SystemClock, mix};
use watershed_core::sink::{CommitIdentity, PreparedCommit, Sink};
use watershed_lake::upkeep::{CompactOptions, compact};
use watershed_lake::{DeltaSink, FaultPlan, FaultStore, KeySpec, Stores};

use super::faults::sequenced;
use super::memory::{Around, Memory, Row, rows_in};
use super::model::Model;
use super::*;
use crate::fixtures::DAY;

const EPOCHS: u64 = 10;

/// Draws from a seed, for several tasks at once.
#[derive(Clone)]
struct Dice(Arc<(u64, AtomicU64)>);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(Arc::new((mix(seed), AtomicU64::new(0))))
    }

    fn below(&self, n: u64) -> u64 {
        mix(self.0.0 ^ mix(self.0.1.fetch_add(1, Ordering::Relaxed))) % n
    }
}

struct World {
    memory: Memory,
    by: &'static str,
    key: KeySpec,
    seed: u64,
    /// What each application's epochs do.
    epochs: HashMap<(String, u64), Vec<Op>>,
    written: AtomicBool,
}

impl World {
    fn new(seed: u64) -> World {
        let dice = Dice::new(seed);
        let by = ["", "", "day(ts)", "id"][dice.below(4) as usize];
        let key = if dice.below(2) == 0 { sequenced() } else { key() };
        let mut epochs = HashMap::new();
        // No two changes have the same sequence, and it has nothing to do with when they come.
        let mut number = 0;
        for writer in 0..2 {
            for epoch in 1..=EPOCHS {
                let ops = (0..1 + dice.below(7)).map(|_| {
                    number += 1;
                    let (key, day) = (dice.below(12) as i64, dice.below(3) as i64);
                    let sequence = number * 37 % 1009;
                    let delete = dice.below(4) == 0;
                    Op { key, ts: day * DAY + key, value: number, sequence, delete }
                });
                epochs.insert((application(writer), epoch), ops.collect());
            }
        }
        World { memory: Memory::new(), by, key, seed, epochs, written: AtomicBool::new(false) }
    }

    /// Stores of one of them, which wait, and fail now and then.
    fn stores(&self, of: u64, faults: f64) -> Stores {
        let dice = Dice::new(self.seed * 100 + of);
        let plan = FaultPlan { seed: self.seed * 100 + of, before: faults, after: faults, ..FaultPlan::default() };
        self.memory.within(move |inner| {
            let dice = dice.clone();
            let before = Arc::new(move |_: &_| match dice.below(6) {
                0 => tokio::time::sleep(Duration::from_micros(dice.below(1500))).boxed(),
                1 => tokio::task::yield_now().boxed(),
                _ => std::future::ready(()).boxed(),
            });
            Arc::new(Around::new(Arc::new(FaultStore::new(inner, plan.clone())), before))
        })
    }

    /// A writer that is broken off, fails and starts anew, but gets all of its epochs in.
    async fn write(&self, writer: u64) {
        let (stores, dice) = (self.stores(writer, 0.01), Dice::new(self.seed * 100 + 50 + writer));
        let (mut done, mut doubt, mut sink) = (0, None, None);
        while done < EPOCHS {
            let epoch = self.epoch(writer, &stores, &mut done, &mut doubt, &mut sink);
            // Mostly it has the time.
            let limit = Duration::from_micros(if dice.below(4) == 0 { dice.below(6000) } else { 60_000_000 });
            match tokio::time::timeout(limit, epoch).await {
                Ok(Ok(())) => continue,
                Ok(Err(e)) => assert!(matches!(e, Error::Storage { .. }), "{e}"),
                Err(_) => {}
            }
            if dice.below(2) == 0 {
                sink = None;
            }
        }
    }

    async fn epoch(
        &self,
        writer: u64,
        stores: &Stores,
        done: &mut u64,
        doubt: &mut Option<PreparedCommit>,
        sink: &mut Option<DeltaSink>,
    ) -> Result<(), Error> {
        let sink = match sink {
            Some(sink) => sink,
            None => sink.insert(self.memory.sink(stores, spec(self.by, self.key.clone())).await?),
        };
        let identity =
            CommitIdentity { application: application(writer), epoch: *done + 1, after: (*done > 0).then_some(*done) };
        let prepared = match doubt {
            Some(prepared) => {
                sink.verify(prepared).await?;
                prepared
            }
            None => {
                let ops = &self.epochs[&(identity.application.clone(), identity.epoch)];
                doubt.insert(prepare(sink, std::slice::from_ref(ops)).await?)
            }
        };
        sink.commit(&identity, prepared, &BTreeMap::new()).await?;
        (*done, *doubt) = (identity.epoch, None);
        Ok(())
    }

    async fn keep(&self) {
        let stores = self.stores(2, 0.005);
        let options = CompactOptions { dead_rows: 0.0001, ..CompactOptions::default() };
        while !self.written.load(Ordering::Relaxed) {
            match compact(&stores, self.memory.at(), options.clone(), &SystemClock::default()).await {
                Ok(_) => {}
                Err(e) => assert!(matches!(e, Error::Storage { .. }), "{e}"),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn read(&self) -> Vec<(u64, Vec<Row>)> {
        let stores = self.stores(3, 0.0);
        let mut seen: Vec<(u64, Vec<Row>)> = vec![];
        while !self.written.load(Ordering::Relaxed) {
            let now = rows_in(&stores, self.memory.at(), None).await.unwrap();
            assert!(seen.last().is_none_or(|before| before.0 <= now.0), "version {} after {:?}", now.0, seen.last());
            seen.push(now);
        }
        seen
    }

    /// What each version is, by the commits that won.
    async fn states(&self) -> Vec<Vec<Row>> {
        let mut states = vec![];
        let (mut model, mut left) = (Model::default(), self.epochs.clone());
        for version in 0..=self.memory.newest().await.unwrap() {
            for txn in self.memory.entry(version).await.iter().filter_map(|action| action.get("txn")) {
                let of = (txn["appId"].as_str().unwrap().to_string(), txn["version"].as_u64().unwrap());
                let ops = left.remove(&of).unwrap_or_else(|| panic!("{of:?} is in twice"));
                ops.iter().for_each(|op| model.take(&self.key, op));
            }
            states.push(model.rows());
        }
        assert!(left.is_empty(), "not in: {left:?}");
        states
    }

    async fn run(&self) -> (usize, usize) {
        // A reader wants a table.
        drop(self.memory.sink(&self.memory.stores(), spec(self.by, self.key.clone())).await.unwrap());
        let writers = async {
            tokio::join!(self.write(0), self.write(1));
            self.written.store(true, Ordering::Relaxed);
        };
        let ((), (), seen) = tokio::join!(writers, self.keep(), self.read());
        let states = self.states().await;
        for (version, rows) in &seen {
            assert_eq!(rows, &states[*version as usize], "what the reader saw of version {version}");
        }
        for (version, state) in states.iter().enumerate() {
            assert_eq!(&self.memory.rows(Some(version as u64)).await, state, "version {version}");
        }
        if self.key.sequence_by.is_some() {
            // One writer after the other comes to the same.
            let mut model = Model::default();
            let mut epochs: Vec<_> = self.epochs.iter().collect();
            epochs.sort_unstable_by_key(|(of, _)| *of);
            epochs.iter().flat_map(|(_, ops)| ops.iter()).for_each(|op| model.take(&self.key, op));
            assert_eq!(states.last(), Some(&model.rows()));
        }
        (states.len(), seen.len())
    }
}

fn application(writer: u64) -> String {
    format!("writer-{writer}")
}

/// A tenth as many runs as `WATERSHED_KEYED` asks of the map.
#[test]
fn writers_upkeep_and_readers_interleave() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cases: u64 = std::env::var("WATERSHED_KEYED").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let (mut versions, mut reads) = (0, 0);
    for seed in 0..cases.div_ceil(10) {
        println!("seed {seed}");
        let world = World::new(seed);
        let (made, seen) = runtime.block_on(world.run());
        (versions, reads) = (versions + made, reads + seen);
    }
    println!("{versions} versions, {reads} reads");
}
