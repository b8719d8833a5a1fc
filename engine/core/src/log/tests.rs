//! The decisions of reading a log, case by case, and drawn: no part is read far ahead of one that has more.

use proptest::prelude::*;

use super::*;
use crate::tail::{Numbering, PartPosition, VERSION};

fn part(newest: Option<i64>, head: Option<i64>, at_end: bool, idle: bool) -> PartStanding {
    PartStanding { newest: newest.map(EventTime), head: head.map(EventTime), at_end, idle }
}

#[test]
fn a_log_promises_what_its_slowest_part_has_read() {
    let floor = EventTime(5);
    assert_eq!(promise(&[part(Some(30), None, false, false), part(Some(20), None, true, false)], floor), EventTime(20));
    // One that never had a message holds it back until it is idle.
    let never = |idle| part(None, None, true, idle);
    assert_eq!(promise(&[part(Some(30), None, false, false), never(false)], floor), floor);
    assert_eq!(promise(&[part(Some(30), None, false, false), never(true)], floor), EventTime(30));
    assert_eq!(promise(&[part(Some(30), None, true, true), part(Some(20), None, true, true)], floor), EventTime(30));
    assert_eq!(promise(&[], floor), floor);
    // What is fetched and not read is no idleness.
    assert_eq!(
        promise(&[part(Some(30), None, true, true), part(Some(20), Some(21), true, true)], floor),
        EventTime(20)
    );
}

#[test]
fn parts_are_read_in_step() {
    let minute = STEP.0;
    let far = part(Some(0), Some(5 * minute), false, false);
    assert_eq!(next_part(&[far, part(Some(0), Some(3), false, false)]), Some(1));
    assert_eq!(next_part(&[far, part(Some(0), None, false, false)]), None);
    assert_eq!(next_part(&[far, part(Some(0), None, true, false)]), Some(0));
    assert_eq!(next_part(&[far, part(Some(4 * minute), None, false, false)]), Some(0));
    assert_eq!(next_part(&[part(None, None, false, false)]), None);
}

fn log(parts: &[(Part, Range<i64>)]) -> LogState {
    LogState { parts: parts.iter().cloned().collect(), ..LogState::default() }
}

#[test]
fn the_seam_follows_what_was_archived() {
    let archived = BTreeMap::from([(0, 9)]);
    let begin = seam(&archived, &log(&[(0, 3..20), (1, 0..7)]), "l").unwrap();
    assert_eq!(begin, Ok(BTreeMap::from([(0, 10), (1, 0)])));
    let gap = seam(&archived, &log(&[(0, 12..20)]), "l").unwrap();
    assert_eq!(gap, Err(Gap { part: 0, missing: 10..12 }));
    // A part without a record that the log no longer has from its beginning.
    let gap = seam(&archived, &log(&[(0, 0..20), (1, 4..7)]), "l").unwrap();
    assert_eq!(gap, Err(Gap { part: 1, missing: 0..4 }));
    for odd in [log(&[(0, 0..9)]), log(&[(1, 0..9)])] {
        let text = seam(&archived, &odd, "l").unwrap_err().to_string();
        assert!(text.contains("deleted and made anew"), "{text}");
    }
    assert!(seam(&archived, &log(&[(0, 0..10)]), "l").unwrap().is_ok());
}

#[test]
fn where_only_times_tell_the_log_has_to_reach_back_into_the_history() {
    let from = BTreeMap::from([(0, 12), (1, 0), (2, 7)]);
    let open = BTreeMap::from([(0, 15), (1, 0), (2, 7)]);
    let begin = seam_by_time(&from, &open, &log(&[(0, 10..20), (1, 0..7)]), "l").unwrap();
    assert_eq!(begin, BTreeMap::from([(0, 12), (1, 0)]));
    let text = seam_by_time(&from, &open, &log(&[(0, 10..20), (2, 7..9)]), "l").unwrap_err().to_string();
    assert!(text.contains("part 2 before offset 7"), "{text}");
    assert_eq!(overlaps_from(EventTime(100), Span(20), Span(5)), EventTime(55));
}

#[test]
fn a_job_reads_on_where_it_stood_or_not_at_all() {
    let parts = BTreeMap::from([(0, PartPosition::at(10))]);
    let position = TailPosition { id: Some("a".into()), parts, overlap: None };
    assert_eq!(resume(&position, &log(&[(0, 10..10), (1, 3..9)]), "l").unwrap(), BTreeMap::from([(0, 10), (1, 3)]));
    let forgotten = resume(&position, &log(&[(0, 12..20)]), "l").unwrap_err().to_string();
    assert!(forgotten.contains("offsets 10 to 11 of part 0 are gone"), "{forgotten}");
    for odd in [log(&[(0, 0..9)]), log(&[]), LogState { id: Some("b".into()), ..log(&[(0, 0..20)]) }] {
        assert!(resume(&position, &odd, "l").unwrap_err().to_string().contains("made anew"));
    }
}

#[test]
fn a_lag_in_bytes_is_by_what_was_read_lately() {
    let stands = |next, message_bytes| PartPosition { message_bytes, ..PartPosition::at(next) };
    let has = log(&[(0, 5..20), (1, 0..7), (2, 0..4)]);
    let of = |parts: &[(Part, PartPosition)]| lag(&parts.iter().copied().collect(), &has);
    let read = [(0, stands(10, Some(100))), (1, stands(7, Some(300)))];
    // 10 of the first; the third is new, and like the two others.
    assert_eq!(of(&read), Lag { messages: 14, bytes: Some(10 * 100 + 4 * 200) });
    assert_eq!(of(&[(0, stands(2, None))]), Lag { messages: 26, bytes: None });
    let all = [(0, stands(20, None)), (1, stands(7, None)), (2, stands(4, None))];
    assert_eq!(of(&all), Lag { messages: 0, bytes: Some(0) });
}

#[test]
fn a_log_of_versions_speaks_of_versions() {
    let versions = |range: Range<i64>| LogState {
        numbering: Numbering::Versions,
        ..log(&[(0, range.start * VERSION..range.end * VERSION)])
    };
    // Within version 3.
    let parts = |next| BTreeMap::from([(0, PartPosition::at(next))]);
    let position = |next| TailPosition { parts: parts(next), ..TailPosition::default() };
    let within = 3 * VERSION + 17;
    assert_eq!(resume(&position(within), &versions(3..9), "l").unwrap(), BTreeMap::from([(0, within)]));
    assert_eq!(lag(&parts(within), &versions(0..9)).messages, 6);
    assert_eq!(lag(&BTreeMap::new(), &versions(2..9)).messages, 7);
    assert_eq!(lag(&parts(9 * VERSION), &versions(0..9)).messages, 0);
    let forgotten = resume(&position(within), &versions(5..9), "l").unwrap_err().to_string();
    assert!(forgotten.contains("versions 3 to 4 of part 0 are gone (it begins at 5 now)"), "{forgotten}");
    assert!(resume(&position(10 * VERSION), &versions(0..9), "l").unwrap_err().to_string().contains("made anew"));
}

#[test]
fn an_archive_is_named_or_the_only_one() {
    let records = |ids: &[(&str, i64)]| Records {
        transactions: ids.iter().map(|(id, v)| (id.to_string(), *v)).collect(),
        newest: BTreeMap::new(),
    };
    let one = records(&[("facts-0", 5), ("facts-1", 7), ("watershed/x/result-3", 9), ("other", 1), ("odd-01", 1)]);
    let expected = Some(("facts".to_string(), BTreeMap::from([(0, 5), (1, 7)])));
    assert_eq!(archive(&one, None, "t").unwrap(), expected);
    assert_eq!(archive(&one, Some("facts"), "t").unwrap(), expected);
    assert!(archive(&one, Some("fact"), "t").unwrap_err().to_string().contains("there are facts"));
    assert_eq!(archive(&records(&[("other", 1)]), None, "t").unwrap(), None);
    let two = archive(&records(&[("a-0", 1), ("b-c-0", 1)]), None, "t").unwrap_err().to_string();
    assert!(two.contains("there are a, b-c; say which"), "{two}");
}

proptest! {
    /// However parts are fetched, those that wait are at most a step ahead of any that has more to read and has nothing there.
    #[test]
    fn nothing_is_read_far_ahead(parts in prop::collection::vec(
        (prop::option::of(0..400i64), prop::option::of(0..400i64), any::<bool>(), any::<bool>()), 1..6)
    ) {
        let second = Span::SECOND.0;
        let parts: Vec<PartStanding> = parts.into_iter()
            .map(|(newest, head, at_end, idle)| part(newest.map(|n| n * second), head.map(|h| h * second), at_end, idle))
            .collect();
        match next_part(&parts) {
            Some(next) => {
                let head = parts[next].head.unwrap();
                prop_assert!(parts.iter().filter_map(|p| p.head).all(|other| other >= head));
                for other in parts.iter().filter(|p| p.head.is_none() && !p.at_end) {
                    prop_assert!(other.newest.is_some_and(|newest| head <= newest.plus(STEP)));
                }
            }
            None => prop_assert!(
                parts.iter().all(|p| p.head.is_none()) || parts.iter().any(|p| p.head.is_none() && !p.at_end)
            ),
        }
    }
}
