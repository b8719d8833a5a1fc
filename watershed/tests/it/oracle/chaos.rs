//! Kills and store faults over a backfill: nothing lost, nothing twice.
//!
//! In one process a kill is an object store that fails from some operation on, before or after that operation's effect, for
//! the home and all tables at once; the engine is then dropped and a fresh one goes on. `WATERSHED_CHAOS` says how many
//! kills and faults at least (`make chaos`: 2,000). A failure names its seed, which repeats the run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::campaign::chaos;
use object_store::ObjectStore;
use watershed::runtime::Stop;
use watershed::{Outcome, RunOptions};
use watershed_lake::Stores;
use watershed_lake::faults::{FaultPlan, FaultStore};

use super::check::{Case, Variant, World, compare, once};
use super::facts::{Dice, Facts, Shape};

const WINDOWED: &str = "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total FROM \
                        TUMBLE(a, ts, INTERVAL '5 hours') GROUP BY window_start, window_end, k";

fn variant() -> Variant {
    super::check::variant("chaos", &[("commit_interval", "0 s"), ("slice", "0 s")], false, &[2, 1, 3])
}

fn drawn(seed: u64) -> (Case, World) {
    let shape = Shape { leaks: 40, partitions: 8, rows: 60, ..Shape::default() };
    let mut case = Case::over([("a", Facts::draw(shape, seed))], WINDOWED);
    case.options = ", max_leak = '1 day'".into();
    let world = World::new(&case);
    (case, world)
}

/// Stores that share one fate.
fn faulty(plan: FaultPlan) -> (Stores, Arc<Mutex<Option<FaultStore>>>) {
    let first: Arc<Mutex<Option<FaultStore>>> = Arc::default();
    let shared = Arc::clone(&first);
    let wrap = move |inner: Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
        let mut shared = shared.lock().unwrap();
        let store = match &*shared {
            Some(first) => first.over(inner),
            None => FaultStore::new(inner, plan.clone()),
        };
        *shared = Some(store.clone());
        Arc::new(store)
    };
    (Stores::default().with_wrapper(Arc::new(wrap)), first)
}

/// One backfill through as many kills and faults as it takes; returns how many there were.
async fn survive(seed: u64) -> Result<u64, String> {
    let (case, world) = drawn(seed);
    let text = world.text(&case);
    let mut dice = Dice::new(seed);
    let mut faults = 0;
    for run in 0..400 {
        let crash = dice.below(3) > 0;
        let rate = (1 + dice.below(30)) as f64 / 1500.0;
        let [fails, crashes] = if crash { [0.0, rate] } else { [rate, 0.0] };
        let plan = FaultPlan {
            seed: dice.below(u64::MAX),
            before: fails,
            after: fails,
            crash_before: crashes,
            crash_after: crashes,
            writes_only: dice.below(2) == 0,
            ..FaultPlan::default()
        };
        let (stores, store) = faulty(plan);
        let engine = world.engine(&variant(), run, stores);
        let ended = once(&engine, &text, false, false).await;
        let counts = store.lock().unwrap().as_ref().map(|s| s.counts()).unwrap_or_default();
        faults += counts.faults();
        match ended {
            Ok(summary) => {
                compare(&world, &case, &summary, false).await?;
                let clean = world.engine(&variant(), 0, Stores::default());
                let last = once(&clean, &text, false, true).await?;
                compare(&world, &case, &last, true).await?;
                return Ok(faults);
            }
            Err(_) if counts.faults() > 0 => {}
            Err(e) => return Err(format!("failed without a fault: {e}")),
        }
    }
    Err("it never ended".to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_kills_and_store_faults() {
    let wanted = chaos();
    let (mut seed, mut faults) = (0u64, 0);
    while faults < wanted {
        match tokio::time::timeout(Duration::from_secs(600), survive(seed)).await {
            Ok(Ok(n)) => faults += n,
            Ok(Err(e)) => panic!("seed {seed}: {e}"),
            Err(_) => panic!("seed {seed}: hangs"),
        }
        seed += 1;
    }
    println!("{faults} kills and faults over {seed} backfills");
}

/// Two runners of one job: each ends well or is told why not, and together they do the work once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_two_runners() {
    let mut fenced = 0;
    for seed in 500..512 {
        let (case, world) = drawn(seed);
        let text = world.text(&case);
        // The view is made before, so that both run the same job.
        let first = once(&world.engine(&variant(), 0, Stores::default()), &text, true, false).await.unwrap();
        assert!(first.stopped);
        let (one, two) =
            (world.engine(&variant(), 0, Stores::default()), world.engine(&variant(), 1, Stores::default()));
        let (a, b) = tokio::join!(once(&one, &text, false, false), once(&two, &text, false, false));
        for failed in [&a, &b].into_iter().filter_map(|r| r.as_ref().err()) {
            assert!(failed.contains("another runner") || failed.contains("stopped"), "seed {seed}: {failed}");
            fenced += 1;
        }
        let last = once(&world.engine(&variant(), 0, Stores::default()), &text, false, true).await.unwrap();
        if let Err(e) = compare(&world, &case, &last, true).await {
            panic!("seed {seed}: {e}\nrunners: {a:?}\n{b:?}");
        }
    }
    assert!(fenced > 0, "no two runners ever met");
}

/// Stops that do not wait for the step in hand: what is given up is done again, and nothing is lost or twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_impatient_stops() {
    let mut given_up = 0;
    for seed in 900..908 {
        let (case, world) = drawn(seed);
        let text = world.text(&case);
        let mut dice = Dice::new(seed);
        for run in 0..500 {
            let stop = Stop::default();
            let options = RunOptions { stop: stop.clone(), ..RunOptions::default() };
            let wait = Duration::from_millis(dice.below(80));
            let stopping = tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                stop.request_within(Duration::ZERO);
            });
            let mut ended = None;
            let mut seen = |outcome| {
                if let Outcome::Job(summary) = outcome {
                    ended = Some(summary);
                }
                Ok(())
            };
            let engine = world.engine(&variant(), run, Stores::default());
            let done = engine.execute_with(&text, &options, &mut seen).await;
            done.unwrap_or_else(|e| panic!("seed {seed}, run {run}: {e}"));
            stopping.abort();
            match ended {
                Some(summary) if !summary.stopped => break,
                Some(summary) => given_up += u32::from(summary.given_up.is_some()),
                None => {}
            }
            assert!(run < 499, "seed {seed}: it never ends");
        }
        let last = once(&world.engine(&variant(), 0, Stores::default()), &text, false, true).await.unwrap();
        if let Err(e) = compare(&world, &case, &last, true).await {
            panic!("seed {seed}: {e}");
        }
    }
    println!("{given_up} steps given up");
    assert!(given_up > 0, "no stop ever came within a step");
}
