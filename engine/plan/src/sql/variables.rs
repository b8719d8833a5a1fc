//! `${NAME}` in SQL text, before anything is parsed.
//!
//! A value stands wherever the text does, except in comments; inside quotes its own quotes are doubled, so that a value
//! never ends the literal it stands in. A secret in `WITH (…)` keeps its name, `'${NAME}'`, for statements are kept and shown,
//! and is looked up where it is used ([`watershed_core::secrets`]). Every character of the result remembers where it came from: places in errors are
//! places in what the user wrote, not in what became of it.

use watershed_core::error::{Error, Place, Result};
use watershed_core::secrets::is_secret;

/// A text with its variables replaced.
pub(crate) struct Substituted {
    pub(crate) text: String,
    /// For each line, for each column, the place in the original text.
    origins: Vec<Vec<Place>>,
}

impl Substituted {
    /// Where a place of the new text, both from 1, stood in the original.
    pub(crate) fn origin(&self, line: u64, column: u64) -> Place {
        let index = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
        let known = self.origins.get(index(line)).and_then(|l| l.get(index(column)).or(l.last()));
        known.copied().unwrap_or(Place { line, column })
    }

    /// Where the original text ends.
    pub(crate) fn end(&self) -> Place {
        let last = self.origins.last().and_then(|line| line.last());
        last.copied().unwrap_or(Place { line: 1, column: 1 })
    }

    fn push(&mut self, c: char, origin: Place) {
        self.text.push(c);
        if let Some(line) = self.origins.last_mut() {
            line.push(origin);
        }
        if c == '\n' {
            self.origins.push(vec![]);
        }
    }
}

/// Replaces every `${NAME}`; a variable that is not set is an error at its place.
pub(crate) fn substitute(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<Substituted> {
    let mut reader = Reader { rest: text, here: Place { line: 1, column: 1 } };
    let mut inside = Inside::Sql;
    let mut options = Options::default();
    let mut out = Substituted { text: String::with_capacity(text.len()), origins: vec![vec![]] };
    loop {
        let at = reader.here;
        if inside.takes_variables() && reader.rest.starts_with("${") {
            let name = reader.variable()?;
            let value = variables(name).ok_or_else(|| {
                let message = format!("${{{name}}} is not set: give it with --var {name}=… or in the environment");
                Error::sql_at(message, Some(at))
            })?;
            let closed = reader.rest.starts_with('\'') && !reader.rest.starts_with("''");
            if inside == Inside::Quotes('\'') && closed && options.open() && secret_before(&out.text) {
                format!("${{{name}}}").chars().for_each(|c| out.push(c, at));
                continue;
            }
            for c in value.chars() {
                out.push(c, at);
                if inside == Inside::Quotes(c) {
                    out.push(c, at);
                }
            }
            continue;
        }
        let (next, width) = inside.step(reader.rest);
        if inside == Inside::Sql {
            options.step(reader.rest, &out.text);
        }
        for _ in 0..width {
            let at = reader.here;
            if let Some(c) = reader.take() {
                out.push(c, at);
            }
        }
        inside = next;
        if reader.rest.is_empty() {
            // The end of the text is a place too.
            if let Some(line) = out.origins.last_mut() {
                line.push(reader.here);
            }
            return Ok(out);
        }
    }
}

/// Whether the text stands in the parentheses of a `WITH (…)`.
#[derive(Default)]
struct Options {
    depth: u32,
    /// The depth at which options stand.
    within: Option<u32>,
}

impl Options {
    fn open(&self) -> bool {
        self.within == Some(self.depth)
    }

    /// Takes the next character of SQL, outside of quotes and comments.
    fn step(&mut self, rest: &str, before: &str) {
        if rest.starts_with('(') {
            self.depth += 1;
            let word =
                before.trim_end().rsplit(|c: char| !(c == '_' || c.is_alphanumeric())).next().unwrap_or_default();
            if self.within.is_none() && word.eq_ignore_ascii_case("with") {
                self.within = Some(self.depth);
            }
        } else if rest.starts_with(')') {
            if self.open() {
                self.within = None;
            }
            self.depth = self.depth.saturating_sub(1);
        }
    }
}

/// Whether a text ends with `name = '`, where an option of that name holds a secret.
fn secret_before(text: &str) -> bool {
    let name = text.strip_suffix('\'').and_then(|text| text.trim_end().strip_suffix('=')).map(str::trim_end);
    let name = name.unwrap_or_default();
    let name = name.strip_suffix('"').unwrap_or(name);
    let start = name.rfind(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).map_or(0, |at| at + 1);
    // The separator may be longer than a byte, in which case it is no option's name.
    name.get(start..).is_some_and(is_secret)
}

/// What the next character stands in.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Sql,
    Quotes(char),
    LineComment,
    /// Comments nest: how many are open.
    Comment(u32),
}

impl Inside {
    fn takes_variables(self) -> bool {
        matches!(self, Inside::Sql | Inside::Quotes(_))
    }

    /// What holds after the next token, and how many characters that is.
    fn step(self, rest: &str) -> (Inside, usize) {
        let first = rest.chars().next().unwrap_or_default();
        match self {
            Inside::Sql if rest.starts_with("--") => (Inside::LineComment, 2),
            Inside::Sql if rest.starts_with("/*") => (Inside::Comment(1), 2),
            Inside::Sql if first == '\'' || first == '"' => (Inside::Quotes(first), 1),
            // A doubled quote ends and begins again, which comes to the same.
            Inside::Quotes(quote) if first == quote => (Inside::Sql, 1),
            Inside::LineComment if first == '\n' => (Inside::Sql, 1),
            Inside::Comment(open) if rest.starts_with("/*") => (Inside::Comment(open + 1), 2),
            Inside::Comment(1) if rest.starts_with("*/") => (Inside::Sql, 2),
            Inside::Comment(open) if rest.starts_with("*/") => (Inside::Comment(open - 1), 2),
            inside => (inside, 1),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    here: Place,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.here = match c {
            '\n' => Place { line: self.here.line + 1, column: 1 },
            _ => Place { column: self.here.column + 1, ..self.here },
        };
        Some(c)
    }

    /// Takes `${NAME}` and returns the name.
    fn variable(&mut self) -> Result<&'a str> {
        let at = self.here;
        let name = self.rest[2..].split_once('}').map(|(name, _)| name).unwrap_or_default();
        let well_formed = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        if !well_formed {
            let message = "a variable is written ${NAME}, with letters, digits and _ in its name";
            return Err(Error::sql_at(message, Some(at)));
        }
        for _ in 0..name.len() + 3 {
            self.take();
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Substituted> {
        substitute(text, &|name| match name {
            "A" => Some("aaa".into()),
            "Q" => Some("it's".into()),
            _ => None,
        })
    }

    #[test]
    fn values_stand_in_text_and_quotes_but_not_in_comments() {
        let text = "x ${A} '${Q}' -- ${B}\n/* ${B} /* ${B} */ ' */ ${A}";
        let expected = "x aaa 'it''s' -- ${B}\n/* ${B} /* ${B} */ ' */ aaa";
        assert_eq!(run(text).unwrap().text, expected);
    }

    #[test]
    fn secrets_in_with_keep_their_names() {
        for kept in [
            "CREATE SOURCE s WITH (lake = 'l', secret_access_key = '${A}')",
            "create source s with(\"aws_session_token\"='${Q}', lake = 'l')",
            "CREATE SOURCE s (WATERMARK FOR (ts) AS ts) WITH (account_key = '${A}' /* ) */, sas_key = '${Q}')",
        ] {
            assert_eq!(run(kept).unwrap().text, kept);
        }
        // Everywhere else a value stands for a name, also where a column is called so.
        let replaced = "CREATE SOURCE s WITH (endpoint = '${A}'); SELECT 1 WHERE token = '${A}' AND (token = '${A}')";
        assert_eq!(run(replaced).unwrap().text, replaced.replace("${A}", "aaa"));
        for part in
            ["WITH (token = 'x${A}')", "WITH (token = '${A}x')", "WITH (token = '${A}''')", "WITH token AS ('${A}')"]
        {
            assert!(run(part).unwrap().text.contains("aaa"), "{part}");
        }
        let message = run("CREATE SOURCE s WITH (token = '${B}')").err().unwrap().to_string();
        assert!(message.contains("${B} is not set"), "{message}");
    }

    #[test]
    fn places_are_those_of_the_original() {
        let s = run("${A} x\n  ${A}y").unwrap();
        assert_eq!(s.text, "aaa x\n  aaay");
        assert_eq!(s.origin(1, 5), Place { line: 1, column: 6 });
        assert_eq!(s.origin(2, 4), Place { line: 2, column: 3 });
        assert_eq!(s.origin(2, 6), Place { line: 2, column: 7 });
    }

    #[test]
    fn unset_and_malformed_are_errors_with_their_place() {
        let message = run("a\n '${B}'").err().unwrap().to_string();
        assert!(message.starts_with("line 2, column 3: ${B} is not set"), "{message}");
        assert!(run("${}").is_err() && run("${1a}").is_err() && run("${A").is_err());
    }
}
