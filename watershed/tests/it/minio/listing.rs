//! A folder source of more objects than a page of a listing holds, which is a thousand.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use futures::{StreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use watershed::Engine;

use super::server::shared;

const DAYS: i64 = 26;
const A_DAY: i64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_lists_what_takes_several_pages() {
    let Some(server) = shared() else { return };
    let bucket = server.bucket("listing");
    let store = bucket.store();
    let day = 86_400_000_000;
    let puts = stream::iter((0..DAYS * A_DAY).map(|n| {
        let path = Path::from(format!("lake/day=2024-01-{:02}/{:04}.parquet", 1 + n / A_DAY, n % A_DAY));
        let at = (19_723 + n / A_DAY) * day + n % A_DAY;
        let columns: [(&str, ArrayRef); 2] = [
            ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values([at]))),
            ("n", Arc::new(Int64Array::from_iter_values([n]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut file = vec![];
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let store = &store;
        async move { store.put(&path, file.into()).await.unwrap() }
    }));
    puts.buffer_unordered(16).for_each(async |_| {}).await;

    let engine = Engine::builder().home(bucket.at("home")).stores(server.stores()).build().unwrap();
    let text = format!(
        "CREATE SOURCE s (WATERMARK FOR ts AS ts) WITH (lake = '{}', bounded = 'true');
         CREATE MATERIALIZED VIEW v AS SELECT date_trunc('day', ts) AS day, count(*) AS n, sum(n) AS total FROM s GROUP BY 1;",
        bucket.at("lake")
    );
    engine.execute(&text).await.unwrap();
    let rows = engine.query("SELECT count(*), sum(n), sum(total) FROM v").await.unwrap();
    let number = |column: usize| rows[0].column(column).as_primitive::<Int64Type>().value(0);
    let all = DAYS * A_DAY;
    assert_eq!((number(0), number(1), number(2)), (DAYS, all, all * (all - 1) / 2));
    let again = engine.execute(&text).await.unwrap();
    assert!(format!("{again:?}").contains("nothing_new: true"), "{again:?}");
}
