//! Column mapping: the log and the files speak of stored names, the layout of the table's.

use serde_json::{Value, json};
use watershed_core::history::{FIELD_ID, Times};
use watershed_core::time::EventTime;
use watershed_lake::{HistoryOptions, open_history};

use crate::fixtures::*;

/// Makes version 2 of table `t`: its columns are mapped, and renamed to `NAME_now`.
fn map_columns(lake: &Lake, mode: &str, stored: impl Fn(&str) -> Option<String>) {
    let mut metadata = entry(lake, "t", 0).into_iter().find(|a| !a["metaData"].is_null()).unwrap();
    let mut schema: Value = serde_json::from_str(metadata["metaData"]["schemaString"].as_str().unwrap()).unwrap();
    for (i, field) in schema["fields"].as_array_mut().unwrap().iter_mut().enumerate() {
        let name = field["name"].as_str().unwrap().to_string();
        field["name"] = json!(format!("{name}_now"));
        field["metadata"] = json!({"delta.columnMapping.id": i + 1, "delta.typeChanges": [], "comment": "kept"});
        if let Some(stored) = stored(&name) {
            field["metadata"]["delta.columnMapping.physicalName"] = json!(stored);
        }
    }
    metadata["metaData"]["schemaString"] = json!(schema.to_string());
    metadata["metaData"]["configuration"] = json!({"delta.columnMapping.mode": mode});
    metadata["metaData"]["partitionColumns"] = json!(["ts_day_now"]);
    let protocol = json!({"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}});
    put_entry(lake, "t", 2, &[protocol, metadata]);
}

fn options() -> HistoryOptions {
    HistoryOptions { time_column: Some("ts_now".to_string()), ..HistoryOptions::default() }
}

#[tokio::test]
async fn values_and_statistics_are_found_by_stored_names() {
    for mode in ["name", "id"] {
        let lake = Lake::new();
        let sink = lake.sink("t", "day(ts)").await;
        put(&sink, 1, &[(DAY + 5, 1), (DAY + 7, 2), (0, 3)]).await;
        map_columns(&lake, mode, |name| Some(name.to_string()));
        let history = open_history(&lake.stores, &lake.at("t"), &options()).await.unwrap();
        let layout = history.layout();
        let names = |schema: &arrow::datatypes::Schema| -> Vec<String> {
            schema.fields().iter().map(|f| f.name().to_string()).collect()
        };
        assert_eq!(names(&layout.file_schema), ["ts_now", "k_now", "v_now"]);
        assert_eq!(layout.partition_columns[0].name(), "ts_day_now");
        assert_eq!(layout.time_partition.as_ref().unwrap().0, "ts_day_now");
        let stored = layout.stored.as_ref().unwrap();
        assert_eq!(names(stored), ["ts", "k", "v", "ts_day"]);
        let ids: Vec<_> = stored.fields().iter().map(|f| f.metadata().get(FIELD_ID).cloned()).collect();
        let numbered = ["1", "2", "3", "4"].map(|id| (mode == "id").then(|| id.to_string()));
        assert_eq!(ids, numbered);
        // What the log alone is concerned with is not passed on.
        let kept: Vec<_> = layout.file_schema.field(0).metadata().keys().map(String::as_str).collect();
        assert_eq!(kept, ["comment"]);

        let snapshot = history.pin(None).await.unwrap();
        let starts: Vec<i64> = snapshot.partitions.iter().map(|p| p.interval.start.0).collect();
        assert_eq!(starts, [0, DAY]);
        let file = &snapshot.partitions[1].files[0];
        assert_eq!(file.values, [Some("1970-01-02".to_string())]);
        assert_eq!(file.times, Times::Known { min: EventTime(DAY + 5), max: EventTime(DAY + 7), nulls: 0 });

        // Without statistics the footer is asked, under the stored name; by number it might have another.
        let mut unknown = file.clone();
        unknown.times = Times::Unknown;
        history.look(&mut [&mut unknown]).await.unwrap();
        assert_eq!(unknown.times != Times::Unknown, mode == "name");
    }
}

#[tokio::test]
async fn a_mapping_that_is_not_understood_is_refused() {
    // A column without its name is found by the kernel or by us, whoever is first.
    for (mode, missing, words) in [
        ("name", "v", ["v_now", "physical"]),
        ("letters", "", ["delta.columnMapping.mode = 'letters'", "which Watershed does not know"]),
    ] {
        let lake = Lake::new();
        let sink = lake.sink("t", "day(ts)").await;
        put(&sink, 1, &[(0, 1)]).await;
        map_columns(&lake, mode, |name| (name != missing).then(|| name.to_string()));
        let error = open_history(&lake.stores, &lake.at("t"), &options()).await.err().unwrap().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
