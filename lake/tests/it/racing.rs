//! Writers that race, and stores that fail: each epoch is in the table exactly once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use watershed_core::Error;
use watershed_core::clock::mix;
use watershed_core::sink::{CommitIdentity, Committed, Sink};
use watershed_lake::{Create, Fault, FaultPlan, FaultStore, Stores, open_history};

use crate::fixtures::*;

/// Stores whose faults can be counted.
fn faulty(plan: FaultPlan) -> (Stores, Arc<Mutex<Vec<FaultStore>>>) {
    let made: Arc<Mutex<Vec<FaultStore>>> = Arc::default();
    let keep = made.clone();
    let stores = Stores::default().with_wrapper(Arc::new(move |inner| {
        let store = FaultStore::new(inner, plan.clone());
        keep.lock().unwrap().push(store.clone());
        Arc::new(store)
    }));
    (stores, made)
}

async fn facts_of(lake: &Lake, name: &str) -> Vec<(i64, i64)> {
    let history = open_history(&lake.stores, &lake.at(name), &by_time()).await.unwrap();
    facts(&files(&history.pin(None).await.unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_race_for_versions() {
    let lake = Lake::new();
    let mut writers = vec![];
    for job in 0..4 {
        let sink = lake.sink_of("t", spec(""), job).await.unwrap();
        writers.push(tokio::spawn(async move {
            let application = format!("watershed/{job}/view");
            for epoch in 1..=8 {
                let prepared = prepare(&sink, &[(i64::try_from(job).unwrap(), i64::try_from(epoch).unwrap())]).await;
                let identity =
                    CommitIdentity { application: application.clone(), epoch, after: (epoch > 1).then(|| epoch - 1) };
                let committed = sink.commit(&identity, &prepared, &BTreeMap::new()).await.unwrap();
                assert!(matches!(committed, Committed::Now { .. }));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let expected: Vec<(i64, i64)> = (0..4).flat_map(|job| (1..=8).map(move |epoch| (job, epoch))).collect();
    assert_eq!(facts_of(&lake, "t").await, expected);
}

/// Two runners of one job commit the same epoch with different files: one of them is in the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_runners_wins_an_epoch() {
    for round in 0..10 {
        let lake = Lake::new();
        let mut runners = vec![];
        for runner in 0..2 {
            let sink = lake.sink_of("t", spec(""), round * 2 + runner).await.unwrap();
            runners.push(tokio::spawn(async move {
                let prepared = prepare(&sink, &[(0, i64::try_from(runner).unwrap())]).await;
                sink.commit(&identity(1, None), &prepared, &BTreeMap::new()).await.unwrap()
            }));
        }
        let mut now = 0;
        for runner in runners {
            now += usize::from(matches!(runner.await.unwrap(), Committed::Now { .. }));
        }
        assert_eq!((now, facts_of(&lake, "t").await.len()), (1, 1));
    }
}

/// A commit whose answer is lost is read back and known as ours.
#[tokio::test]
async fn a_lost_answer_is_read_back() {
    for (fault, expected) in [(Fault::After, 1), (Fault::Before, 1)] {
        let lake = Lake::new();
        lake.sink("t", "").await;
        // The first write to a log entry of version 1 is the commit itself.
        let plan = FaultPlan {
            at: Some((0, fault)),
            writes_only: true,
            only: Some("_delta_log/00000000000000000001".into()),
            ..Default::default()
        };
        let (stores, made) = faulty(plan);
        let sink = open(&stores, &lake.at("t"), spec(""), 9, Create::Now).await.unwrap();
        let prepared = prepare(&sink, &[(0, 1)]).await;
        let committed = sink.commit(&identity(1, None), &prepared, &BTreeMap::new()).await.unwrap();
        assert_eq!(committed, Committed::Now { version: expected }, "{fault:?}");
        assert_eq!(made.lock().unwrap()[0].counts().faults(), 1);
        assert_eq!(facts_of(&lake, "t").await, [(0, 1)]);
    }
}

/// A runner that is restarted whenever anything fails, over a store that fails and dies at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_epoch_is_there_once_after_any_faults() {
    const EPOCHS: u64 = 6;
    let mut faults = 0;
    for seed in 0..40u64 {
        println!("seed {seed}");
        let lake = Lake::new();
        // What a manifest would say: the files of the epoch in doubt, and the last epoch known to be committed.
        let (mut done, mut doubt) = (0, None);
        let mut run = 0;
        while done < EPOCHS {
            run += 1;
            assert!(run < 400, "seed {seed} does not get on");
            let plan = FaultPlan {
                seed: mix(seed * 1000 + run),
                before: 0.04,
                after: 0.04,
                crash_before: 0.01,
                crash_after: 0.01,
                ..Default::default()
            };
            let (stores, made) = faulty(plan);
            let ended: Result<(), Error> = async {
                let sink = open(&stores, &lake.at("t"), spec("day(ts)"), seed * 1000 + run, Create::Now).await?;
                while done < EPOCHS {
                    let epoch = done + 1;
                    let prepared = match doubt.clone() {
                        Some(prepared) => {
                            sink.verify(&prepared).await?;
                            prepared
                        }
                        None => {
                            let writer = sink.writer()?;
                            let at = i64::try_from(epoch).unwrap();
                            writer.write(0, rows(&[(at, at), (DAY + at, at)])).await?;
                            writer.finish().await?
                        }
                    };
                    doubt = Some(prepared.clone());
                    sink.commit(&identity(epoch, (done > 0).then_some(done)), &prepared, &BTreeMap::new()).await?;
                    (done, doubt) = (epoch, None);
                }
                Ok(())
            }
            .await;
            faults += made.lock().unwrap().iter().map(|store| store.counts().faults()).sum::<u64>();
            if let Err(e) = ended {
                assert!(matches!(e, Error::Storage { .. }), "seed {seed} run {run}: {e}");
            }
        }
        let mut expected: Vec<(i64, i64)> = (1..=6).flat_map(|at| [(at, at), (DAY + at, at)]).collect();
        expected.sort_unstable();
        assert_eq!(facts_of(&lake, "t").await, expected, "seed {seed}");
    }
    assert!(faults > 100, "only {faults} faults were drawn");
}
