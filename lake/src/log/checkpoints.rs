//! Log checkpoints by their names: which of them are whole. Pure.

use std::collections::BTreeMap;

use object_store::ObjectMeta;

use super::is_commit;

/// The files of the newest whole checkpoint at or before a version.
pub(crate) fn newest_checkpoint(files: &[(u64, ObjectMeta)], version: u64) -> (Option<u64>, Vec<&ObjectMeta>) {
    let mut by_version: BTreeMap<u64, Vec<(&ObjectMeta, Vec<&str>)>> = BTreeMap::new();
    for (v, meta) in files.iter().filter(|(v, meta)| *v <= version && !is_commit(&meta.location)) {
        let parts: Vec<&str> = meta.location.filename().unwrap_or_default().split('.').collect();
        if parts.get(1) == Some(&"checkpoint") {
            by_version.entry(*v).or_default().push((meta, parts));
        }
    }
    for (v, found) in by_version.into_iter().rev() {
        // `v.checkpoint.parquet`, or with a UUID (V2): one file says all that is not about files.
        if let Some((meta, _)) = found.iter().find(|(_, parts)| parts.len() <= 4) {
            return (Some(v), vec![meta]);
        }
        // `v.checkpoint.part.of.parquet`: whole only if all parts are there.
        let whole = found.iter().filter_map(|(_, parts)| parts.get(3)?.parse::<usize>().ok()).max();
        if whole == Some(found.len()) {
            return (Some(v), found.into_iter().map(|(meta, _)| meta).collect());
        }
    }
    (None, vec![])
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;

    fn file(name: &str) -> (u64, ObjectMeta) {
        let version = name[..20].parse().unwrap();
        let location = Path::from(format!("t/_delta_log/{name}"));
        let last_modified = chrono::DateTime::from_timestamp_micros(0).unwrap();
        (version, ObjectMeta { location, last_modified, size: 1, e_tag: None, version: None })
    }

    #[test]
    fn takes_the_newest_whole_checkpoint() {
        let files = [
            file("00000000000000000002.checkpoint.parquet"),
            file("00000000000000000005.checkpoint.0000000001.0000000002.parquet"),
            file("00000000000000000005.checkpoint.0000000002.0000000002.parquet"),
            file("00000000000000000006.json"),
            file("00000000000000000007.checkpoint.0000000001.0000000002.parquet"),
            file("00000000000000000009.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json"),
        ];
        let base = |version| {
            let (base, files) = newest_checkpoint(&files, version);
            (base, files.len())
        };
        assert_eq!(base(1), (None, 0));
        assert_eq!(base(4), (Some(2), 1));
        assert_eq!(base(8), (Some(5), 2));
        assert_eq!(base(9), (Some(9), 1));
    }
}
