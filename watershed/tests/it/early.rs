//! `EMIT EVERY`: whenever a run has ended, the view is what the batch query says over all that was read, of windows that are
//! still open too; and a row is there once.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use crate::binary::all_said;
use crate::oracle::facts::Dice;
use crate::repair::{World, facts, queries};

/// A source that goes on in what comes to its table, and a view over it with early results.
fn sql(world: &World, with: &str, query: &str, every: &str) -> String {
    let text = format!(
        "CREATE SOURCE rides (WATERMARK FOR at AS at - INTERVAL '10 minutes') WITH (lake = 'facts', tail = 'commits');
         CREATE MATERIALIZED VIEW v WITH (location = 'v'{with}) AS {query} EMIT EVERY '{every}';"
    );
    world.write("early.sql", &text)
}

#[test]
fn open_windows_are_there_as_they_stand() {
    for (i, (query, _)) in queries().into_iter().enumerate() {
        let seed = 90 + i as u64;
        println!("seed {seed}: {query}");
        let (mut dice, mut number) = (Dice::new(seed), 0);
        let world = World::new();
        // With and without late facts: both replace rows of the result.
        let sql = sql(&world, ", late = 'repair'", &query, ["1 ms", "1 hour"][i % 2]);
        for round in 0..4 {
            world.load(&format!("{round}.csv"), &facts(&mut dice, 2 * round..2 * round + 1, 700, &mut number));
            if round > 1 {
                world.load(&format!("{round}-late.csv"), &facts(&mut dice, 0..2 * round, 30, &mut number));
            }
            world.says(&["run", &sql, "--until", "caught-up", "--commit-interval", "5 ms", "--slice", "5 hours"]);
            world.is(&query, &format!("round {round}"));
            world.says(&["verify", "v"]);
        }
        let open = world.rows("SELECT count(*) FROM v_late WHERE _reason = 'late'");
        assert_eq!(open, BTreeSet::from(["0".to_string()]));
        world.says(&["run", &sql, "--final"]);
        world.is(&query, "at the end");
    }
}

#[test]
fn a_kill_leaves_no_row_behind_that_is_not_replaced() {
    let seed = 9_901;
    println!("seed {seed}");
    let (mut dice, mut number) = (Dice::new(seed), 0);
    let world = World::new();
    let query = &queries()[1].0;
    let sql = sql(&world, "", query, "1 ms");
    // A day's facts come in any order, so they come a day at a time.
    for day in 0..8 {
        world.load(&format!("{day}.csv"), &facts(&mut dice, day..day + 1, 500, &mut number));
        for _ in 0..3 {
            let run = ["run", &sql, "--commit-interval", "1 ms", "--slice", "1 hour"];
            let mut run = world.command(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(30 + dice.below(500)));
            run.kill().unwrap();
            run.wait().unwrap();
        }
    }
    world.says(&["run", &sql, "--until", "caught-up"]);
    assert_eq!(world.rows("SELECT count(*) FROM v_late WHERE _reason = 'late'"), BTreeSet::from(["0".to_string()]));
    world.is(query, &format!("seed {seed}"));
}

#[test]
fn a_fact_of_the_far_future_closes_no_window() {
    let world = World::new();
    let sql = sql(&world, "", &queries()[0].0, "1 ms");
    let (mut dice, mut number) = (Dice::new(3), 0);
    for day in 0..3 {
        world.load(&format!("{day}.csv"), &facts(&mut dice, day..day + 1, 200, &mut number));
        world.load(&format!("{day}-odd.csv"), &format!("at,city,km,n\n209{day}-01-01T00:00:00Z,c1,1,{number}\n"));
        world.says(&["run", &sql, "--until", "caught-up"]);
    }
    let listed = |reason: &str| world.rows(&format!("SELECT count(*) FROM v_late WHERE _reason = '{reason}'"));
    assert_eq!(listed("late"), BTreeSet::from(["0".to_string()]));
    assert_eq!(listed("event time beyond max_ahead"), BTreeSet::from(["3".to_string()]));
    world.is(
        &queries()[0].0.replace("FROM TUMBLE(rides", "FROM TUMBLE((SELECT * FROM rides WHERE at < '2050-01-01')"),
        "",
    );
}

#[test]
fn what_has_no_open_windows_is_refused() {
    let world = World::new();
    world.load("0.csv", &facts(&mut Dice::new(1), 0..3, 100, &mut 0));
    let refused = |query: &str, every: &str| {
        let out = world.command(&["run", &sql(&world, "", query, every)]).output().unwrap();
        assert!(!out.status.success(), "{query}");
        all_said(&out)
    };
    let said = refused("SELECT at, km FROM rides WHERE km > 3", "5 seconds");
    assert!(said.contains("EMIT EVERY: it has no windows"), "{said}");
    let said = refused(&queries()[0].0, "now and then");
    assert!(said.contains("a duration, such as '5 seconds'"), "{said}");
}
