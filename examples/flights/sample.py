"""Cuts `flights.parquet` from the three million flights that the npm package vega-datasets carries: every tenth row, in
file order. Run again with the packages of tools/requirements.txt it writes the same bytes; PROVENANCE.md has the sums.

    examples/flights/fetch.sh flights-3m.parquet
    "$(tools/python.sh)" examples/flights/sample.py flights-3m.parquet examples/flights/flights.parquet
"""

import sys

import pyarrow as pa
import pyarrow.parquet as pq

EVERY = 10

# The source's columns and types, less Arrow's "large" in `large_string`, which says nothing about the data.
SCHEMA = pa.schema(
    [
        ("date", pa.timestamp("us")),
        ("delay", pa.int64()),
        ("distance", pa.int64()),
        ("origin", pa.string()),
        ("destination", pa.string()),
    ]
)


def main(source: str, target: str) -> None:
    flights = pq.read_table(source)
    sample = flights.take(pa.array(range(0, flights.num_rows, EVERY))).cast(SCHEMA)
    pq.write_table(
        sample,
        target,
        compression="zstd",
        compression_level=9,
        # Minutes in rising order: their differences take a tenth of the space.
        column_encoding={"date": "DELTA_BINARY_PACKED"},
        use_dictionary=["delay", "distance", "origin", "destination"],
    )
    print(f"{target}: {sample.num_rows} of {flights.num_rows} rows")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} SOURCE.parquet TARGET.parquet")
    main(*sys.argv[1:])
