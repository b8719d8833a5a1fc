"""Delta tables as Spark writes them, and Spark's own answers over them.

    python tables.py FOLDER [TABLE...]

makes FOLDER/NAME for each table below, and FOLDER/answers.json: for each table its query and the rows that Spark returns.
`NAME.before` is the table as it was before its last commits. Where FOLDER/read.json lists tables (`location`, `answer`), they
are read, and their rows left in Parquet folders. One Spark does all.
"""

import json
import os
import shutil
import sys
import time

from pyspark.sql import SparkSession

FOLDER, WANTED = os.path.abspath(sys.argv[1]), sys.argv[2:]

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.driver.extraJavaOptions", "-Duser.timezone=UTC -Dio.netty.tryReflectionSetAccessible=true")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.sql.warehouse.dir", os.path.join(FOLDER, ".warehouse"))
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "1")
    .config("spark.databricks.delta.snapshotPartitions", "1")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")

START = "timestamp_seconds(1709251200 + id * 300)"  # 2024-03-01, a row every five minutes
ANSWERS = {}


def sql(text):
    return spark.sql(text)


def properties(**settings):
    return "TBLPROPERTIES (" + ", ".join(f"'delta.{k.replace('_', '.')}' = '{v}'" for k, v in settings.items()) + ")"


def answer(name, query, ours=None):
    """Spark's rows for an hourly query; `ours` is the same in Watershed's SQL where that differs. {hour} is the window."""
    rows = sql(query.format(table=f"delta.`{FOLDER}/{name}`", hour="date_trunc('HOUR', ts)")).collect()
    text = lambda v: "" if v is None else v.isoformat() if hasattr(v, "isoformat") else str(v)
    ours = (ours or query).format(table="s", hour="date_trunc('hour', ts)")
    ANSWERS[name] = {"sql": ours, "rows": sorted(",".join(text(v) for v in row) for row in rows)}


def marked(table):
    """Deletion vectors: two deletes and an update after the table was filled; files of several row groups."""
    sql(f"""CREATE TABLE {table} (ts TIMESTAMP, k STRING, v INT, d DATE) USING delta PARTITIONED BY (d)
            {properties(enableDeletionVectors='true')}""")
    fill = f"SELECT {START} ts, concat('k', id % 3), cast(id as INT), date({START}) FROM range({{}}, {{}}, 1, 1)"
    sql(f"INSERT INTO {table} {fill.format(0, 1000)}")
    sql(f"INSERT INTO {table} {fill.format(1000, 2000)}")
    sql(f"DELETE FROM {table} WHERE v % 7 = 3 OR v BETWEEN 300 AND 420")
    shutil.copytree(f"{FOLDER}/marked", f"{FOLDER}/marked.before")
    sql(f"DELETE FROM {table} WHERE v = 5")
    sql(f"UPDATE {table} SET k = 'new' WHERE v = 700")
    answer("marked", "SELECT {hour} AS w, k, count(*) AS n, sum(v) AS total FROM {table} WHERE v > 2 GROUP BY {hour}, k")


def named(table):
    """Column mapping by name: columns renamed, swapped, dropped and added, the partition column renamed, nested names."""
    sql(f"""CREATE TABLE {table} (ts TIMESTAMP, a INT, b INT, junk STRING, place STRUCT<city: STRING, zip: INT>,
                                  tags ARRAY<STRUCT<t: STRING>>, d DATE)
            USING delta PARTITIONED BY (d) {properties(columnMapping_mode='name', enableDeletionVectors='true')}""")
    old = f"""SELECT {START}, cast(id as INT), cast(-id as INT), 'junk', named_struct('city', concat('c', id % 2), 'zip', 1),
                     array(named_struct('t', 'x')), date({START}) FROM range(0, 600, 1, 1)"""
    sql(f"INSERT INTO {table} {old}")
    for change in ["RENAME COLUMN a TO c", "RENAME COLUMN b TO a", "RENAME COLUMN c TO b", "DROP COLUMN junk",
                   "RENAME COLUMN d TO day", "RENAME COLUMN place.city TO town", "ADD COLUMN note STRING",
                   "ADD COLUMN place.street STRING", "ADD COLUMN junk INT", "RENAME COLUMN tags.element.t TO tag"]:
        sql(f"ALTER TABLE {table} {change}")
    new = f"""SELECT {START} ts, cast(id as INT) b, cast(-id as INT) a, 7 junk, concat('n', id % 2) note, date({START}) day,
                     named_struct('town', concat('t', id % 2), 'zip', 2, 'street', 's') place,
                     array(named_struct('tag', 'y')) tags
              FROM range(600, 900, 1, 1)"""
    sql(f"INSERT INTO {table} BY NAME {new}")
    sql(f"DELETE FROM {table} WHERE b % 10 = 4")
    answer("named", """SELECT {hour} AS w, note, place.town AS town, place.street AS street, tags[0].tag AS tag, day,
                              count(*) AS n, sum(b) AS b, sum(a) AS a, sum(junk) AS j
                       FROM {table} WHERE b >= 20 AND day >= DATE '2024-03-01'
                       GROUP BY {hour}, note, place.town, place.street, tags[0].tag, day""",
           """SELECT {hour} AS w, note, place['town'] AS town, place['street'] AS street, tags[1]['tag'] AS tag, day,
                     count(*) AS n, sum(b) AS b, sum(a) AS a, sum(junk) AS j
              FROM {table} WHERE b >= 20 AND day >= DATE '2024-03-01'
              GROUP BY {hour}, note, place['town'], place['street'], tags[1]['tag'], day""")


def by_id(table):
    """Column mapping by field id, with the same moves."""
    sql(f"""CREATE TABLE {table} (at TIMESTAMP, a INT, b INT, d DATE) USING delta PARTITIONED BY (d)
            {properties(columnMapping_mode='id')}""")
    sql(f"INSERT INTO {table} SELECT {START}, cast(id as INT), cast(-id as INT), date({START}) FROM range(0, 600, 1, 1)")
    for change in ["RENAME COLUMN a TO c", "RENAME COLUMN b TO a", "RENAME COLUMN at TO ts", "DROP COLUMN c",
                   "ADD COLUMN b STRING"]:
        sql(f"ALTER TABLE {table} {change}")
    sql(f"""INSERT INTO {table} BY NAME SELECT {START} ts, cast(-id as INT) a, concat('b', id % 2) b, date({START}) d
            FROM range(600, 900, 1, 1)""")
    answer("by_id", "SELECT {hour} AS w, b, count(*) AS n, sum(a) AS a FROM {table} WHERE a < -100 GROUP BY {hour}, b")


def widened(table):
    """Type widening: int to bigint, float to double, a decimal's precision, a date to a timestamp."""
    sql(f"""CREATE TABLE {table} (ts TIMESTAMP, v INT, s SMALLINT, f FLOAT, m DECIMAL(6, 2), due DATE, d DATE)
            USING delta PARTITIONED BY (d) {properties(enableTypeWidening='true', feature_timestampNtz='supported')}""")
    sql(f"""INSERT INTO {table} SELECT {START}, cast(id as INT), cast(id as SMALLINT), cast(id AS FLOAT) / 2,
            cast(id as DECIMAL(6, 2)), date({START}), date({START}) FROM range(0, 600, 1, 1)""")
    for column, wide in [("v", "BIGINT"), ("s", "INT"), ("f", "DOUBLE"), ("m", "DECIMAL(12, 4)"), ("due", "TIMESTAMP_NTZ")]:
        sql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {wide}")
    sql(f"""INSERT INTO {table} SELECT {START}, 3000000000 + id, 100000, 0.25D, 1.2345, timestamp_ntz '2024-03-09 01:02:03',
            date({START}) FROM range(600, 900, 1, 1)""")
    answer("widened", """SELECT {hour} AS w, due, count(*) AS n, sum(v) AS v, sum(s) AS s, sum(f) AS f, sum(m) AS m
                         FROM {table} WHERE v > 100 AND m > 0.5 GROUP BY {hour}, due""")


def dated(table):
    """The event time itself was a date once: old statistics are dates. Not partitioned."""
    sql(f"CREATE TABLE {table} (ts DATE, v INT) USING delta {properties(enableTypeWidening='true', feature_timestampNtz='supported')}")
    sql(f"INSERT INTO {table} SELECT date({START}), cast(id as INT) FROM range(0, 600, 1, 1)")
    sql(f"ALTER TABLE {table} ALTER COLUMN ts TYPE TIMESTAMP_NTZ")
    sql(f"INSERT INTO {table} SELECT cast({START} AS TIMESTAMP_NTZ), cast(id as INT) FROM range(600, 900, 1, 1)")
    answer("dated", "SELECT {hour} AS w, count(*) AS n, sum(v) AS v FROM {table} GROUP BY {hour}")


def checkpointed(table):
    """V2 checkpoints, and a log whose first entries were cleaned up."""
    sql(f"""CREATE TABLE {table} (ts TIMESTAMP, v INT, d DATE) USING delta PARTITIONED BY (d)
            {properties(checkpointPolicy='v2', checkpointInterval='3', enableDeletionVectors='true')}""")
    log = f"{FOLDER}/checkpointed/_delta_log"
    for day in range(8):
        sql(f"INSERT INTO {table} SELECT {START}, cast(id as INT), date({START}) FROM range({day * 288}, {day * 288 + 288}, 1, 1)")
        if day in (2, 5):
            sql(f"DELETE FROM {table} WHERE v % 11 = {day}")
        old = time.time() - 90 * 86400
        for entry in os.listdir(log):
            if entry[:20].isdigit() and int(entry[:20]) < 6:
                os.utime(os.path.join(log, entry), (old, old))
    assert not os.path.exists(f"{log}/{0:020}.json"), sorted(os.listdir(log))
    assert os.path.isdir(f"{log}/_sidecars"), sorted(os.listdir(log))
    answer("checkpointed", "SELECT {hour} AS w, count(*) AS n, sum(v) AS v FROM {table} GROUP BY {hour}")


def ntz(table):
    """Zone-less times, partitioned by hour."""
    sql(f"CREATE TABLE {table} (ts TIMESTAMP_NTZ, v INT, h TIMESTAMP_NTZ) USING delta PARTITIONED BY (h)")
    sql(f"""INSERT INTO {table} SELECT cast({START} AS TIMESTAMP_NTZ), cast(id as INT),
            cast(date_trunc('HOUR', {START}) AS TIMESTAMP_NTZ) FROM range(0, 200, 1, 1)""")
    answer("ntz", "SELECT {hour} AS w, count(*) AS n, sum(v) AS v FROM {table} GROUP BY {hour}")


for make in [marked, named, by_id, widened, dated, checkpointed, ntz]:
    if not WANTED or make.__name__ in WANTED:
        make(f"delta.`{FOLDER}/{make.__name__}`")
with open(f"{FOLDER}/answers.json", "w") as out:
    json.dump(ANSWERS, out, indent=1)
if os.path.exists(f"{FOLDER}/read.json"):
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    with open(f"{FOLDER}/read.json") as asked:
        for table in json.load(asked):
            read = spark.read.format("delta")
            if table["name"].endswith("_changes"):
                read = read.option("readChangeFeed", "true").option("startingVersion", 0)
            rows = read.load(table["location"]).drop("_commit_timestamp")
            rows.coalesce(1).write.parquet(table["answer"])
spark.stop()
