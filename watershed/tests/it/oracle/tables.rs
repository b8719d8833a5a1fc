//! Dimension tables of a case: written as CSV, Parquet or Delta by other hands than ours, declared, and given to the oracle.

use std::fs::{self, File};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;

/// How a table is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Reads empty text back as NULL, as CSV does.
    Csv,
    Parquet,
    Delta,
}

/// A table that queries join.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) rows: RecordBatch,
    pub(crate) format: Format,
}

impl Table {
    pub(crate) fn new(name: &str, rows: RecordBatch, format: Format) -> Self {
        Table { name: name.to_string(), rows, format }
    }

    /// Writes the table into a folder of its name, as version 0.
    pub(crate) fn write(&self, folder: &Path) {
        self.write_version(folder, 0);
    }

    /// Puts these rows in place of those that are there.
    pub(crate) fn write_version(&self, folder: &Path, version: u64) {
        let root = folder.join(&self.name);
        fs::create_dir_all(&root).unwrap();
        match self.format {
            Format::Csv => {
                let file = File::create(root.join("rows.csv")).unwrap();
                arrow::csv::WriterBuilder::new().with_header(true).build(file).write(&self.rows).unwrap();
            }
            Format::Parquet => self.write_parquet(&root.join("rows.parquet")),
            Format::Delta => {
                let name = format!("rows-{version}.parquet");
                self.write_parquet(&root.join(&name));
                self.log(&root, version, &name);
            }
        }
    }

    /// The statement that declares it.
    pub(crate) fn statement(&self, folder: &str) -> String {
        let (name, location) = (&self.name, format!("{folder}/{}", self.name));
        let columns = match self.format {
            Format::Csv => {
                let fields = self.rows.schema().fields().clone();
                let columns: Vec<_> =
                    fields.iter().map(|f| format!("{} {}", f.name(), names(f.data_type()).0)).collect();
                format!(" ({})", columns.join(", "))
            }
            _ => String::new(),
        };
        let format = format!("{:?}", self.format).to_uppercase();
        format!("CREATE EXTERNAL TABLE {name}{columns} STORED AS {format} LOCATION '{location}';\n")
    }

    fn write_parquet(&self, path: &Path) {
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), self.rows.schema(), None).unwrap();
        writer.write(&self.rows).unwrap();
        writer.close().unwrap();
    }

    /// A log entry as the Delta protocol has it: version 0 makes the table, a later one replaces its file.
    fn log(&self, root: &Path, version: u64, file: &str) {
        let size = fs::metadata(root.join(file)).unwrap().len();
        let add = serde_json::json!({"add": {"path": file, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true}});
        let mut actions = vec![add];
        if version == 0 {
            let fields = self.rows.schema().fields().clone();
            let fields: Vec<_> = fields
                .iter()
                .map(|f| serde_json::json!({"name": f.name(), "type": names(f.data_type()).1, "nullable": true, "metadata": {}}))
                .collect();
            let schema = serde_json::json!({"type": "struct", "fields": fields}).to_string();
            let format = serde_json::json!({"provider": "parquet", "options": {}});
            let metadata = serde_json::json!({"id": self.name, "format": format, "schemaString": schema, "partitionColumns": [], "configuration": {}});
            actions.push(serde_json::json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}));
            actions.push(serde_json::json!({"metaData": metadata}));
        } else {
            let old = format!("rows-{}.parquet", version - 1);
            actions.push(serde_json::json!({"remove": {"path": old, "deletionTimestamp": 0, "dataChange": true}}));
        }
        let lines: Vec<_> = actions.iter().map(|action| action.to_string()).collect();
        fs::create_dir_all(root.join("_delta_log")).unwrap();
        fs::write(root.join("_delta_log").join(format!("{version:020}.json")), lines.join("\n")).unwrap();
    }
}

/// A type's names in SQL and in Delta.
fn names(data_type: &DataType) -> (&'static str, &'static str) {
    match data_type {
        DataType::Int32 => ("INT", "integer"),
        DataType::Int64 => ("BIGINT", "long"),
        DataType::Float64 => ("DOUBLE", "double"),
        DataType::Utf8 => ("VARCHAR", "string"),
        DataType::Boolean => ("BOOLEAN", "boolean"),
        other => panic!("a test table of {other} has to be taught to write it"),
    }
}
