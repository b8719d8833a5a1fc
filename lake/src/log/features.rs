//! What a table asks of its readers and writers, and what of it Watershed can do. Pure.
//!
//! A feature that is not known is refused by name: reading on could give wrong rows, writing on could break the table.
//! Delta protocol, "Table Features" and "Requirements for Writers".

use std::collections::BTreeSet;

use watershed_core::{Error, Result};

use super::columns::{Mapping, mapping};
use super::{LogMetadata, LogProtocol, TableState};
use crate::keyed::PRIMARY_KEY;

const VECTORS: &str = "deletionVectors";
/// The property by which a table keeps a change data feed.
pub(crate) const FEEDS_CHANGES: &str = "delta.enableChangeDataFeed";
const ENABLE_VECTORS: &str = "delta.enableDeletionVectors";

/// Reader features that the history heeds, or that concern those who clean up alone.
const READABLE: &[&str] = &[
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

/// Writer features under which a plain append needs nothing more than we do.
const APPENDABLE: &[&str] = &[
    "appendOnly",
    "changeDataFeed",
    "deletionVectors",
    "invariants",
    "checkConstraints",
    "generatedColumns",
    "identityColumns",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

/// Writer features that leave it to the log which files a table needs, and to time when one goes.
const VACUUMABLE: &[&str] =
    &["columnMapping", "domainMetadata", "inCommitTimestamp", "rowTracking", "typeWidening", "typeWidening-preview"];

/// Errors unless every feature that a reader must know is known.
pub(crate) fn check_readable(table: &str, protocol: &LogProtocol) -> Result<()> {
    let refuse = |feature: &str| {
        Err(Error::input(format!(
            "table {table} uses the reader feature '{feature}', which Watershed cannot read yet; rewrite it without \
             the feature, or read a copy"
        )))
    };
    let mut features = protocol.reader_features.iter().flatten().map(String::as_str);
    match features.find(|f| !READABLE.contains(f)) {
        Some(feature) => refuse(feature),
        None if protocol.min_reader_version > 3 => refuse(&format!("reader version {}", protocol.min_reader_version)),
        None => Ok(()),
    }
}

/// Errors unless files can be appended without doing more than writing and adding them.
pub(crate) fn check_appendable(table: &str, protocol: &LogProtocol, metadata: &LogMetadata) -> Result<()> {
    let refuse = |what: String| Err(Error::input(format!("table {table} {what}, which Watershed cannot write yet")));
    if maps_columns(metadata) {
        return refuse("uses the writer feature 'columnMapping'".to_string());
    }
    if protocol.min_writer_version > 7 {
        return refuse(format!("asks for writer version {}", protocol.min_writer_version));
    }
    let features = protocol.writer_features.iter().flatten().map(String::as_str);
    if let Some(feature) = features.filter(|f| *f != "columnMapping").find(|f| !APPENDABLE.contains(f)) {
        return refuse(format!("uses the writer feature '{feature}'"));
    }
    if let Some(name) = metadata.configuration.keys().find_map(|key| key.strip_prefix("delta.constraints.")) {
        return refuse(format!("has the check constraint '{name}'"));
    }
    for (mark, what) in [
        ("delta.generationExpression", "generated columns"),
        ("delta.identity.", "identity columns"),
        ("delta.invariants", "column invariants"),
    ] {
        // Column metadata keys stand in the schema's JSON as they are.
        if metadata.schema_string.contains(&format!("\"{mark}")) {
            return refuse(format!("has {what}"));
        }
    }
    if let Some(span) = metadata.configuration.get("delta.setTransactionRetentionDuration") {
        return Err(Error::input(format!(
            "table {table} forgets transactions after {span} (delta.setTransactionRetentionDuration): a restarted job \
             could not tell what it committed; remove the property"
        )));
    }
    Ok(())
}

/// Errors unless what the table needs can be told from its log as it is read here. What a reader must know counts as well: a
/// feature may name files in a way of its own, which is why the feature `vacuumProtocolCheck` was made.
pub(crate) fn check_vacuumable(table: &str, protocol: &LogProtocol) -> Result<()> {
    check_readable(table, protocol)?;
    let refuse = |what: String| {
        Err(Error::input(format!(
            "table {table} {what}, which Watershed does not know: files that it needs could be taken for garbage, so nothing is \
             removed; vacuum it with what wrote it"
        )))
    };
    if protocol.min_writer_version > 7 {
        return refuse(format!("asks for writer version {}", protocol.min_writer_version));
    }
    let mut features = protocol.writer_features.iter().flatten().map(String::as_str);
    match features.find(|f| !APPENDABLE.contains(f) && !VACUUMABLE.contains(f)) {
        Some(feature) => refuse(format!("uses the writer feature '{feature}'")),
        None => Ok(()),
    }
}

/// Errors unless rows may be replaced.
pub(crate) fn check_replaceable(table: &str, metadata: &LogMetadata) -> Result<()> {
    let on = |property: &str| metadata.configuration.get(property).is_some_and(|on| on == "true");
    if on("delta.appendOnly") {
        return Err(Error::input(format!(
            "table {table} may only be appended to (delta.appendOnly), so no row of it can be replaced; remove the \
             property, or write to another table"
        )));
    }
    Ok(())
}

/// Whether commits that replace rows have to say so in change files.
pub(crate) fn feeds_changes(metadata: &LogMetadata) -> bool {
    metadata.configuration.get(FEEDS_CHANGES).is_some_and(|on| on == "true")
}

/// The protocol and metadata with which a table may have deletion vectors; `None` if it has them already.
///
/// What the protocol had by its version alone has to be named once it has a list of features. Delta protocol, "Table
/// Features".
pub(crate) fn with_deletion_vectors(
    table: &str,
    state: &TableState,
    upgrade: bool,
) -> Result<Option<(LogProtocol, LogMetadata)>> {
    let (protocol, metadata) = (&state.protocol, &state.metadata);
    let listed = |features: &Option<Vec<String>>| features.iter().flatten().any(|f| f == VECTORS);
    let enabled = metadata.configuration.get(ENABLE_VECTORS).is_some_and(|on| on == "true");
    if enabled && listed(&protocol.reader_features) && listed(&protocol.writer_features) {
        return Ok(None);
    }
    let ours = metadata.configuration.contains_key(PRIMARY_KEY);
    if !ours && !upgrade {
        return Err(Error::input(format!(
            "table {table} was not made by Watershed and does not use deletion vectors, by which rows are replaced; to have \
             it changed so that it does (older readers then refuse it), allow it: --upgrade"
        )));
    }
    let older = |version: i32| -> &[&str] {
        match version {
            ..2 => &[],
            2 => &["appendOnly", "invariants"],
            3 => &["appendOnly", "invariants", "checkConstraints"],
            4 => &["appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns"],
            _ => &[
                "appendOnly",
                "invariants",
                "checkConstraints",
                "changeDataFeed",
                "generatedColumns",
                "columnMapping",
                "identityColumns",
            ],
        }
    };
    let with = |known: &Option<Vec<String>>, built_in: &[&str]| {
        let known = known.iter().flatten().cloned().chain(built_in.iter().map(|f| f.to_string()));
        let all: BTreeSet<String> = known.chain([VECTORS.to_string()]).collect();
        Some(all.into_iter().collect())
    };
    let built_in = if protocol.min_writer_version < 7 { older(protocol.min_writer_version) } else { &[] };
    // Reader version 2 is column mapping, which writers here refuse.
    let protocol = LogProtocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: with(&protocol.reader_features, &[]),
        writer_features: with(&protocol.writer_features, built_in),
    };
    let mut metadata = metadata.clone();
    metadata.configuration.insert(ENABLE_VECTORS.to_string(), "true".to_string());
    Ok(Some((protocol, metadata)))
}

fn maps_columns(metadata: &LogMetadata) -> bool {
    mapping(metadata) != Ok(Mapping::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(reader: &[&str], writer: &[&str]) -> LogProtocol {
        let own = |names: &[&str]| Some(names.iter().map(|n| n.to_string()).collect());
        LogProtocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: own(reader),
            writer_features: own(writer),
        }
    }

    fn metadata(key: &str, value: &str) -> LogMetadata {
        LogMetadata { configuration: [(key.to_string(), value.to_string())].into(), ..Default::default() }
    }

    #[test]
    fn refuses_by_name() {
        check_readable("t", &LogProtocol { min_reader_version: 1, ..Default::default() }).unwrap();
        check_readable("t", &LogProtocol { min_reader_version: 2, ..Default::default() }).unwrap();
        check_readable("t", &protocol(READABLE, &[])).unwrap();
        let error = check_readable("t", &protocol(&["deletionVectors", "variantType"], &[])).unwrap_err().to_string();
        assert!(error.starts_with("table t uses the reader feature 'variantType', which Watershed cannot read yet"));
        let newer = LogProtocol { min_reader_version: 4, ..Default::default() };
        let error = check_readable("t", &newer).unwrap_err().to_string();
        assert!(error.contains("'reader version 4'"), "{error}");
    }

    #[test]
    fn refuses_to_vacuum_what_is_not_known() {
        check_vacuumable("t", &LogProtocol { min_reader_version: 1, min_writer_version: 2, ..Default::default() })
            .unwrap();
        check_vacuumable("t", &protocol(READABLE, &["appendOnly", "columnMapping", "vacuumProtocolCheck"])).unwrap();
        let newer = LogProtocol { min_reader_version: 1, min_writer_version: 8, ..Default::default() };
        for (protocol, words) in [
            (protocol(&["catalogManaged"], &[]), "reader feature 'catalogManaged'"),
            (protocol(&[], &["icebergCompatV2"]), "writer feature 'icebergCompatV2'"),
            (newer, "writer version 8"),
        ] {
            let error = check_vacuumable("t", &protocol).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn refuses_what_an_append_would_break() {
        let plain = LogMetadata::default();
        check_appendable("t", &protocol(&[], &["appendOnly", "deletionVectors"]), &plain).unwrap();
        let cases = [
            (protocol(&[], &["rowTracking"]), plain.clone(), "'rowTracking'"),
            (protocol(&[], &[]), metadata("delta.constraints.positive", "x > 0"), "check constraint 'positive'"),
            (
                protocol(&[], &[]),
                metadata("delta.setTransactionRetentionDuration", "interval 7 days"),
                "interval 7 days",
            ),
            (
                protocol(&[], &[]),
                LogMetadata { schema_string: r#"{"delta.invariants":"x"}"#.to_string(), ..Default::default() },
                "column invariants",
            ),
        ];
        for (protocol, metadata, words) in cases {
            let error = check_appendable("t", &protocol, &metadata).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
