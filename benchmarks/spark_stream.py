"""The peer Spark Structured Streaming, in the Python of tools/spark.sh: the hourly question, one file a trigger.

Prints how many seconds the query ran, without the start of session and JVM, which would weigh on a short history.
"""

import argparse
import json
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as f


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--compression", required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()

    spark = (
        SparkSession.builder.master(f"local[{given.threads}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "8g")
        .config("spark.sql.session.timeZone", "UTC")
        # The default of 200 is for clusters: here it would only make Spark slower.
        .config("spark.sql.shuffle.partitions", given.threads)
        .config("spark.sql.parquet.compression.codec", given.compression)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")

    facts = (
        spark.readStream.schema("ts TIMESTAMP, k BIGINT, v DOUBLE, day DATE")
        .option("maxFilesPerTrigger", 1)
        .parquet(given.data)
        .withWatermark("ts", "0 seconds")
    )
    answer = (
        facts.groupBy(f.window("ts", "1 hour"), "k")
        .agg(
            f.count("*").alias("n"),
            f.sum("v").alias("total"),
            f.avg("v").alias("mean"),
            f.min("v").alias("low"),
            f.max("v").alias("high"),
        )
        .selectExpr(
            "window.start AS window_start", "window.end AS window_end", "k", "n", "total", "mean", "low", "high"
        )
    )
    start = time.perf_counter()
    query = (
        answer.writeStream.format("parquet")
        .option("checkpointLocation", given.checkpoint)
        .outputMode("append")
        .trigger(availableNow=True)
        .start(given.out)
    )
    query.awaitTermination()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "triggers": len(query.recentProgress), "spark": spark.version}))

    # Waits for the JVM, so that its processor time and memory are counted with this process's.
    gateway = spark.sparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


if __name__ == "__main__":
    main()
