//! Patterns of paths that carry time, such as `{%Y/%m/%d}` or `logs/{%Y-%m-%d}/region=*`. Pure.
//!
//! Between braces stand strftime fields and whatever separates them; outside of them text stands for itself and `*` for
//! anything within one folder's name. A pattern is held against the path below the table's location, from its beginning: it has
//! to end where a folder ends, or with the file's name.

use chrono::{NaiveDate, NaiveDateTime};
use watershed_core::time::Grain;

/// A pattern that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pattern {
    /// As written.
    pub(crate) text: String,
    pub(crate) grain: Grain,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Text(char),
    Any,
    /// A number of exactly, or at most, so many digits.
    Number {
        part: Part,
        digits: usize,
        exactly: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Year,
    Month,
    Day,
    Ordinal,
    Hour,
}

/// What a path says: year, month, day, day of the year, hour.
type Found = [Option<u32>; 5];

/// The fields a pattern may have, for messages.
const FIELDS: &str = "%Y, %m, %d, %j and %H, %F for %Y-%m-%d, and %-m, %-d, %-H without leading zeros";

impl Pattern {
    /// Whether a `time_partition` is meant as a pattern.
    pub(crate) fn is_one(text: &str) -> bool {
        text.contains(['{', '}'])
    }

    pub(crate) fn parse(text: &str) -> Result<Pattern, String> {
        let (mut tokens, mut inside) = (vec![], false);
        let mut chars = text.trim_start_matches("./").trim_matches('/').chars();
        while let Some(c) = chars.next() {
            match (c, inside) {
                ('{', false) => inside = true,
                ('}', true) => inside = false,
                ('{' | '}', _) => return Err("its braces do not pair".to_string()),
                ('*', false) => tokens.push(Token::Any),
                ('%', true) => fields(&mut chars, &mut tokens)?,
                ('%', false) if chars.clone().next().is_some_and(|c| "YmdHjF-".contains(c)) => {
                    return Err("a field such as %Y stands between braces: {%Y}".to_string());
                }
                (c, _) => tokens.push(Token::Text(c)),
            }
        }
        if inside {
            return Err("its braces do not pair".to_string());
        }
        let has = |wanted: Part| tokens.iter().any(|t| matches!(t, Token::Number { part, .. } if *part == wanted));
        let (year, month, day, ordinal, hour) =
            (has(Part::Year), has(Part::Month), has(Part::Day), has(Part::Ordinal), has(Part::Hour));
        let grain = match (year, month, day, ordinal, hour) {
            (true, false, false, false, false) => Grain::Year,
            (true, true, false, false, false) => Grain::Month,
            (true, true, true, false, false) | (true, false, false, true, false) => Grain::Day,
            (true, true, true, false, true) | (true, false, false, true, true) => Grain::Hour,
            _ => {
                return Err(
                    "it has to say a year (%Y), a month (%Y and %m), a day (%Y, %m and %d, or %Y and %j) or an \
                            hour (a day and %H)"
                        .to_string(),
                );
            }
        };
        Ok(Pattern { text: text.to_string(), grain, tokens })
    }

    /// The time that a path below the location says; `None` when it does not match, `Some(Err)` when it matches with what is
    /// no date.
    pub(crate) fn time(&self, path: &str) -> Option<Result<NaiveDateTime, String>> {
        let mut found: Found = [None; 5];
        if !walk(&self.tokens, path, &mut found) {
            return None;
        }
        let part = |part: Part| found[part as usize];
        let year = part(Part::Year).and_then(|y| i32::try_from(y).ok()).unwrap_or_default();
        let date = match part(Part::Ordinal) {
            Some(ordinal) => NaiveDate::from_yo_opt(year, ordinal),
            None => NaiveDate::from_ymd_opt(year, part(Part::Month).unwrap_or(1), part(Part::Day).unwrap_or(1)),
        };
        let time = date.and_then(|date| date.and_hms_opt(part(Part::Hour).unwrap_or(0), 0, 0));
        Some(time.ok_or_else(|| format!("what `{}` finds in it is not a {} of the calendar", self.text, self.grain)))
    }
}

/// The field after a `%`.
fn fields(chars: &mut std::str::Chars<'_>, tokens: &mut Vec<Token>) -> Result<(), String> {
    let mut next = chars.next();
    let exactly = next != Some('-');
    if !exactly {
        next = chars.next();
    }
    let number = |part: Part, digits: usize| Token::Number { part, digits, exactly };
    match next {
        Some('Y') => tokens.push(number(Part::Year, 4)),
        Some('m') => tokens.push(number(Part::Month, 2)),
        Some('d') => tokens.push(number(Part::Day, 2)),
        Some('j') => tokens.push(number(Part::Ordinal, 3)),
        Some('H') => tokens.push(number(Part::Hour, 2)),
        Some('F') if exactly => {
            tokens.extend([number(Part::Year, 4), Token::Text('-'), number(Part::Month, 2)]);
            tokens.extend([Token::Text('-'), number(Part::Day, 2)]);
        }
        Some('%') if exactly => tokens.push(Token::Text('%')),
        other => {
            let dash = if exactly { "" } else { "-" };
            let name = other.map(String::from).unwrap_or_default();
            return Err(format!("its field `%{dash}{name}` is none of {FIELDS}"));
        }
    }
    Ok(())
}

/// Whether a path begins with what the tokens say, up to the end of a folder's or the file's name.
fn walk(tokens: &[Token], path: &str, found: &mut Found) -> bool {
    let Some((token, rest)) = tokens.split_first() else { return path.is_empty() || path.starts_with('/') };
    match *token {
        Token::Text(c) => path.strip_prefix(c).is_some_and(|path| walk(rest, path, found)),
        Token::Any => {
            let end = path.find('/').unwrap_or(path.len());
            let mut cuts = path[..end].char_indices().map(|(at, _)| at).chain([end]);
            cuts.any(|at| walk(rest, &path[at..], found))
        }
        Token::Number { part, digits, exactly } => {
            let there = path.bytes().take(digits).take_while(u8::is_ascii_digit).count();
            let fewest = if exactly { digits } else { 1 };
            (fewest..=there).rev().any(|count| {
                let Ok(number) = path[..count].parse::<u32>() else { return false };
                let before = found[part as usize];
                // A field that stands twice says the same twice.
                if before.is_some_and(|known| known != number) {
                    return false;
                }
                found[part as usize] = Some(number);
                let matched = walk(rest, &path[count..], found);
                if !matched {
                    found[part as usize] = before;
                }
                matched
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(pattern: &str, path: &str) -> Option<String> {
        let found = Pattern::parse(pattern).unwrap().time(path)?;
        Some(found.map_or_else(|e| e, |t| t.format("%Y-%m-%dT%H").to_string()))
    }

    #[test]
    fn finds_times_in_paths() {
        let cases = [
            ("{%Y/%m/%d}", "2026/01/31/a.parquet", Some("2026-01-31T00")),
            ("{%Y/%m/%d/%H}", "2026/01/31/05/a.parquet", Some("2026-01-31T05")),
            ("{%Y}/{%m}", "2026/07/x/a.parquet", Some("2026-07-01T00")),
            ("dt={%Y%m%d}/hour={%H}", "dt=20260131/hour=03/a.parquet", Some("2026-01-31T03")),
            ("logs/{%Y-%m-%d}/region=*", "logs/2026-01-31/region=eu/a.parquet", Some("2026-01-31T00")),
            ("*/{%F}", "eu/2026-01-31/a.parquet", Some("2026-01-31T00")),
            ("events-{%Y%m%d}*", "events-20260131-1.parquet", Some("2026-01-31T00")),
            ("{%Y}/{%Y-%m}", "2026/2026-03/a.parquet", Some("2026-03-01T00")),
            ("{%Y}/{%Y-%m}", "2026/2025-03/a.parquet", None),
            ("{%Y-%-m-%-d}", "2026-1-31/a.parquet", Some("2026-01-31T00")),
            ("{%Y/%j}", "2024/366/a.parquet", Some("2024-12-31T00")),
            ("{%Y/%m/%d}", "2026/01/a.parquet", None),
            ("{%Y/%m/%d}", "2026/01/311/a.parquet", None),
            ("{%Y/%m/%d}", "x/2026/01/31/a.parquet", None),
            ("logs/{%Y}", "log/2026/a.parquet", None),
            ("{%Y/%m/%d}", "2026/02/30/a.parquet", Some("what `{%Y/%m/%d}` finds in it is not a day of the calendar")),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(time(pattern, path).as_deref(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_pattern() {
        let error = |text: &str| Pattern::parse(text).unwrap_err();
        assert!(error("{%Y/%m").contains("do not pair") && error("%Y}").contains("between braces"));
        assert!(error("{%Y/%M}").starts_with("its field `%M` is none of %Y, %m"), "{}", error("{%Y/%M}"));
        assert!(error("{%d}").contains("it has to say a year"), "{}", error("{%d}"));
        assert!(error("{x}").contains("it has to say a year"));
        assert_eq!(Pattern::parse("{%Y-%m}").unwrap().grain, Grain::Month);
    }
}
