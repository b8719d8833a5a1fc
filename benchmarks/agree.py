"""Do two engines give the same answer? Read by DuckDB, which is not told whose files are whose.

Floats that depend on the order of additions are compared at 1e-9 relative, everything else exactly.
"""

import duckdb
from workloads import Question

TOLERANCE = 1e-9

# Columns that hold times, in whichever question.
TIMES = ("ts", "window_start", "window_end", "hour", "month")


class Disagreement(Exception):
    """Two answers to one question that are not the same; the message holds a few of the rows."""


def check(question: Question, expected: list[str], actual: list[str], *, part: bool = False) -> int:
    """Compares two answers, each a list of Parquet files. Returns the number of rows of `actual`.

    With `part`, `actual` may lack the windows after its own last one, as that of a stream whose end is still open.
    """
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for name, files in (("expected", expected), ("actual", actual)):
            columns = ", ".join(plain(column) for column in (*question.key, *question.exact, *question.floats))
            db.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM read_parquet({files}, hive_partitioning = false)")
        if part:
            last = db.execute("SELECT max(window_start) FROM actual").fetchone()[0]
            db.execute(f"CREATE VIEW due AS FROM expected WHERE window_start <= TIMESTAMP '{last}'")
        else:
            db.execute("CREATE VIEW due AS FROM expected")
        wrong = by_key(db, question) if question.key else as_bags(db, question)
        if wrong:
            raise Disagreement(wrong)
        return db.execute("SELECT count(*) FROM actual").fetchone()[0]


def by_key(db: duckdb.DuckDBPyConnection, question: Question) -> str | None:
    """A few rows that are missing, too many, or different; `None` if there are none."""
    rows, keys = db.execute(f"SELECT count(*), count(DISTINCT ({', '.join(question.key)})) FROM actual").fetchone()
    if rows != keys:
        return f"{rows} rows, but only {keys} keys"
    different = [f"e.{column} IS DISTINCT FROM a.{column}" for column in question.exact]
    different += [
        f"abs(e.{column} - a.{column}) > {TOLERANCE} * greatest(abs(e.{column}), abs(a.{column}))"
        for column in question.floats
    ]
    key = " AND ".join(f"e.{column} = a.{column}" for column in question.key)
    found = db.execute(
        f"SELECT * FROM due e FULL JOIN actual a ON {key} WHERE {' OR '.join(different)} LIMIT 5"
    ).fetchall()
    return "expected, then found:\n" + "\n".join(map(str, found)) if found else None


def as_bags(db: duckdb.DuckDBPyConnection, question: Question) -> str | None:
    """The fingerprints of both bags of rows if they differ. A sum of hashes does not depend on the order."""
    row = f"hash({', '.join(question.exact)})"
    fingerprint = f"SELECT count(*), sum({row}::HUGEINT), bit_xor({row}) FROM"
    due, actual = (db.execute(f"{fingerprint} {table}").fetchone() for table in ("due", "actual"))
    return None if due == actual else f"expected {due}, found {actual} (rows, sum and parity of their hashes)"


def plain(column: str) -> str:
    """Timestamps as UTC without a zone, whichever way an engine writes them."""
    return f"CAST({column} AS TIMESTAMP) AS {column}" if column in TIMES else column
