"""The peer Spark Structured Streaming over a log, in the Python of tools/delta.sh: messages of a topic, from JSON into
Parquet partitioned by day.

Prints how many seconds the query ran, without the start of session and JVM.
"""

import argparse
import json
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

SCHEMA = "at TIMESTAMP, site STRING, page STRING, n BIGINT, v DOUBLE, ok BOOLEAN, pad STRING"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--from", dest="first", default="earliest", help="startingOffsets")
    parser.add_argument("--jars", required=True, help="the folder that tools/spark-kafka.sh prints")
    parser.add_argument("--out", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--compression", required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()

    spark = (
        SparkSession.builder.master(f"local[{given.threads}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "8g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.extraClassPath", f"{given.jars}/*")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", given.threads)
        .config("spark.sql.parquet.compression.codec", given.compression)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")

    log = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", given.brokers)
        .option("subscribe", given.topic)
        .option("startingOffsets", given.first)
        .load()
    )
    rows = (
        log.select(f.from_json(f.col("value").cast("string"), SCHEMA).alias("m"), "partition", "offset")
        .select("m.*", f.col("partition").alias("_part"), f.col("offset").alias("_offset"))
        .withColumn("at_day", f.to_date("at"))
    )
    start = time.perf_counter()
    query = (
        rows.writeStream.format("parquet")
        .partitionBy("at_day")
        .option("checkpointLocation", given.checkpoint)
        .outputMode("append")
        .trigger(availableNow=True)
        .start(given.out)
    )
    query.awaitTermination()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "spark": spark.version}))

    # Waits for the JVM, so that its processor time and memory are counted with this process's.
    gateway = spark.sparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


if __name__ == "__main__":
    main()
