//! The account of a bound fragment: every row once, whatever statistics and marks left out.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use watershed_core::account::Account;
use watershed_core::history::{DataFile, DeletedRows};
use watershed_core::scan::{Inspect, Reason, Rejects, ScanFile, ScanInput};
use watershed_core::time::{EventTime, Span};

use super::fixture::{Fixture, fixture, midnight};

#[derive(Debug, Default)]
struct Kept(Mutex<u64>);

impl Rejects for Kept {
    fn take(&self, _: Reason, rows: RecordBatch) -> watershed_core::Result<()> {
        *self.0.lock().unwrap() += rows.num_rows() as u64;
        Ok(())
    }
}

async fn account(f: &Fixture, sql: &str, input: ScanInput) -> Account {
    let lowered = f.lower(sql).await.unwrap();
    let plan = lowered.fragment.bind(&[input]).unwrap();
    f.run(Arc::clone(&plan)).await;
    let account = lowered.fragment.account(&plan).unwrap();
    account.balance().unwrap();
    account
}

fn clean(files: &[ScanFile]) -> ScanInput {
    ScanInput { files: files.to_vec(), log: vec![], inspect: None, rejects: None }
}

#[tokio::test]
async fn filters_row_groups_and_files_are_told_apart() {
    let f = fixture();
    let all = account(&f, "SELECT date, delay FROM flights WHERE delay > 0", clean(&f.files)).await;
    assert_eq!((all.files, all.row_groups, all.opened), (3, 15, 72));
    // Of a day, hours 4 to 23 have a delay above zero, but for every fifth, which has none.
    assert_eq!((all.used, all.filtered), (48, 24));
    // From 16:00 on: of row groups of five rows those that begin at 15:00 and 20:00 are opened.
    let late = account(&f, "SELECT date FROM flights WHERE delay > 12", clean(&f.files)).await;
    assert_eq!((late.opened, late.row_groups, late.pruned_rows, late.pruned_row_groups), (27, 6, 45, 9));
    assert_eq!(late.used + late.filtered, 27);
    let day = account(&f, "SELECT date FROM flights WHERE day = DATE '2024-01-02'", clean(&f.files)).await;
    assert_eq!((day.opened, day.used, day.files, day.pruned_files), (24, 24, 1, 2));
    // No column of the files is read.
    let none = account(&f, "SELECT day FROM flights", clean(&f.files)).await;
    assert_eq!((none.opened, none.used, none.row_groups), (72, 72, 15));
}

#[tokio::test]
async fn late_and_bad_rows_are_not_used() {
    let f = fixture();
    let sql = "SELECT window_start, count(*) AS n FROM HOP(flights, date, INTERVAL '1 hour', INTERVAL '2 hours') \
               WHERE delay > 0 GROUP BY window_start";
    let kept = Arc::new(Kept::default());
    let watermark = EventTime(midnight(1).0 + 3 * Span::HOUR.0);
    let ahead = EventTime(midnight(2).0 + 20 * Span::HOUR.0);
    let inspect = Some(Inspect { watermark, ahead, rejects: Arc::clone(&kept) as _ });
    let account = account(&f, sql, ScanInput { files: f.files.clone(), log: vec![], inspect, rejects: None }).await;
    assert_eq!((account.late, account.partly_late, account.bad), (26, 1, 3));
    assert_eq!(account.opened, 72);
    assert_eq!(*kept.0.lock().unwrap(), 26 + 1 + 3);
}

/// A file of one row group, in pages of a hundred rows, some of them marked.
#[tokio::test]
async fn pages_and_marks() {
    let f = fixture();
    let schema = super::fixture::layout(f.folder.path()).file_schema;
    let n = 1000;
    let nulls = |i: usize| arrow::array::new_null_array(schema.field(i).data_type(), n);
    let delays: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(0..n as i64));
    let columns = vec![nulls(0), nulls(1), nulls(2), delays, nulls(4)];
    let path = f.folder.path().join("paged.parquet");
    let properties = WriterProperties::builder().set_data_page_row_count_limit(100).set_write_batch_size(100).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    writer.close().unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    let path = object_store::path::Path::from_filesystem_path(&path).unwrap();
    let file = DataFile { values: vec![Some("2024-01-01".into())], ..DataFile::new(path, size) };
    let scan = |runs: Vec<std::ops::Range<u64>>| {
        let deleted = (!runs.is_empty()).then(|| Arc::new(DeletedRows { rows: n as u64, runs }));
        clean(&[ScanFile { file: file.clone(), range: None, deleted }])
    };
    let sql = "SELECT delay FROM flights WHERE delay >= 650";
    let plain = account(&f, sql, scan(vec![])).await;
    assert_eq!((plain.opened, plain.used, plain.filtered, plain.deleted), (1000, 350, 650, 0));
    let marked = account(&f, sql, scan(vec![0..10, 640..660, 990..1000])).await;
    assert_eq!((marked.opened, marked.used, marked.filtered, marked.deleted), (960, 330, 630, 40));
    // All rows marked: nothing is opened, and nothing of it is a matter of statistics.
    let gone = account(&f, sql, scan(vec![0..1, 1..n as u64])).await;
    assert_eq!((gone.opened, gone.deleted, gone.pruned_rows, gone.row_groups), (0, 1000, 0, 0));
    let ruled_out = account(&f, "SELECT delay FROM flights WHERE delay > 5000", scan(vec![])).await;
    assert_eq!((ruled_out.opened, ruled_out.pruned_rows, ruled_out.pruned_row_groups), (0, 1000, 1));
}
