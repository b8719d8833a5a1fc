"""Reads Delta tables with one reader, and leaves what it read in Parquet files.

    python read.py READER < tables.json

`tables` are objects with `name`, `location` and `answer`, the file to write; `s3` has endpoint, key, secret where they are
in a bucket.
"""

import json
import os
import sys


def storage(s3):
    if not s3:
        return {}
    return {
        "AWS_ENDPOINT_URL": "http://" + s3["endpoint"],
        "AWS_ACCESS_KEY_ID": s3["key"],
        "AWS_SECRET_ACCESS_KEY": s3["secret"],
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


def deltalake(tables, s3):
    import pyarrow
    import pyarrow.parquet
    from deltalake import DeltaTable, QueryBuilder

    for table in tables:
        found = DeltaTable(table["location"], storage_options=storage(s3))
        if "deletionVectors" in (found.protocol().reader_features or []):
            # Its way through pyarrow refuses the feature; its query engine knows it.
            rows = pyarrow.table(QueryBuilder().register("t", found).execute("SELECT * FROM t").read_all())
        else:
            rows = found.to_pyarrow_table()
        pyarrow.parquet.write_table(rows, table["answer"])


def polars(tables, s3):
    import polars

    for table in tables:
        rows = polars.scan_delta(table["location"], storage_options=storage(s3) or None).collect()
        rows.write_parquet(table["answer"])


def duckdb(tables, s3):
    import pathlib

    import duckdb
    import duckdb_extension_delta
    import duckdb_extension_httpfs

    db = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for package in (duckdb_extension_httpfs, duckdb_extension_delta):
        extension = next(pathlib.Path(package.__file__).parent.glob("extensions/*/*.duckdb_extension"))
        db.execute(f"LOAD '{extension}'")
    if s3:
        db.execute(
            f"""CREATE SECRET (TYPE s3, PROVIDER config, KEY_ID '{s3["key"]}', SECRET '{s3["secret"]}', REGION 'us-east-1',
                ENDPOINT '{s3["endpoint"]}', URL_STYLE 'path', USE_SSL false)"""
        )
    for table in tables:
        location = table["location"] if s3 else "file://" + table["location"]
        db.execute(f"COPY (SELECT * FROM delta_scan('{location}')) TO '{table['answer']}' (FORMAT PARQUET)")


asked = json.load(sys.stdin)
{"deltalake": deltalake, "polars": polars, "duckdb": duckdb}[sys.argv[1]](asked["tables"], asked.get("s3"))
# The answers are written. Threads of the readers' own libraries that still live when the interpreter is taken down may abort it.
os._exit(0)
