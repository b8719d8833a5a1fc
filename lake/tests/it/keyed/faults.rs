//! Every operation of a keyed commit fails in turn: before its effect, after it, or with the process. The table is the map
//! that it should be all the time, and each epoch is in it once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use watershed_core::Error;
use watershed_core::sink::{CommitIdentity, Committed, PreparedCommit, Sink};
use watershed_lake::{DeltaSink, Fault, FaultPlan, FaultStore, KeySpec, Merge, Stores, TableSpec, WriteMode};

use super::memory::{Memory, Row};
use super::model::Model;
use super::*;
use crate::fixtures::{APP, DAY, identity};

/// How operations fail, and whether only those that write do: to a reader a lost answer is no answer, and between two writes
/// it makes no difference when a process dies.
pub(super) const FAULTS: [(Fault, bool); 4] =
    [(Fault::Before, false), (Fault::After, true), (Fault::CrashBefore, true), (Fault::CrashAfter, true)];

/// Comes back when the process of this store is dead.
pub(super) async fn death(faults: &FaultStore) {
    while !faults.crashed() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn up(key: i64, day: i64, sequence: i64) -> Op {
    Op { key, ts: day * DAY + key, value: sequence * 100 + key, sequence, delete: false }
}

pub(super) fn down(key: i64, day: i64, sequence: i64) -> Op {
    Op { delete: true, ..up(key, day, sequence) }
}

pub(super) fn sequenced() -> KeySpec {
    KeySpec { sequence_by: Some("n".into()), ..key() }
}

/// A table, and two epochs that are written to it while something fails.
#[derive(Clone)]
struct Script {
    by: &'static str,
    key: KeySpec,
    /// A log checkpoint every so many versions.
    checkpoints: &'static str,
    /// It keeps a change data feed.
    feed: bool,
    /// Epochs that are in the table already.
    setup: Vec<Vec<Op>>,
    epochs: [Vec<Op>; 2],
    /// What another commits between the second epoch's files and its commit.
    other: Vec<Op>,
    /// The first epoch's files are there; its commit is redone from what a checkpoint holds of it.
    redo: bool,
}

impl Script {
    fn new(setup: &[&[Op]], first: &[Op]) -> Script {
        Script {
            by: "",
            key: key(),
            checkpoints: "100",
            feed: false,
            setup: setup.iter().map(|ops| ops.to_vec()).collect(),
            epochs: [first.to_vec(), vec![up(1, 0, 50), down(2, 0, 51), up(7, 1, 52)]],
            other: vec![],
            redo: false,
        }
    }

    fn spec(&self) -> TableSpec {
        let mut properties = BTreeMap::from([("delta.checkpointInterval".to_string(), self.checkpoints.to_string())]);
        if self.feed {
            properties.insert("delta.enableChangeDataFeed".to_string(), "true".to_string());
        }
        TableSpec { properties, ..spec(self.by, self.key.clone()) }
    }

    async fn base(&self) -> Memory {
        let memory = Memory::new();
        if self.setup.is_empty() {
            return memory;
        }
        let sink = memory.sink(&memory.stores(), self.spec()).await.unwrap();
        for (epoch, ops) in (1..).zip(&self.setup) {
            put(&sink, epoch, ops).await;
        }
        memory
    }

    /// What the table is after each of its commits, the first state being that before all.
    fn states(&self) -> Vec<Vec<Row>> {
        let mut model = Model::default();
        let mut states = vec![vec![]];
        let [first, second] = &self.epochs;
        for ops in self.setup.iter().chain([first, &self.other, second]) {
            ops.iter().for_each(|op| model.take(&self.key, op));
            states.push(model.rows());
        }
        states
    }
}

/// What a checkpoint would say.
struct Progress {
    done: u64,
    doubt: Option<PreparedCommit>,
    other_done: bool,
}

struct Run<'a> {
    script: &'a Script,
    memory: &'a Memory,
    progress: Progress,
}

impl Run<'_> {
    /// One process's life; `Err` is its death or its complaint.
    async fn live(&mut self, stores: &Stores) -> Result<(), Error> {
        let first = self.script.setup.len() as u64 + 1;
        let mut sink: Option<DeltaSink> = None;
        while self.progress.done < first + 1 {
            let epoch = self.progress.done + 1;
            let sink = match &mut sink {
                Some(sink) => sink,
                None => sink.insert(self.memory.sink(stores, self.script.spec()).await?),
            };
            let prepared = match &self.progress.doubt {
                Some(prepared) => {
                    sink.verify(prepared).await?;
                    prepared.clone()
                }
                None => prepare(sink, &[self.script.epochs[(epoch - first) as usize].clone()]).await?,
            };
            self.progress.doubt = Some(prepared.clone());
            if epoch > first && !self.progress.other_done {
                self.other().await;
            }
            let after = (self.progress.done > 0).then_some(self.progress.done);
            let committed = sink.commit(&identity(epoch, after), &prepared, &BTreeMap::new()).await;
            self.check().await;
            let committed = match committed {
                Ok(committed) => committed,
                Err(_) => {
                    // The same sink is asked again first, as an engine may that goes on.
                    let was_in = self.memory.commits_of(APP).await.iter().any(|(_, e)| *e == epoch);
                    let again = sink.commit(&identity(epoch, after), &prepared, &BTreeMap::new()).await?;
                    assert_eq!(again == Committed::Before, was_in, "{again:?}");
                    again
                }
            };
            if let Committed::Now { version } = committed {
                assert!(self.memory.commits_of(APP).await.contains(&(version, epoch)), "{committed:?}");
            }
            let again = sink.commit(&identity(epoch, after), &prepared, &BTreeMap::new()).await?;
            assert_eq!(again, Committed::Before);
            (self.progress.done, self.progress.doubt) = (epoch, None);
        }
        Ok(())
    }

    async fn other(&mut self) {
        self.progress.other_done = true;
        if self.script.other.is_empty() {
            return;
        }
        let sink = self.memory.sink(&self.memory.stores(), self.script.spec()).await.unwrap();
        let prepared = prepare(&sink, std::slice::from_ref(&self.script.other)).await.unwrap();
        let identity = CommitIdentity { application: "other".into(), epoch: 1, after: None };
        sink.commit(&identity, &prepared, &BTreeMap::new()).await.unwrap();
    }

    /// What a reader sees now is one of the states that there should be.
    async fn check(&self) {
        let seen = self.memory.rows(None).await;
        assert!(self.script.states().contains(&seen), "half done: {seen:?}");
    }
}

/// Runs a script with one fault; whether it came to that.
async fn with_fault(script: &Script, base: &Memory, redo: Option<&PreparedCommit>, plan: FaultPlan) -> bool {
    let memory = base.copied();
    let (stores, faults) = memory.faulty(plan);
    let progress = Progress { done: script.setup.len() as u64, doubt: redo.cloned(), other_done: false };
    let mut run = Run { script, memory: &memory, progress };
    let mut ended = tokio::select! {
        ended = run.live(&stores) => ended,
        () = death(&faults) => Err(Error::storage("died", "here", "")),
    };
    if let Err(e) = &ended {
        assert!(matches!(e, Error::Storage { .. }), "{e}");
        run.check().await;
        // Recovery: nothing is left but the store and what the checkpoint says.
        ended = run.live(&memory.stores()).await;
    }
    ended.unwrap();
    // Every version is one of the states, in their order, and each epoch is in once.
    let states = script.states();
    let mut at = 0;
    for version in script.setup.len() as u64..=memory.newest().await.unwrap() {
        let seen = memory.rows(Some(version)).await;
        let later = states[at..].iter().position(|state| *state == seen);
        at += later.unwrap_or_else(|| panic!("version {version} is {seen:?}"));
    }
    assert_eq!(&memory.rows(None).await, states.last().unwrap());
    let epochs: Vec<u64> = memory.commits_of(APP).await.into_iter().map(|(_, epoch)| epoch).collect();
    assert_eq!(epochs, (1..=script.setup.len() as u64 + 2).collect::<Vec<_>>());
    faults.counts().faults() > 0
}

/// Has every operation fail in every way, one run each.
async fn everywhere(name: &str, script: Script) {
    let base = script.base().await;
    let mut prepared = None;
    if script.redo {
        let sink = base.sink(&base.stores(), script.spec()).await.unwrap();
        prepared = Some(prepare(&sink, &[script.epochs[0].clone()]).await.unwrap());
    }
    let mut runs = 0;
    for (fault, writes_only) in FAULTS {
        for at in 0.. {
            println!("{name}: operation {at}, {fault:?}");
            let plan = FaultPlan { at: Some((at, fault)), writes_only, ..FaultPlan::default() };
            if !with_fault(&script, &base, prepared.as_ref(), plan).await {
                break;
            }
            runs += 1;
        }
    }
    println!("{name}: {runs} faults");
    assert!(runs > 40, "{name}: only {runs} operations");
}

fn two() -> Vec<Op> {
    vec![up(1, 0, 1), up(2, 0, 2), up(3, 1, 3), up(4, 1, 4)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upserts_survive_any_fault() {
    let first = [up(1, 0, 10), up(3, 1, 11), up(5, 0, 12)];
    everywhere("upserts", Script::new(&[&two(), &[up(2, 0, 5)]], &first)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_made_survives_any_fault() {
    everywhere("from nothing", Script::new(&[], &two())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_deletion_vector_survives_any_fault() {
    let script = Script::new(&[&two()], &[up(1, 0, 10)]);
    everywhere("first vector", Script { checkpoints: "2", ..script }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_survive_any_fault() {
    // One file loses its last row, one some, and one key is not there.
    let first = [down(1, 0, 10), down(2, 0, 11), down(3, 1, 12), down(9, 0, 13), up(6, 0, 14)];
    everywhere("deletes", Script::new(&[&two(), &[up(2, 0, 5)]], &first)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_survive_any_fault() {
    // Some come too late: for a row, and for a deletion.
    let first = [up(1, 0, 10), down(3, 1, 2), up(2, 0, 6), down(9, 1, 20), up(4, 0, 3), up(5, 1, 9), up(5, 0, 8)];
    let script = Script::new(&[&two(), &[down(2, 0, 7), up(8, 1, 8)]], &first);
    let other = vec![up(7, 0, 60), up(9, 0, 19), down(1, 1, 49)];
    everywhere("sequences", Script { key: sequenced(), other, ..script }).await;
}

/// Files that are written when a commit is made: merged and copied rows, and change files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_at_the_commit_survives_any_fault() {
    let keeping = |op: Op| Op { value: -1, ..op };
    let first = [keeping(up(1, 0, 10)), keeping(up(3, 1, 11)), up(2, 1, 12), down(4, 1, 13), keeping(up(5, 0, 14))];
    let other = vec![keeping(up(1, 0, 20)), up(7, 1, 21), down(3, 1, 22)];
    let script = Script { feed: true, by: "day(ts)", other, ..Script::new(&[&two()], &first) };
    let partial = KeySpec { merge: Merge::Partial, ..key() };
    let copies = KeySpec { write_mode: WriteMode::CopyOnWrite, ..key() };
    let both = KeySpec { write_mode: WriteMode::CopyOnWrite, ..partial.clone() };
    for (name, key) in [("partial", partial), ("copies", copies), ("partial copies", both)] {
        everywhere(name, Script { key, ..script.clone() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_between_partitions_survive_any_fault() {
    let first = [up(1, 1, 10), up(3, 0, 11), up(4, 2, 12)];
    let script = Script::new(&[&two(), &[up(2, 1, 5)]], &first);
    everywhere("moves", Script { by: "day(ts)", ..script }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_races_survive_any_fault() {
    let script = Script::new(&[&two()], &[up(2, 0, 10), up(5, 0, 11)]);
    // The other takes rows from the files that the second epoch marks, and adds keys that it has.
    let other = vec![up(1, 0, 20), up(7, 1, 21), down(3, 1, 22)];
    everywhere("lost races", Script { other, by: "id", ..script.clone() }).await;
    everywhere("lost races in one group", Script { other: vec![up(2, 0, 23), down(1, 0, 24)], ..script }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redone_commits_survive_any_fault() {
    let first = [up(1, 0, 10), down(3, 1, 12), up(2, 0, 6), up(5, 0, 9)];
    let script = Script::new(&[&two(), &[down(2, 0, 7)]], &first);
    everywhere("redone", Script { key: sequenced(), redo: true, ..script.clone() }).await;
    everywhere("redone by day", Script { by: "day(ts)", redo: true, checkpoints: "1", ..script }).await;
}

/// What was asked between two commits must not make the second one forget where it stands.
#[tokio::test]
async fn a_writer_may_be_asked_how_far_it_is() {
    let memory = Memory::new();
    let sink = memory.sink(&memory.stores(), spec("", key())).await.unwrap();
    put(&sink, 1, &two()).await;
    put(&sink, 2, &[up(1, 0, 10)]).await;
    assert_eq!(sink.last_committed(APP).await.unwrap().unwrap().epoch, 2);
    put(&sink, 3, &[up(1, 0, 11), up(2, 0, 12)]).await;
    let other = memory.sink(&memory.stores(), spec("", key())).await.unwrap();
    let prepared = prepare(&other, &[vec![up(1, 0, 13), down(3, 1, 14)]]).await.unwrap();
    let theirs = CommitIdentity { application: "other".into(), epoch: 1, after: None };
    other.commit(&theirs, &prepared, &BTreeMap::new()).await.unwrap();
    assert_eq!(sink.last_committed(APP).await.unwrap().unwrap().epoch, 3);
    put(&sink, 4, &[up(1, 0, 15), up(3, 0, 16)]).await;
    let keys: Vec<i64> = memory.rows(None).await.into_iter().map(|row| row.0).collect();
    assert_eq!((keys, memory.rows(None).await[0]), (vec![1, 2, 3, 4], (1, 1, 1501, 15)));
    assert_eq!(memory.entry(0).await.iter().filter(|a| a["metaData"] != json!(null)).count(), 1);
}
