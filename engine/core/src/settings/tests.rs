//! Names and values as users give them.

use super::*;

fn at(text: &str) -> EventTime {
    EventTime(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
}

#[test]
fn every_name_sets_something() {
    for name in Settings::NAMES {
        let value = match name {
            "slice" | "commit_interval" | "max_leak" | "max_ahead" | "grace" | "idle_timeout" => "7 minutes",
            "from" | "to" => "2024-01-31",
            "parallelism" | "throttle_rows" | "compact_files" => "3",
            "bounded" => "true",
            "time_partition" => "day",
            "time_zone" => "Asia/Tokyo",
            "schedule" => "22:00-06:00",
            "late" => "repair",
            "on_change" => "ignore",
            "on_error" => "fail",
            _ => "5 MB",
        };
        let mut settings = Settings::default();
        settings.set(name, value).unwrap();
        assert_ne!(settings, Settings::default(), "{name}");
    }
    assert!(Settings::default().set("late", "table").is_ok());
}

#[test]
fn names_are_all_fields() {
    let fields = serde_json::to_value(Settings::default()).unwrap();
    let mut fields: Vec<_> = fields.as_object().unwrap().keys().cloned().collect();
    let mut names = Settings::NAMES.map(String::from).to_vec();
    fields.sort();
    names.sort();
    assert_eq!(fields, names);
}

#[test]
fn unknown_names_are_errors_with_a_suggestion() {
    let message = |name: &str| Settings::default().set(name, "1").unwrap_err().to_string();
    assert_eq!(message("paralelism"), "unknown setting paralelism; did you mean parallelism?");
    assert!(message("xyz").starts_with("unknown setting xyz; there are slice, from, to"), "{}", message("xyz"));
    assert_eq!(message("timestamp_type"), "setting timestamp_type: not supported yet");
}

#[test]
fn wrong_values_say_what_is_expected() {
    let message = |name: &str, value: &str| Settings::default().set(name, value).unwrap_err().to_string();
    assert_eq!(message("parallelism", "0"), "parallelism = '0': expected a number above zero");
    assert!(message("grace", "1 month").contains("expected a duration"));
    assert!(message("from", "yesterday").contains("expected a time"));
    assert!(message("target_file_size", "0").contains("expected a size"));
    assert!(message("bounded", "maybe").contains("true or false"));
    assert!(message("time_zone", "Asia/Tokio").contains("did you mean 'Asia/Tokyo'?"));
    assert!(message("late", "never").contains("'table' or 'repair'"));
}

#[test]
fn durations() {
    let cases = [
        ("10 s", 10_000_000),
        ("10s", 10_000_000),
        ("1.5 hours", 5_400_000_000),
        ("1 hour 30 minutes", 5_400_000_000),
        ("2 days", 2 * Span::DAY.0),
        ("1 week", 7 * Span::DAY.0),
        ("250 ms", 250_000),
        ("0 s", 0),
        ("PT1H30M", 5_400_000_000),
        ("P1DT0.5S", Span::DAY.0 + 500_000),
        ("P2W", 14 * Span::DAY.0),
    ];
    for (text, micros) in cases {
        assert_eq!(parse_span(text), Some(Span(micros)), "{text}");
    }
    for text in
        ["", "10", "ten s", "1 month", "-1 s", "P", "PT", "P1M", "PT1M1H", "1..5 s", "0.1 us", "99999999999 weeks"]
    {
        assert_eq!(parse_span(text), None, "{text}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in
        [("128 MB", 128_000_000), ("1GiB", 1 << 30), ("4096", 4096), ("1.5kb", 1_500), ("2 TiB", 2 << 40)]
    {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for text in ["", "MB", "1 XB", "-1", "0", "0.0001 kb", "99999999999 TB"] {
        assert_eq!(parse_size(text), None, "{text}");
    }
}

#[test]
fn times() {
    for text in [
        "2024-01-31",
        "2024-01-31T00:00:00Z",
        "2024-01-31 00:00",
        "2024-01-31T02:00:00+02:00",
        "2024-01-31 00:00:00.000",
    ] {
        assert_eq!(parse_time(text), Some(at("2024-01-31T00:00:00Z")), "{text}");
    }
    for text in ["", "2024-02-30", "31.01.2024", "2024-01-31T25:00:00Z"] {
        assert_eq!(parse_time(text), None, "{text}");
    }
}
