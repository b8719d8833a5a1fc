"""The peer DuckDB, as a process of its own: one SELECT over the folder of facts, written by its own COPY … TO.

DuckDB gets what makes it fastest: order need not be kept, and each thread writes a file.
"""

import argparse
from pathlib import Path

import duckdb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--table", action="append", default=[], help="NAME=FOLDER, another table of the query")
    parser.add_argument("--sql", type=Path, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--compression", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--spill", required=True, help="where it may spill")
    given = parser.parse_args()

    db = duckdb.connect(
        config={"threads": given.threads, "preserve_insertion_order": False, "temp_directory": given.spill}
    )
    db.execute(f"CREATE VIEW facts AS FROM read_parquet('{given.data}/*/*.parquet', hive_partitioning = true)")
    for name, folder in (table.split("=", 1) for table in given.table):
        db.execute(f"CREATE VIEW {name} AS FROM read_parquet('{folder}/*.parquet')")
    options = f"FORMAT parquet, COMPRESSION {given.compression}, PER_THREAD_OUTPUT true"
    print(db.execute(f"COPY ({given.sql.read_text()}) TO '{given.out}' ({options})").fetchone()[0])


if __name__ == "__main__":
    main()
