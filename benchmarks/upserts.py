"""Keyed tables: the data, the peer, and the trials in which rows are replaced.

    python upserts.py merge TABLE CHANGES

is delta-rs's MERGE, as a user of the Python package writes it; the engine measured beside it is `watershed load`.
"""

import json
import shutil
import sys
from pathlib import Path
from statistics import mean, median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEY = ("part", "id")


def base(folder: Path, rows: int, partitions: int) -> None:
    """The rows of a table: a file a partition, numbered keys, three more columns."""
    numbers = np.random.default_rng(1)
    folder.mkdir(parents=True)
    each = rows // partitions
    for part in range(partitions):
        pq.write_table(table(numbers, np.arange(part * each, (part + 1) * each), each, 0), folder / f"{part:05}.parquet")


def changes(file: Path, rows: int, partitions: int, share: float, turn: int) -> None:
    """New values for random keys of it."""
    numbers = np.random.default_rng(100 + turn)
    ids = numbers.choice(rows, int(rows * share), replace=False)
    pq.write_table(table(numbers, ids, rows // partitions, turn), file)


def table(numbers: np.random.Generator, ids: np.ndarray, each: int, turn: int) -> pa.Table:
    texts = np.char.add("text-", (ids % 1000).astype(str))
    return pa.table(
        {
            "part": ids // each,
            "id": ids,
            "v": numbers.random(len(ids)),
            "turn": np.full(len(ids), turn, dtype=np.int64),
            "s": pa.array(texts),
        }
    )


def shuffled(folder: Path, rows: int, files: int) -> None:
    """A table whose keys lie in no order, so that no statistics tell where one is."""
    ids = np.random.default_rng(2).permutation(rows)
    folder.mkdir(parents=True)
    for number, some in enumerate(np.array_split(ids, files)):
        pq.write_table(pa.table({"id": some, "v": some * 0.5}), folder / f"{number:05}.parquet")


def merge(location: str, file: str) -> None:
    """delta-rs's MERGE, with the partition in its predicate."""
    from deltalake import DeltaTable

    (
        DeltaTable(location)
        .merge(
            pq.read_table(file),
            predicate=" AND ".join(f"t.{column} = s.{column}" for column in KEY),
            source_alias="s",
            target_alias="t",
        )
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def make_delta(location: Path, folder: Path) -> None:
    from deltalake import write_deltalake

    write_deltalake(str(location), pq.read_table(folder), partition_by=["part"])


def size(location: Path) -> int:
    return sum(file.stat().st_size for file in location.rglob("*") if file.is_file())


def trial(bench, trial):
    """1 % of the rows upserted, in turns with delta-rs over the same changes; afterwards both tables hold the same."""
    import measure
    from trials import Result, tell

    work = bench.setup.work / trial.name
    shutil.rmtree(work, ignore_errors=True)
    rows = int(trial.rows * bench.scale)
    base(work / "base", rows, trial.partitions)
    ours, theirs, home = work / "ours", work / "theirs", work / "home"
    load = [str(bench.setup.watershed), "--home", str(home), "load"]
    made, _ = measure.run(
        [*load, str(work / "base"), "--into", str(ours), "--partition-by", "part", "--mode", "upsert", "--key", ",".join(KEY)]
    )
    tell(trial.name, "first load", made)
    first = first_load(bench, work, load)
    make_delta(theirs, work / "base")
    names = ("watershed load --mode upsert", "delta-rs MERGE")
    runs = {name: [] for name in names}
    written, own = [], []
    for turn in range(1, bench.repeats + 1):
        file = work / f"changes-{turn}.parquet"
        changes(file, rows, trial.partitions, trial.share, turn)
        before = size(ours)
        for name, command in zip(
            names,
            ([*load, str(file), "--into", str(ours)], [sys.executable, __file__, "merge", str(theirs), str(file)]),
            strict=True,
        ):
            took, _ = measure.run(command)
            runs[name].append(took)
            tell(f"{trial.name} {turn}/{bench.repeats}", name, took)
        written.append(size(ours) - before)
        own.append(file.stat().st_size)
    same = same_rows(bench, ours, theirs)
    ratio = median(b.wall / a.wall for a, b in zip(*runs.values(), strict=True))
    said = f"{rows:,} rows over {trial.partitions} partitions, {trial.share:.0%} of them with new values in each turn"
    result = Result(trial.name, trial.title, said, runs, ratio, "×", trial.bar, trial.aim, more_is_better=True)
    result.notes.append(
        f"bytes written, log and vectors included, over those of the changed rows as one Parquet file: "
        f"{median(w / o for w, o in zip(written, own, strict=True)):.2f} (bar 3)"
    )
    result.notes.append(f"afterwards both tables hold the same {same:,} rows; times are those of whole processes")
    result.notes.append(
        f"a first load into a new keyed table takes {first:.2f} of the same load into a table without a key (bar 1.05)"
    )
    scans(bench, trial, work, ours, home, rows, result)
    return result


def first_load(bench, work: Path, load: list[str]) -> float:
    """The first load of a keyed table against an append of the same rows to a new table, in turns: the median ratio."""
    import measure

    ratios = []
    for _ in range(3):
        walls = []
        for kind in (["--mode", "upsert", "--key", ",".join(KEY)], []):
            into = work / "first"
            shutil.rmtree(into, ignore_errors=True)
            took, _ = measure.run([*load, str(work / "base"), "--into", str(into), "--partition-by", "part", *kind])
            walls.append(took.wall)
        ratios.append(walls[0] / walls[1])
    shutil.rmtree(work / "first")
    return median(ratios)


def same_rows(bench, ours: Path, theirs: Path) -> int:
    """Counts rows and sums of both tables, each read by delta-rs's query engine; they must agree."""
    from deltalake import DeltaTable, QueryBuilder

    asked = "SELECT count(*) AS rows, count(DISTINCT id) AS ids, sum(turn) AS turns, sum(v) AS v FROM t"
    found = [
        pa.table(QueryBuilder().register("t", DeltaTable(str(each))).execute(asked).read_all()).to_pylist()[0]
        for each in (ours, theirs)
    ]
    exact = [[row[name] for name in ("rows", "ids", "turns")] for row in found]
    if exact[0] != exact[1] or abs(found[0]["v"] - found[1]["v"]) > 1e-6 * abs(found[1]["v"]):
        raise AssertionError(f"the tables differ: {found}")
    return found[0]["rows"]


def scans(bench, trial, work: Path, ours: Path, home: Path, rows: int, result) -> None:
    """Reading all rows after many commits, before and after compaction, against a table that was written at once."""
    import measure

    binary = [str(bench.setup.watershed), "--home", str(home)]
    loads = []
    for turn in range(bench.repeats + 1, trial.commits + 1):
        file = work / "more.parquet"
        changes(file, rows, trial.partitions, trial.share, turn)
        took, _ = measure.run([*binary, "load", str(file), "--into", str(ours)])
        loads.append(took.wall)
    fresh = work / "fresh"
    measure.run([*binary, "load", str(work / "base"), "--into", str(fresh), "--partition-by", "part"])
    sql = work / "tables.sql"
    sql.write_text(
        "".join(
            f"CREATE EXTERNAL TABLE {each.name} STORED AS DELTA LOCATION '{each}';\n" for each in (ours, fresh)
        )
    )
    measure.run([*binary, "run", str(sql)])
    asked = "SELECT count(*), sum(v), sum(turn), max(s) FROM "
    figures = []
    for _ in range(2):
        walls = []
        for _ in range(3):
            one, two = (measure.run([*binary, "query", asked + name])[0].wall for name in ("ours", "fresh"))
            walls.append(one / two)
        figures.append(median(walls))
        if len(figures) == 1:
            compacted, _ = measure.run([*binary, "compact", str(ours)])
    # A load that finds many small files, or many marked rows, puts the table in shape when it is done.
    slow = [wall for wall in loads if wall > 2 * median(loads)]
    result.notes.append(
        f"up to the commit number {trial.commits} a load takes {median(loads):.2f} s in the median and {mean(loads):.2f} s in the "
        f"mean; {len(slow)} put the table in shape as well, which takes them {max(slow, default=0):.1f} s at most"
    )
    result.notes.append(
        f"a scan of all rows after {trial.commits} commits takes {figures[0]:.2f} of that of a freshly written table (bar 1.5), "
        f"after compaction, which took {compacted.wall:.1f} s, {figures[1]:.2f} (bar 1.05)"
    )


def stream(bench, trial):
    """Random upserts into one partition, a commit a second."""
    import measure
    from trials import Result, tell

    work = bench.setup.work / trial.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    seconds = max(int(trial.seconds * bench.scale), 5)
    command = [str(bench.writer), "stream", str(work / "table"), "--rate", str(trial.rate), "--seconds", str(seconds)]
    took, said = measure.run(command)
    tell(trial.name, "stream", took)
    told = json.loads(said)
    commits = sorted(commit["commit"] for commit in told["commits"])
    p99 = commits[min(len(commits) - 1, round(0.99 * (len(commits) - 1)))]
    rate = told["rows"] / told["seconds"]
    said = f"{told['rows']:,} rows with random keys out of a million, {trial.rate:,} a second, {len(commits)} commits"
    result = Result(trial.name, trial.title, said, {"stream": [took]}, p99, "s", trial.bar, trial.aim)
    result.notes.append(
        f"{rate:,.0f} rows/s sustained (bar 150,000); a commit, from the last row on, takes {median(commits):.2f} s in the "
        f"median, {commits[-1]:.2f} s at most"
    )
    return result


def single(bench, trial):
    """One row into a table of many, whose keys lie in no order."""
    import measure
    from trials import Result, tell

    work = bench.setup.work / trial.name
    shutil.rmtree(work, ignore_errors=True)
    rows = int(trial.rows * bench.scale)
    shuffled(work / "base", rows, trial.files)
    load = [str(bench.setup.watershed), "--home", str(work / "home"), "load"]
    measure.run([*load, str(work / "base"), "--into", str(work / "table"), "--target-file-size", "64 MB"])
    took, said = measure.run([str(bench.writer), "single", str(work / "table"), "--keys", str(rows)])
    tell(trial.name, "single", took)
    commits = json.loads(said)["commits"]
    said = f"{rows:,} rows, keys in no order, no partitions"
    result = Result(trial.name, trial.title, said, {"single": [took]}, max(commits[1:]), "s", trial.bar, trial.aim)
    result.notes.append(
        f"the first commit, which makes the index, takes {commits[0]:.1f} s, the next ones "
        f"{', '.join(f'{each:.2f} s' for each in commits[1:])}; peak memory {took.peak / 1e6:,.0f} MB (bar 400)"
    )
    return result


if __name__ == "__main__":
    assert sys.argv[1] == "merge", __doc__
    merge(*sys.argv[2:])
