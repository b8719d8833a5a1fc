//! What others do while a table is compacted or written to, at every point where they can: marks are carried over, files that
//! went are left to whoever took them, and no row is lost or doubled.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use watershed_core::Error;
use watershed_core::clock::{SystemClock, mix};
use watershed_core::sink::{CommitIdentity, Committed, Sink};
use watershed_lake::upkeep::{CompactOptions, Compacted, RowOrder, compact};
use watershed_lake::{FaultPlan, KeySpec, Stores};

use super::faults::{FAULTS, death, down, sequenced, up};
use super::memory::{Memory, Row};
use super::model::Model;
use super::*;
use crate::fixtures::APP;

/// Everything that has a marked row is rewritten.
const ALL: CompactOptions = CompactOptions { target_file_size: 128 << 20, dead_rows: 0.0001, order: None };

#[derive(Clone)]
struct World {
    memory: Arc<Memory>,
    by: &'static str,
    key: KeySpec,
    model: Model,
}

impl World {
    async fn new(by: &'static str, key: KeySpec, epochs: &[Vec<Op>]) -> World {
        let memory = Memory::new();
        let sink = memory.sink(&memory.stores(), spec(by, key.clone())).await.unwrap();
        let mut model = Model::default();
        for (epoch, ops) in (1..).zip(epochs) {
            put(&sink, epoch, ops).await;
            ops.iter().for_each(|op| model.take(&key, op));
        }
        World { memory: Arc::new(memory), by, key, model }
    }

    fn copied(&self) -> World {
        World { memory: Arc::new(self.memory.copied()), ..self.clone() }
    }

    async fn compact(&self, stores: &Stores, options: CompactOptions) -> Result<Compacted, Error> {
        compact(stores, self.memory.at(), options, &SystemClock::default()).await
    }

    /// One commit of an application of its own.
    async fn write(&self, stores: &Stores, application: &str, ops: &[Op]) -> Result<Committed, Error> {
        let sink = self.memory.sink(stores, spec(self.by, self.key.clone())).await?;
        let prepared = prepare(&sink, &[ops.to_vec()]).await?;
        let identity = CommitIdentity { application: application.to_string(), epoch: 1, after: None };
        sink.commit(&identity, &prepared, &BTreeMap::new()).await
    }

    fn after(&self, each: &[&[Op]]) -> Vec<Row> {
        let mut model = self.model.clone();
        each.iter().flat_map(|ops| ops.iter()).for_each(|op| model.take(&self.key, op));
        model.rows()
    }

    /// As RESTORE does.
    async fn restore(&self, version: u64) {
        let newest = self.memory.newest().await.unwrap();
        let (now, then) = (self.live(newest).await, self.live(version).await);
        let other = |of: &BTreeMap<String, Value>, path: &str, add: &Value| {
            of.get(path).is_none_or(|of| of["deletionVector"] != add["deletionVector"])
        };
        let mut actions = vec![];
        for (path, add) in now.iter().filter(|(path, add)| other(&then, path, add)) {
            let mut remove = json!({"path": path, "dataChange": true, "deletionTimestamp": 1});
            if !add["deletionVector"].is_null() {
                remove["deletionVector"] = add["deletionVector"].clone();
            }
            actions.push(json!({ "remove": remove }));
        }
        let back = then.iter().filter(|(path, add)| other(&now, path, add));
        actions.extend(back.map(|(_, add)| json!({ "add": add })));
        self.memory.put_entry(newest + 1, &actions).await;
    }

    /// The files of a version, replayed by hand.
    async fn live(&self, version: u64) -> BTreeMap<String, Value> {
        let mut live = BTreeMap::new();
        for version in 0..=version {
            for remove in self.actions(version, "remove").await {
                live.remove(remove["path"].as_str().unwrap());
            }
            for add in self.actions(version, "add").await {
                live.insert(add["path"].as_str().unwrap().to_string(), add);
            }
        }
        live
    }

    async fn actions(&self, version: u64, name: &str) -> Vec<Value> {
        self.memory.entry(version).await.into_iter().filter_map(|action| action.get(name).cloned()).collect()
    }

    /// The table still takes what may come: a compaction, and a commit.
    async fn goes_on(&self, ops: &[&[Op]]) {
        assert_eq!(self.memory.rows(None).await, self.after(ops));
        self.compact(&self.memory.stores(), ALL).await.unwrap();
        assert_eq!(self.memory.rows(None).await, self.after(ops), "compacted again");
        let last = [up(1, 0, 90), down(2, 0, 91), up(30, 1, 92)];
        self.write(&self.memory.stores(), "last", &last).await.unwrap();
        let with_last: Vec<&[Op]> = ops.iter().copied().chain([&last[..]]).collect();
        assert_eq!(self.memory.rows(None).await, self.after(&with_last), "written to again");
    }
}

/// Four files, of which three have marked rows; keys 1 to 12.
fn epochs() -> Vec<Vec<Op>> {
    vec![
        (1..=6).map(|key| up(key, key % 2, key)).collect(),
        (7..=12).map(|key| up(key, key % 2, key)).chain([up(1, 1, 20)]).collect(),
        vec![up(2, 0, 21), down(7, 1, 22), up(13, 1, 23)],
        vec![up(13, 1, 24), up(8, 0, 25)],
    ]
}

async fn worlds() -> Vec<(&'static str, World)> {
    vec![
        ("plain", World::new("", key(), &epochs()).await),
        ("by day", World::new("day(ts)", key(), &epochs()).await),
        ("sequenced", World::new("", sequenced(), &epochs()).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_survives_any_fault() {
    for (name, base) in worlds().await {
        let before = base.memory.newest().await.unwrap();
        let mut runs = 0;
        for (fault, writes_only) in FAULTS {
            for at in 0.. {
                println!("{name}: operation {at}, {fault:?}");
                let world = base.copied();
                let plan = FaultPlan { at: Some((at, fault)), writes_only, ..FaultPlan::default() };
                let (stores, faults) = world.memory.faulty(plan);
                let ended = tokio::select! {
                    ended = world.compact(&stores, ALL) => Some(ended),
                    () = death(&faults) => None,
                };
                if faults.counts().faults() == 0 {
                    break;
                }
                runs += 1;
                for version in before..=world.memory.newest().await.unwrap() {
                    assert_eq!(world.memory.rows(Some(version)).await, world.after(&[]), "version {version}");
                }
                let made = world.memory.newest().await.filter(|version| *version > before);
                match ended {
                    Some(Ok(report)) => assert_eq!((report.version, report.yielded), (made, 0), "{report:?}"),
                    Some(Err(e)) => assert!(made.is_none() && matches!(e, Error::Storage { .. }), "{e}"),
                    None => {}
                }
                world.goes_on(&[]).await;
            }
        }
        assert!(runs > 25, "{name}: only {runs} operations");
    }
}

/// What others do.
type Meanwhile = Arc<dyn Fn(World) -> BoxFuture<'static, ()> + Send + Sync>;

fn writing(ops: &[Op]) -> Meanwhile {
    let ops = ops.to_vec();
    Arc::new(move |world| {
        let ops = ops.clone();
        async move {
            world.write(&world.memory.stores(), "meanwhile", &ops).await.unwrap();
        }
        .boxed()
    })
}

fn compacting() -> Meanwhile {
    Arc::new(|world| {
        async move {
            world.compact(&world.memory.stores(), ALL).await.unwrap();
        }
        .boxed()
    })
}

fn one_after_the_other(first: Meanwhile, second: Meanwhile) -> Meanwhile {
    Arc::new(move |world| {
        let (first, second) = (first(world.clone()), second(world));
        async move {
            first.await;
            second.await;
        }
        .boxed()
    })
}

/// Has something happen before each of a compaction's operations, one run each.
async fn beside_compaction(
    name: &str,
    base: &World,
    options: CompactOptions,
    ops: &[&[Op]],
    with: Meanwhile,
) -> Vec<Compacted> {
    let mut reports = vec![];
    for at in 0.. {
        println!("{name}: before operation {at} of a compaction");
        let world = base.copied();
        let before = world.memory.newest().await.unwrap();
        let (with, meanwhile) = (with.clone(), world.clone());
        let stores = world.memory.interrupted(at, move || with(meanwhile.clone()));
        let report = world.compact(&stores, options.clone()).await.unwrap();
        let newest = world.memory.newest().await.unwrap();
        if newest == before + u64::from(report.version.is_some()) {
            assert!(at > 10);
            break;
        }
        for version in before..=newest {
            let seen = world.memory.rows(Some(version)).await;
            let states = (0..=ops.len()).map(|n| world.after(&ops[..n])).collect::<Vec<_>>();
            assert!(states.contains(&seen), "version {version} is {seen:?}");
        }
        world.goes_on(ops).await;
        reports.push(report);
    }
    reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_made_meanwhile_are_carried_over() {
    let ops = [up(3, 1, 60), down(9, 1, 61), up(20, 0, 62), down(4, 0, 64)];
    for (name, base) in worlds().await {
        // Partition columns are not in the files.
        for order in
            [None, Some(RowOrder::Sorted(vec!["n".into()])), Some(RowOrder::ZOrder(vec!["n".into(), "v".into()]))]
        {
            let options = CompactOptions { order, ..ALL };
            let reports = beside_compaction(name, &base, options, &[&ops], writing(&ops)).await;
            // Marks alone never make a compaction of one file a partition yield, whenever they come.
            assert!(reports.iter().all(|report| report.files > 0 && report.version.is_some()), "{reports:?}");
        }
    }
}

/// Two inputs in several new files: a row's place in them is found by counting across both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_find_their_rows_in_several_new_files() {
    // Rows that were deleted are small, and those that are left are not: they take more than files of that size hold.
    let row = |key: i64, live: bool| {
        let random = |salt: u64| (mix(key as u64 ^ salt) >> 20) as i64 * i64::from(live);
        Op { key, ts: random(1), value: random(1 << 40), sequence: random(1 << 50), delete: false }
    };
    let file = |from: i64| (from..from + 10_000).map(|key| row(key, key % 5 == 0)).collect::<Vec<_>>();
    let gone =
        |from: i64| (from..from + 10_000).filter(|key| key % 5 != 0).map(|key| down(key, 0, 2)).collect::<Vec<_>>();
    let base = World::new("", key(), &[file(1), file(10_001), gone(1), gone(10_001)]).await;
    let options = CompactOptions { target_file_size: 40 << 10, dead_rows: 0.01, order: None };
    let alone = base.copied();
    let report = alone.compact(&alone.memory.stores(), options.clone()).await.unwrap();
    assert!(report.files == 2 && report.new_files > 1, "{report:?}");
    // All over the place, first and last rows among them.
    let keys =
        (1..=4000).map(|n| n * 5).filter(|key| key % 37 == 1 || [5, 10, 10_000, 10_005, 19_995, 20_000].contains(key));
    let ops: Vec<Op> = keys.map(|key| if key % 2 == 0 { up(key, 0, 60) } else { down(key, 0, 61) }).collect();
    for order in [None, Some(RowOrder::Sorted(vec!["v".into()]))] {
        let options = CompactOptions { order, ..options.clone() };
        let reports = beside_compaction("several", &base, options, &[&ops], writing(&ops)).await;
        assert!(reports.iter().all(|report| report.new_files > 1), "{reports:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_went_is_left_to_whoever_took_it() {
    // The last rows of the first file: it is removed, and the compaction's work on it is in vain.
    let ops: Vec<Op> = (3..=6).map(|key| up(key, key % 2, 60 + key)).collect();
    for (name, base) in worlds().await {
        let reports = beside_compaction(name, &base, ALL, &[&ops], writing(&ops)).await;
        assert!(reports.iter().any(|report| report.yielded > 0), "{name}: {reports:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_compactions_yields() {
    for (name, base) in worlds().await {
        let reports = beside_compaction(name, &base, ALL, &[], compacting()).await;
        assert!(reports.iter().any(|report| report.yielded > 0 && report.version.is_none()), "{name}: {reports:?}");
    }
}

/// A writer and a compaction, and then the writer's mark in the compacted file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_and_a_commit_get_in_between() {
    let ops = [up(3, 1, 60), down(9, 1, 61), up(20, 0, 62)];
    for (name, base) in worlds().await {
        beside_compaction(name, &base, ALL, &[&ops], one_after_the_other(compacting(), writing(&ops))).await;
    }
}

/// Has something happen before each operation of a keyed commit by a writer that has an index already, one run each.
async fn beside_commit(name: &str, base: &World, mine: &[Op], theirs: &[Op], with: Meanwhile) {
    for at in 0.. {
        println!("{name}: before operation {at} of a commit");
        let world = base.copied();
        let (with, meanwhile) = (with.clone(), world.clone());
        let happened = Arc::new(std::sync::Mutex::new(None));
        let told = happened.clone();
        let stores = world.memory.interrupted(at, move || {
            let (with, meanwhile, told) = (with.clone(), meanwhile.clone(), told.clone());
            async move {
                let before = meanwhile.memory.commits_of(APP).await.len();
                with(meanwhile).await;
                *told.lock().unwrap() = Some(before);
            }
            .boxed()
        });
        let sink = world.memory.sink(&stores, spec(world.by, world.key.clone())).await.unwrap();
        let first = base.memory.commits_of(APP).await.len();
        for (epoch, op) in (first as u64 + 1..).zip(mine) {
            put(&sink, epoch, std::slice::from_ref(op)).await;
        }
        let Some(before) = *happened.lock().unwrap() else {
            assert!(at > 10);
            break;
        };
        // Their commit came after so many of ours.
        let order = [&mine[..before - first], theirs, &mine[before - first..]];
        let own: Vec<u64> = world.memory.commits_of(APP).await.into_iter().map(|(_, epoch)| epoch).collect();
        assert_eq!(own, (1..=(first + mine.len()) as u64).collect::<Vec<_>>());
        world.goes_on(&order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_hold_whatever_comes_between_their_steps() {
    let mine = [up(3, 1, 50), up(4, 1, 51), up(3, 0, 52), down(20, 0, 53)];
    let theirs = [up(3, 1, 40), down(4, 0, 41), up(20, 0, 42), up(9, 0, 43)];
    for (name, base) in worlds().await {
        let both = one_after_the_other(writing(&theirs), compacting());
        // Each of them beside two kinds of tables.
        let meanwhile: [(&[Op], Meanwhile); 2] = match name {
            "plain" => [(&theirs, writing(&theirs)), (&[], compacting())],
            "by day" => [(&theirs, writing(&theirs)), (&theirs, both)],
            _ => [(&[], compacting()), (&theirs, both)],
        };
        for (theirs, with) in meanwhile {
            beside_commit(name, &base, &mine, theirs, with).await;
        }
    }
}

/// Another brings an earlier version back: what the compaction dropped as marked is not marked any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_brought_back_meanwhile_are_not_lost() {
    let epochs = epochs();
    let gone = [down(2, 0, 21), down(7, 1, 22)];
    let base = World::new("", key(), &[epochs[0].clone(), epochs[1].clone(), gone.to_vec()]).await;
    let restoring: Meanwhile = Arc::new(|world| async move { world.restore(2).await }.boxed());
    let expected = base.memory.rows(Some(2)).await;
    for at in 0.. {
        let world = base.copied();
        let (with, meanwhile) = (restoring.clone(), world.clone());
        let stores = world.memory.interrupted(at, move || with(meanwhile.clone()));
        let report = world.compact(&stores, ALL).await.unwrap();
        if report.version == Some(4) {
            assert!(at > 10);
            break;
        }
        assert_eq!(world.memory.rows(None).await, expected, "before operation {at}: {report:?}");
    }
}
