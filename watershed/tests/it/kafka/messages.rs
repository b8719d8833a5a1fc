//! What is in the messages: some that nobody can read, keys and times, and logs that are not what they were.

use super::broker::Broker;
use super::world::{ARCHIVE, DECLARED, LOG_ALONE, World, hours, rides};

#[test]
fn messages_that_cannot_be_read_are_kept_and_nothing_stops() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "poisoned", 2);
    let all = rides(6, 0..2_000, 30);
    world.produce(&all[..1_000]);
    let poison: [&[u8]; 4] = [b"{\"at\":", b"\xff\xfe", b"[1]", b"{\"at\":\"2026-01-01T00:00:00Z\",\"km\":\"far\"}"];
    let messages = poison.iter().enumerate();
    broker.produce("poisoned", messages.map(|(i, text)| (i as i32 % 2, None, Some(text.to_vec()), Some(1_000))));
    world.produce(&all[1_000..]);

    world.run(&[DECLARED, LOG_ALONE], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
    let kept = world.query(
        "SELECT _partition, _source, length(encode(_payload, 'hex')) / 2, _reason, length(_error) > 5, _written_at FROM hourly_late ORDER \
         BY _partition, _row",
    );
    let lengths = [[poison[0].len(), poison[2].len()], [poison[1].len(), poison[3].len()]];
    assert_eq!(kept.len(), 4, "{kept:?}");
    for (i, line) in kept.iter().enumerate() {
        let expected = format!("{},log,{},malformed,true,1970-01-01T00:00:01Z", i / 2, lengths[i / 2][i % 2]);
        assert_eq!(*line, expected);
    }

    // Asked to, a job stops at the first, and says where it is.
    let strict = DECLARED.replace("format = 'json'", "format = 'json', on_error = 'fail'");
    let other = World { dir: tempfile::tempdir().unwrap(), ..world };
    let refused = other.refused(&[&strict, LOG_ALONE], &[]);
    assert!(refused.contains("the message at offset") && refused.contains("on_error = 'table'"), "{refused}");
    let skipping = DECLARED.replace("format = 'json'", "format = 'json', on_error = 'skip'");
    let other = World { dir: tempfile::tempdir().unwrap(), ..other };
    let said = other.run(&[&skipping, LOG_ALONE], &["--final"]);
    assert!(said.contains("4 bad"), "{said}");
    assert_eq!(other.number("SELECT count(*) FROM hourly_late"), 0);
}

#[test]
fn a_log_made_anew_is_not_taken_for_the_old_one() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "anew", 1);
    world.produce(&rides(7, 0..500, 30));
    world.run(&[DECLARED, ARCHIVE], &[]);
    broker.delete("anew");
    let refused = world.refused(&[DECLARED, ARCHIVE], &[]);
    assert!(refused.contains("anew"), "{refused}");
    broker.create("anew", 1, &[]);
    world.produce(&rides(7, 0..100, 30));
    let refused = world.refused(&[DECLARED, ARCHIVE], &[]);
    assert!(refused.contains("deleted and made anew"), "{refused}");
    world.archived(500);
}

#[test]
fn what_is_asked_of_a_log_has_to_be_there() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "asked", 1);
    world.produce(&rides(8, 0..10, 30));
    for (change, expected) in [
        (("${TOPIC}", "${TOPIC}_not"), "asked_not"),
        (("format = 'json'", "format = 'jsn'"), "json"),
        (("'json'", "'json', start = 'soon'"), "'earliest', 'latest', a time"),
        (("'json'", "'json', start = '0:99'"), "it has 0 to 10"),
        (("'json'", "'json', kafka.bootstrap.servers = 'b'"), "bootstrap.servers"),
        (("'json'", "'json', kafka.sasl.password = 'secret'"), "${NAME}"),
        (("'json'", "'json', archive = 'x'"), "there is none"),
    ] {
        let text = DECLARED.replace(change.0, change.1);
        let other = World { dir: tempfile::tempdir().unwrap(), broker, topic: world.topic.clone(), partitions: 1 };
        let refused = other.refused(&[&text, LOG_ALONE], &[]);
        assert!(refused.contains(expected), "{change:?}: {refused}");
        assert!(!refused.contains("fault in Watershed"), "{refused}");
    }
}

#[test]
fn a_log_is_begun_where_it_is_said() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "begun", 2);
    let all = rides(9, 0..1_000, 30);
    let at = |second: i64| {
        move |ride: &super::world::Ride| {
            let (part, key, payload, _) = ride.message(2);
            (part, key, payload, Some(second * 1000))
        }
    };
    broker.produce("begun", all[..400].iter().map(at(1_000)));
    broker.produce("begun", all[400..].iter().map(at(2_000)));
    for (start, expected) in [("earliest", 1_000), ("latest", 0), ("1970-01-01T00:25:00Z", 607), ("0:5", 1_002)] {
        let text = DECLARED.replace("'json'", &format!("'json', start = '{start}'"));
        let other = World { dir: tempfile::tempdir().unwrap(), broker, topic: world.topic.clone(), partitions: 2 };
        other.run(&[&text, ARCHIVE], &[]);
        if start == "latest" {
            // What comes after the first run is read by the next one.
            broker.produce("begun", all[..7].iter().map(at(3_000)));
            other.run(&[&text, ARCHIVE], &[]);
            assert_eq!(other.number("SELECT count(*) FROM rides"), 7);
            continue;
        }
        let rows = if expected == 0 { 0 } else { other.number("SELECT count(*) FROM rides") };
        assert_eq!(rows, expected, "{start}");
    }
}
