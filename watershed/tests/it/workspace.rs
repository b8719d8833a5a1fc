//! The shape of the workspace (design §9): which crate may know which, and where the lake's client may be named.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Every member and the members it may depend on; dev-dependencies are exempt.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("watershed-core", &[]),
    ("watershed-operators", &["watershed-core"]),
    ("watershed-plan", &["watershed-core", "watershed-operators"]),
    ("watershed-runtime", &["watershed-core"]),
    ("watershed-lake", &["watershed-core"]),
    ("watershed-files", &["watershed-core"]),
    ("watershed-formats", &["watershed-core"]),
    ("watershed-generator", &["watershed-core"]),
    ("watershed-kafka", &["watershed-core"]),
    // Reads and computes by itself, to be compared with.
    ("watershed-peer", &[]),
    ("watershed-writer", &["watershed-core", "watershed-lake"]),
    (
        "watershed",
        &[
            "watershed-core",
            "watershed-files",
            "watershed-formats",
            "watershed-generator",
            "watershed-kafka",
            "watershed-lake",
            "watershed-operators",
            "watershed-plan",
            "watershed-runtime",
        ],
    ),
];

/// Crates that only one member may name.
const PRIVATE: [(&str, &str); 3] =
    [("deltalake", "watershed-lake"), ("buoyant_kernel", "watershed-lake"), ("indicatif", "watershed")];

/// The members' dependencies by kind: name, to normal and build dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let package = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let used = all.filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap().to_string());
        (package["name"].as_str().unwrap().to_string(), used.collect())
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn crates_know_only_those_they_may() {
    let found = dependencies();
    let names: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "a crate came or went: say in ALLOWED what it may know");
    for (name, allowed) in ALLOWED {
        let members = found[name].iter().map(String::as_str).filter(|d| known.contains(d));
        let strangers: Vec<&str> = members.filter(|d| !allowed.contains(d)).collect();
        assert!(strangers.is_empty(), "{name} must not know {strangers:?}");
    }
}

#[test]
fn clients_of_the_outside_world_have_one_home() {
    for (client, home) in PRIVATE {
        let users: Vec<_> =
            dependencies().into_iter().filter(|(_, d)| d.contains(client)).map(|(name, _)| name).collect();
        assert_eq!(users, [home], "{client}");
    }
}

#[test]
fn core_knows_no_engine_and_does_no_io() {
    let core = &dependencies()["watershed-core"];
    for stranger in ["datafusion", "tokio", "object_store", "parquet", "deltalake", "reqwest"] {
        assert!(!core.contains(stranger), "watershed-core must not know {stranger}");
    }
}
