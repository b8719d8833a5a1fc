//! Faults planted on purpose: the check is worth something only if each of them makes it fail.

use std::fs;

use watershed_lake::Stores;

use super::check::{Case, World, compare, manifests, once, variants};
use super::facts::{EPOCH, Facts, Shape};

const HOUR: i64 = 3_600_000_000;

fn case() -> Case {
    let sql = "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total FROM TUMBLE(a, ts, INTERVAL '1 hour') \
               GROUP BY window_start, window_end, k";
    Case::over([("a", Facts::draw(Shape::default(), 900))], sql)
}

/// Runs the case over facts that a fault has changed, and compares with the truth.
async fn with_fault(fault: impl Fn(&mut Facts)) -> Result<(), String> {
    with_fault_in(case(), fault).await
}

async fn with_fault_in(case: Case, fault: impl Fn(&mut Facts)) -> Result<(), String> {
    let mut wrong = case.clone();
    fault(wrong.sources.get_mut("a").unwrap());
    let world = World::new(&wrong);
    let engine = world.engine(&variants()[1], 0, Stores::default());
    let summary = once(&engine, &world.text(&case), false, true).await.unwrap();
    compare(&world, &case, &summary, true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fault_it_holds() {
    with_fault(|_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_off_by_one() {
    let moved = |facts: &mut Facts| {
        let rows = facts.files.iter_mut().flat_map(|f| &mut f.rows);
        let edge = rows.filter_map(|r| r.ts.as_mut()).find(|t| (**t - EPOCH) % HOUR == 0 && **t > EPOCH);
        *edge.expect("a row on a window's edge") -= 1;
    };
    let error = with_fault(moved).await.unwrap_err();
    assert!(error.contains("expected"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slice_read_twice() {
    let twice = |facts: &mut Facts| {
        let again = facts.files.iter().find(|f| !f.rows.is_empty()).unwrap().clone();
        facts.files.push(again);
    };
    with_fault(twice).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_lost() {
    let lost = |facts: &mut Facts| {
        facts.files.iter_mut().find(|f| !f.rows.is_empty()).unwrap().rows.pop();
    };
    with_fault(lost).await.unwrap_err();
}

/// A fact counted for the pane after its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_off_by_one_pane() {
    let sql = "SELECT window_start, window_end, count(*) AS n FROM HOP(a, ts, INTERVAL '1 hour', INTERVAL '6 hours') \
               GROUP BY window_start, window_end";
    let case = Case { sql: sql.into(), ..case() };
    let moved = |facts: &mut Facts| {
        *facts.files.iter_mut().flat_map(|f| &mut f.rows).find_map(|r| r.ts.as_mut()).unwrap() += HOUR;
    };
    with_fault_in(case.clone(), |_| {}).await.unwrap();
    let error = with_fault_in(case, moved).await.unwrap_err();
    assert!(error.contains("expected"), "{error}");
}

/// An hour's fact counted for the next day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_up_day_off_by_an_hour() {
    let hours = "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '1 hour') \
                 GROUP BY window_start, window_end";
    let day = "date_trunc('day', window_start)";
    let mut case =
        Case { sql: format!("SELECT {day} AS at, sum(n) AS n FROM ({hours}) AS h GROUP BY {day}"), ..case() };
    case.end = "at + INTERVAL '1 day'".into();
    let moved = |facts: &mut Facts| {
        let mut rows = facts.files.iter_mut().flat_map(|f| &mut f.rows).filter_map(|r| r.ts.as_mut());
        *rows.find(|t| (**t - EPOCH) % (24 * HOUR) >= 23 * HOUR).expect("a row of a day's last hour") += HOUR;
    };
    with_fault_in(case.clone(), |_| {}).await.unwrap();
    with_fault_in(case, moved).await.unwrap_err();
}

/// The home is set back behind the table's back: the table must refuse what would double its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_one_epoch_old() {
    let case = case();
    let world = World::new(&case);
    let restarted = &variants()[2];
    for run in 0..3 {
        once(&world.engine(restarted, run, Stores::default()), &world.text(&case), true, false).await.unwrap();
    }
    let mut manifests = manifests(&world.home());
    // The newest is an epoch with files; the one before it is the claim of the run that wrote it.
    assert!(manifests.len() >= 3, "{manifests:?}");
    for newest in manifests.split_off(manifests.len() - 2) {
        fs::remove_file(newest).unwrap();
    }
    let outcome = once(&world.engine(restarted, 9, Stores::default()), &world.text(&case), false, false).await;
    let error = outcome.expect_err("the table has an epoch that the checkpoint does not know of");
    assert!(error.contains("stopped") && error.contains("epoch"), "{error}");
}

/// A newest checkpoint that cannot be read: the one before is gone back to, and its steps are repeated to where the table stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_checkpoint_is_replayed() {
    for (runs, interrupted) in [(1, false), (2, false), (4, false), (1, true), (2, true), (4, true)] {
        let case = case();
        let world = World::new(&case);
        let restarted = &variants()[2];
        for run in 0..runs {
            once(&world.engine(restarted, run, Stores::default()), &world.text(&case), true, false).await.unwrap();
        }
        fs::write(manifests(&world.home()).pop().unwrap(), "{ half a manif").unwrap();
        if interrupted {
            once(&world.engine(restarted, 8, Stores::default()), &world.text(&case), true, false).await.unwrap();
        }
        let last = once(&world.engine(restarted, 9, Stores::default()), &world.text(&case), false, true).await.unwrap();
        compare(&world, &case, &last, true).await.unwrap();
    }
}
