//! What a CREATE comes to, given what the catalog has: a pure decision.
//!
//! A statement is known by its normalised text, in which OR REPLACE and IF NOT EXISTS have no part: they say what to do about
//! another statement of the same name, not what this one makes. A job whose statement gains an OR REPLACE is built anew, even
//! if nothing else changed; said again, the very same statement resumes, so that a file with OR REPLACE in it can be killed and
//! run again like any other. To build such a one anew, DROP comes first.

use watershed_core::error::Place;
use watershed_core::{Error, Result};
use watershed_plan::{Statement, parse};

use crate::catalog::{Entry, Kind};
use crate::diff::diff;

/// What to do about a CREATE.
#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    /// The name is free.
    Create,
    /// The very statement is in the catalog: go on with it.
    Resume(Entry),
    /// It takes the place of this one.
    Replace(Entry),
    /// IF NOT EXISTS, and something else exists.
    Keep(Entry),
}

/// What the statement itself says about others of its name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
}

/// The statement as the catalog keeps it, and its manners.
pub(crate) fn canonical(statement: &Statement) -> (String, Manners) {
    let mut plain = statement.clone();
    let mut manners = Manners::default();
    let mut take = |or_replace: &mut bool, if_not_exists: Option<&mut bool>| {
        manners.or_replace = std::mem::take(or_replace);
        manners.if_not_exists = if_not_exists.is_some_and(std::mem::take);
    };
    match &mut plain {
        Statement::CreateSource(s) => take(&mut s.or_replace, None),
        Statement::CreateView(s) => take(&mut s.or_replace, None),
        Statement::CreateMaterializedView(s) => take(&mut s.or_replace, Some(&mut s.if_not_exists)),
        Statement::CreateSink(s) => take(&mut s.or_replace, Some(&mut s.if_not_exists)),
        Statement::CreateTable(s) => take(&mut s.or_replace, Some(&mut s.if_not_exists)),
        Statement::CreateExternalTable(s) => take(&mut s.or_replace, Some(&mut s.if_not_exists)),
        _ => {}
    }
    (plain.to_string(), manners)
}

/// Decides. `existing` is what has the name: for relations of any kind, for INSERT jobs among those.
pub(crate) fn decide(
    existing: Option<&Entry>,
    kind: Kind,
    name: &str,
    text: &str,
    manners: Manners,
    at: Place,
) -> Result<Decision> {
    match existing {
        None => Ok(Decision::Create),
        Some(other) if other.kind != kind => Err(Error::sql_at(
            format!(
                "{name} is the name of {0}; drop it first (DROP {1} {name}) or take another name",
                other.kind.one(),
                words(other.kind)
            ),
            Some(at),
        )),
        Some(same) if same.statement == text => match kind.is_job() && manners.or_replace && !same.or_replace {
            true => Ok(Decision::Replace(same.clone())),
            false => Ok(Decision::Resume(same.clone())),
        },
        Some(other) if manners.or_replace => Ok(Decision::Replace(other.clone())),
        Some(other) if manners.if_not_exists => Ok(Decision::Keep(other.clone())),
        Some(other) => Err(Error::sql_at(changed(other, text), Some(at))),
    }
}

fn changed(other: &Entry, text: &str) -> String {
    let what_to_do = match other.kind {
        Kind::Insert => format!(
            "give the new one a name of its own (INSERT INTO … WITH (job = '…') …), or drop the table that {} writes to",
            other.name
        ),
        kind => format!("to put it in place of the old one, write CREATE OR REPLACE {} {}", words(kind), other.name),
    };
    format!(
        "{} {} was created by another statement (- then, + now):\n{}\n{what_to_do}",
        other.kind,
        other.name,
        diff(&pretty(&other.statement), &pretty(text))
    )
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "SOURCE",
        Kind::View => "VIEW",
        Kind::MaterializedView => "MATERIALIZED VIEW",
        Kind::Table => "TABLE",
        Kind::ExternalTable => "EXTERNAL TABLE",
        Kind::Insert => "INSERT",
        Kind::Sink => "SINK",
    }
}

/// A normalised text, which is one line, over several; for people only.
pub(crate) fn pretty(text: &str) -> String {
    let statement =
        parse(text, &|name| Some(format!("${{{name}}}"))).ok().and_then(|mut all| all.pop()).map(|p| p.statement);
    let query = match &statement {
        Some(Statement::CreateMaterializedView(s)) => &s.query,
        Some(Statement::CreateSink(s)) => &s.query,
        Some(Statement::CreateView(s)) => &s.query,
        Some(Statement::Insert(s)) => &s.query,
        _ => return text.replace(" WITH (", "\nWITH (").replace(", ", ",\n  "),
    };
    match text.strip_suffix(&query.to_string()) {
        Some(head) => format!("{}\n{query:#}", head.trim_end()),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;
    use watershed_core::EventTime;

    use super::*;

    const AT: Place = Place { line: 3, column: 1 };

    fn statement(text: &str) -> Statement {
        parse(text, &|_| None).unwrap().remove(0).statement
    }

    fn entry(text: &str, kind: Kind) -> Entry {
        Entry {
            format: 1,
            kind,
            name: "v".into(),
            generation: 1,
            statement: canonical(&statement(text)).0,
            location: None,
            incarnation: Uuid::nil(),
            or_replace: false,
            replaced: vec![],
            fixed: BTreeMap::new(),
            views: BTreeMap::new(),
            created: EventTime(0),
            dropped: false,
        }
    }

    fn decide_on(existing: &Entry, text: &str) -> Result<Decision> {
        let (text, manners) = canonical(&statement(text));
        decide(Some(existing), Kind::MaterializedView, "v", &text, manners, AT)
    }

    #[test]
    fn the_same_statement_resumes_however_it_is_written() {
        let old = entry("CREATE MATERIALIZED VIEW v AS SELECT a FROM s", Kind::MaterializedView);
        for same in [
            "create materialized view v as\n -- a comment\n select a from s",
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT a FROM s",
        ] {
            assert_eq!(decide_on(&old, same).unwrap(), Decision::Resume(old.clone()), "{same}");
        }
        // OR REPLACE builds anew once, and then resumes, said or not.
        let replace = "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT a FROM s";
        assert_eq!(decide_on(&old, replace).unwrap(), Decision::Replace(old.clone()));
        let replaced = Entry { or_replace: true, ..old };
        for same in [replace, "CREATE MATERIALIZED VIEW v AS SELECT a FROM s"] {
            assert_eq!(decide_on(&replaced, same).unwrap(), Decision::Resume(replaced.clone()), "{same}");
        }
    }

    #[test]
    fn another_statement_is_refused_with_the_difference_or_does_as_it_says() {
        let old = entry("CREATE MATERIALIZED VIEW v AS SELECT a FROM s WHERE a > 1", Kind::MaterializedView);
        let refused = decide_on(&old, "CREATE MATERIALIZED VIEW v AS SELECT a FROM s WHERE a > 2").unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with("line 3, column 1: materialized view v was created by another"), "{text}");
        assert!(
            text.contains("\n-   a > 1\n+   a > 2\n") && text.contains("CREATE OR REPLACE MATERIALIZED VIEW v"),
            "{text}"
        );
        let replace = decide_on(&old, "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT b FROM s").unwrap();
        assert_eq!(replace, Decision::Replace(old.clone()));
        let keep = decide_on(&old, "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT b FROM s").unwrap();
        assert_eq!(keep, Decision::Keep(old));
    }

    #[test]
    fn a_name_of_another_kind_is_taken() {
        let old = entry("CREATE VIEW v AS SELECT a FROM s", Kind::View);
        let text = decide_on(&old, "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT a FROM s").unwrap_err().to_string();
        assert!(text.contains("v is the name of a view; drop it first (DROP VIEW v)"), "{text}");
    }
}
