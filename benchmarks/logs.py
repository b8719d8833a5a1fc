"""Logs: archives against Spark, how soon an event can be read, memory over a long log, the seam of history and log.

Each trial has a broker of its own (`broker.py`), which shares the cores with what is measured: its time and memory, and
those of the writer of messages, are in no figure. Messages are in the log before a measurement begins, except in `latency`.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from urllib.parse import unquote

import duckdb
import measure
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from agree import Disagreement
from broker import PARTITIONS, Broker, broker
from deltalake import DeltaTable
from trials import Bench, Result, peak, tell
from workloads import COMPRESSION, ArchiveTrial, LogLatencyTrial, LogMemoryTrial, SeamTrial, SinkLatencyTrial

HERE = Path(__file__).parent
DAY = 86_400_000_000  # microseconds

# The columns of messages, and where each message was.
COLUMNS = (
    "at TIMESTAMP, site VARCHAR, page VARCHAR, n BIGINT, v DOUBLE, ok BOOLEAN, pad VARCHAR, _part INT, _offset BIGINT"
)
LOG = "CREATE SOURCE log ({columns}, WATERMARK FOR at AS at) WITH (tail = '{log}', format = 'json');\n"
ARCHIVE = """CREATE TABLE archive ({columns}) WITH (location = '{table}', partition_by = 'day(at)');
INSERT INTO archive SELECT at, site, page, n, v, ok, pad, _part, _offset FROM log;
"""
WINDOWS = """CREATE MATERIALIZED VIEW windows WITH (location = '{table}') AS
SELECT window_start, window_end, site, count(*) AS messages, sum(v) AS v, sum(n) AS ns
FROM TUMBLE({source}, at, INTERVAL '{width}') GROUP BY window_start, window_end, site;
"""
ROWS = """CREATE MATERIALIZED VIEW events WITH (location = '{table}') AS
SELECT at, site, n, v FROM log;
"""
KEYED = """CREATE TABLE latest (site VARCHAR, at TIMESTAMP, n BIGINT, v DOUBLE, PRIMARY KEY (site))
WITH (location = '{table}', sequence_by = 'n');
INSERT INTO latest SELECT site, at, n, v FROM log;
"""
SINK = """CREATE SINK results WITH (topic = '{results}', format = 'json') AS
SELECT window_start, window_end, site, count(*) AS messages, sum(v) AS v
FROM TUMBLE(log, at, INTERVAL '{width}') GROUP BY window_start, window_end, site;
"""


@dataclass(frozen=True)
class Job:
    """A job over a topic, in a folder of its own: the same folder goes on with it."""

    bench: Bench
    folder: Path
    broker: Broker
    topic: str

    @property
    def table(self) -> Path:
        """Where its result lies."""
        return self.folder / "table"

    def sql(self, *statements: str, **more: str) -> str:
        told = {"columns": COLUMNS, "log": self.broker.url(self.topic), "table": self.table, "source": "log", **more}
        return "".join(statements).format(**told)

    def command(self, sql: str, *flags: str) -> list[str]:
        """What runs it for as long as nobody stops it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "job.sql"
        file.write_text(sql)
        command = [str(self.bench.setup.watershed), "--home", str(self.folder / "home"), "run", str(file), "--json"]
        return [*command, "--parallelism", str(self.bench.setup.threads), *flags]

    def run(self, sql: str, *flags: str) -> tuple[measure.Measured, str]:
        """Runs it as far as the log goes. Late or bad messages, of which there are none, are a disagreement."""
        took, said = measure.run(self.command(sql, "--until", "caught-up", *flags))
        for line in events(said, "summary"):
            if line["run"]["late"] or line["run"]["bad"]:
                raise Disagreement(f"{line['job']} found {line['run']['late']} late and {line['run']['bad']} bad rows")
        return took, said


def events(said: str, kind: str) -> Iterator[dict]:
    """Lines of one kind of what a run says with --json."""
    return (line for line in map(json.loads, said.splitlines()) if line["event"] == kind)


def archive(bench: Bench, trial: ArchiveTrial) -> Result:
    """A whole topic into a Delta table partitioned by day, in turns; then Spark, once, into Parquet partitioned by
    day, over the newest part of the same topic, for it takes long.

    The figure is messages over the wall time of the whole process of `watershed run --until caught-up`. Spark's clock starts
    with the query. Afterwards both have each message that they read once.
    """
    work = bench.out(trial.name)
    work.mkdir(parents=True)
    count = int(trial.messages * bench.scale) // PARTITIONS * PARTITIONS
    runs: dict[str, list[measure.Measured]] = {"watershed": []}
    notes = ["the broker shares the cores, and is in no figure"]
    with broker(work, bench.writer) as kafka:
        said = kafka.fill("archive", count, create=True, every=trial.days * DAY // count)
        for turn in range(bench.repeats):
            job = Job(bench, bench.out(trial.name, "watershed"), kafka, "archive")
            took, _ = job.run(job.sql(LOG, ARCHIVE))
            runs["watershed"].append(took)
            tell(f"{trial.name} {turn + 1}/{bench.repeats}", "watershed", took)
        check(DeltaTable(str(job.table)).file_uris(), 0, count)
        if "spark" not in bench.without:
            out = bench.out(trial.name, "spark")
            # The newest messages, as many of each partition.
            fewer = min(count, int(trial.spark_messages * bench.scale)) // PARTITIONS * PARTITIONS
            theirs, version = spark(bench, kafka, out, (count - fewer) // PARTITIONS)
            runs["spark"] = [theirs]
            tell(trial.name, "spark", theirs)
            check([str(file) for file in (out / "answer").rglob("*.parquet")], count - fewer, count)
    rates = [count / run.wall / 1e6 for run in runs["watershed"]]
    if "spark" in runs:
        rate = fewer / theirs.wall
        notes.append(
            f"Spark {version} archived the newest {fewer:,} of them, {rate:,.0f} messages/s, its start not counted and "
            f"ours counted: Watershed is {median(rates) * 1e6 / rate:.1f} times as fast (bar 5)"
        )
        notes.append("both have each of the messages that they read once, by count and sum")
    processor = median(run.cpu / count for run in runs["watershed"])
    notes.append(f"{processor * 1e6:.2f} µs of processor time a message")
    said = f"{said}, over {trial.days} days of event time"
    result = Result(trial.name, trial.title, said, runs, median(rates), "M messages/s", trial.bar, trial.aim, True)
    result.notes += notes
    return result


def spark(bench: Bench, kafka: Broker, out: Path, first: int) -> tuple[measure.Measured, str]:
    """Spark over the same topic from this offset on (`spark_log.py`): what the query took, and which Spark that was."""
    python, jars = (
        subprocess.run([str(HERE.parent / "tools" / tool)], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        for tool in ("delta.sh", "spark-kafka.sh")
    )
    command = [python, str(HERE / "spark_log.py"), "--brokers", kafka.address, "--topic", "archive", "--jars", jars]
    command += ["--from", json.dumps({"archive": {str(partition): first for partition in range(PARTITIONS)}})]
    command += ["--out", str(out / "answer"), "--checkpoint", str(out / "checkpoint"), "--compression", COMPRESSION]
    took, said = measure.run([*command, "--threads", str(bench.setup.threads)])
    told = json.loads(said.strip().splitlines()[-1])
    return replace(took, wall=told["seconds"]), told["spark"]


def check(files: list[str], first: int, end: int) -> None:
    """The files hold the messages with these numbers, each once, also by the log's own count."""
    found = duckdb.execute(
        "SELECT count(*), sum(n)::HUGEINT, count(DISTINCT n), count(DISTINCT _part::BIGINT * 1000000000000 + _offset), "
        "min(length(pad)) > 0 FROM read_parquet($files, hive_partitioning = false)",
        {"files": files},
    ).fetchone()
    count = end - first
    expected = (count, count * (first + end - 1) // 2, count, count, True)
    if found != expected:
        raise Disagreement(f"messages, their sum, numbers and places are {found}, and should be {expected}")


def latency(bench: Bench, trial: LogLatencyTrial) -> Result:
    """How soon after it happened an event can be read in the table, while the job runs and commits each second.

    A writer sends so many messages a second; a message's event time is the wall time at which it is handed to the client
    library, so that all batching, sending and storing counts. Sources have a watermark without delay and the default
    `idle_timeout`. This process looks every 2 ms whether the next version's file is in the table's log; that moment, by the
    same wall clock, is when the version can be read. After the job has ended, the files that each version added tell what
    became readable with it:

    - `rows`, a view that appends each event: for each event, from its time to the version that has it.
    - `windows`, of one second by site: for each window, from its end, before which its last event happened, to the version
      that has the last of its rows.
    - `keyed`, a table with the newest event of each site: for each millisecond, from it to the first version by which each
      partition has brought an event as new; so what was overtaken within a commit counts by what overtook it.

    The first seconds are left out: epochs are short while a run is young. Commits are about a second apart and windows
    exactly, so how a window's end lies between two commits moves slowly, and short runs see a part of it only. The figure is
    the worst of the three 99th percentiles. Each table is then compared with what was sent: no event is missing or late.
    """
    work = bench.out(trial.name)
    work.mkdir(parents=True)
    seconds = max(int(trial.seconds * bench.scale), 5)
    variants = {"rows": ROWS, "windows": WINDOWS, "keyed": KEYED}
    runs, notes, figures = {}, [], []
    with broker(work, bench.writer) as kafka:
        for name, view in variants.items():
            kafka.create(name)
            job = Job(bench, bench.out(trial.name, name), kafka, name)
            command = job.command(job.sql(LOG, view, width="1 second"), "--commit-interval", "1 s")
            total = trial.rate * (seconds + trial.warm)
            sent = kafka.command(name, total, rate=trial.rate)
            with measure.running(command) as running, subprocess.Popen(sent, stdout=subprocess.PIPE, text=True) as writer:
                try:
                    began = time.time()
                    seen = watched(job.table, running, writer)
                    told = json.loads(writer.stdout.read())
                    took, said = running.stop()
                finally:
                    writer.kill()
            runs[name] = [took]
            tell(trial.name, name, took)
            late = sum(line["run"]["late"] + line["run"]["bad"] for line in events(said, "summary"))
            if late or writer.returncode != 0:
                raise Disagreement(f"{name}: {late} late or bad events, the writer ended with {writer.returncode}")
            waits = MEASURED[name](job.table, seen, began + trial.warm, began + told["seconds"], total)
            p50, p99, most = (float(np.quantile(waits, q)) for q in (0.5, 0.99, 1.0))
            figures.append(p99)
            notes.append(
                f"{name}: p50 {p50:.2f} s, p99 {p99:.2f} s, at most {most:.2f} s over {len(seen)} commits; "
                f"{took.cpu / (seconds + trial.warm):.2f} cores; the writer was {told['behind'] * 1e3:.0f} ms behind at most"
            )
    said = f"{trial.rate:,} messages of 200 bytes a second for {seconds} s, a commit a second; from event to readable row"
    return Result(trial.name, trial.title, said, runs, max(figures), "s", trial.bar, trial.aim, notes=notes)


def sink_latency(bench: Bench, trial: SinkLatencyTrial) -> Result:
    """How soon after a window's end each of its results is in a topic, at least once and without transactions.

    The writer's messages have the wall time at which they are handed to the client library as their event time, so before
    a window's end its last message has not even happened. Sources have a watermark without delay. The broker itself gives
    each result its time (LogAppendTime), by the same clock. Each window has each site once, or the trial fails.
    """
    work = bench.out(trial.name)
    work.mkdir(parents=True)
    seconds = max(int(trial.seconds * bench.scale), 20)
    width = 10
    with broker(work, bench.writer) as kafka:
        kafka.create("log")
        kafka.create("results", append_time=True)
        job = Job(bench, bench.out(trial.name, "job"), kafka, "log")
        command = job.command(job.sql(LOG, SINK, width=f"{width} seconds", results=kafka.url("results")))
        total = trial.rate * (seconds + trial.warm)
        sent = kafka.command("log", total, rate=trial.rate, sites=trial.keys)
        with measure.running(command) as running, subprocess.Popen(sent, stdout=subprocess.PIPE, text=True) as writer:
            try:
                began = time.time()
                while writer.poll() is None:
                    if running.over():
                        running.end()
                        raise measure.Failed("the job ended by itself")
                    time.sleep(0.1)
                time.sleep(2)
                told = json.loads(writer.stdout.read())
                took, said = running.stop()
            finally:
                writer.kill()
        arrived = kafka.arrivals("results")
    tell(trial.name, "sink", took)
    late = sum(line["run"]["late"] + line["run"]["bad"] for line in events(said, "summary"))
    windows: dict[float, dict[str, float]] = {}
    for at, row in arrived:
        end = datetime.fromisoformat(row["window_end"]).replace(tzinfo=UTC).timestamp()
        if windows.setdefault(end, {}).setdefault(row["site"], at - end) != at - end:
            raise Disagreement(f"window {end} has {row['site']} twice")
    ends = [end for end in windows if began + trial.warm <= end - width and end <= began + told["seconds"]]
    few = [end for end in ends if len(windows[end]) != trial.keys]
    if late or writer.returncode != 0 or few or len(ends) < seconds // width - 2:
        raise Disagreement(f"{late} late or bad, {len(ends)} windows, {len(few)} of them without all sites")
    waits = [wait for end in ends for wait in windows[end].values()]
    p50, p99, most = (float(np.quantile(waits, q)) for q in (0.5, 0.99, 1.0))
    note = (
        f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, at most {most * 1e3:.0f} ms over {len(ends)} windows of "
        f"{trial.keys:,} results; {took.cpu / (seconds + trial.warm):.2f} cores; the writer was "
        f"{told['behind'] * 1e3:.0f} ms behind at most"
    )
    said = f"{trial.rate:,} messages of 200 bytes a second for {seconds} s into windows of {width} s by {trial.keys:,} sites"
    return Result(trial.name, trial.title, said, {"sink": [took]}, p99, "s", trial.bar, trial.aim, notes=[note])


def watched(table: Path, running: measure.Running, writer: subprocess.Popen) -> list[float]:
    """When each version of the table came to be, until some seconds after the writer's end."""
    seen: list[float] = []
    until = None
    while until is None or time.time() < until:
        while (table / "_delta_log" / f"{len(seen):020}.json").exists():
            seen.append(time.time())
        if until is None and writer.poll() is not None:
            until = time.time() + 4
        if running.over():
            running.end()
            raise measure.Failed("the job ended by itself")
        time.sleep(0.002)
    return seen


def readable(table: Path, seen: list[float], columns: list[str]) -> Iterator[tuple[float, pa.Table]]:
    """For each version that brought rows, when that was, and the rows."""
    known: set[str] = set()
    for version, moment in enumerate(seen):
        lines = map(json.loads, (table / "_delta_log" / f"{version:020}.json").read_text().splitlines())
        adds = [line["add"] for line in lines if "add" in line]
        # Files that others were put together to bring no rows, nor does one that is added again with a deletion vector.
        new = [add["path"] for add in adds if add["dataChange"] and add["path"] not in known]
        known.update(add["path"] for add in adds)
        if new:
            read = [pq.read_table(table / unquote(path), columns=columns, partitioning=None) for path in new]
            yield moment, pa.concat_tables(read)


def moments(column: pa.ChunkedArray) -> np.ndarray:
    """Timestamps as seconds since 1970."""
    return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6


def of_rows(table: Path, seen: list[float], since: float, until: float, total: int) -> np.ndarray:
    waits, count = [], 0
    for moment, rows in readable(table, seen, ["at"]):
        at = moments(rows["at"])
        count += len(at)
        waits.append(moment - at[(at >= since) & (at < until)])
    if count != total:
        raise Disagreement(f"{count:,} events came to be readable, of {total:,}")
    return np.concatenate(waits)


def of_windows(table: Path, seen: list[float], since: float, until: float, total: int) -> np.ndarray:
    whole: dict[float, float] = {}
    count = 0
    for moment, rows in readable(table, seen, ["window_end", "messages"]):
        count += int(rows["messages"].to_numpy().sum())
        whole |= dict.fromkeys(np.unique(moments(rows["window_end"])), moment)
    # The last window of the log is not over, as far as anybody knows.
    ends = np.arange(np.ceil(since) + 1, np.floor(until))
    missing = [end for end in ends if end not in whole]
    if missing or count > total:
        raise Disagreement(f"{len(missing)} of {len(ends)} windows are missing; {count:,} events of {total:,}")
    return np.array([whole[end] - end for end in ends])


def of_keys(table: Path, seen: list[float], since: float, until: float, total: int) -> np.ndarray:
    newest = np.full(PARTITIONS, since)
    number, waits = -1, []
    for moment, rows in readable(table, seen, ["at", "n"]):
        at, numbers = moments(rows["at"]), rows["n"].to_numpy()
        number = max(number, int(numbers.max()))
        reached = newest.min()
        np.maximum.at(newest, numbers % PARTITIONS, at)  # a message's number tells its partition
        waits.append(moment - np.arange(reached, min(newest.min(), until), 0.001))
    if number != total - 1:
        raise Disagreement(f"the newest event in the table is {number}, of {total:,}")
    return np.concatenate(waits)


MEASURED = {"rows": of_rows, "windows": of_windows, "keyed": of_keys}


def memory(bench: Bench, trial: LogMemoryTrial) -> Result:
    """The same jobs over a minute's worth of messages and over an hour's: an archive, and windows of a second by site.

    The worse of the two ratios of peak memory is the figure. The long log is read once by each job.
    """
    work = bench.out(trial.name)
    work.mkdir(parents=True)
    rate = int(trial.rate * bench.scale)
    jobs = {"archive": ARCHIVE, "windows": WINDOWS}
    lengths = {"a minute": (60, bench.repeats), "an hour": (3600, 1)}
    runs: dict[str, list[measure.Measured]] = {}
    with broker(work, bench.writer) as kafka:
        for length, (seconds, repeats) in lengths.items():
            topic = length.replace(" ", "-")
            kafka.fill(topic, rate * seconds, create=True, every=1_000_000 // rate)
            for name, statements in jobs.items():
                each = runs[f"{name}, {length}"] = []
                for _ in range(repeats):
                    job = Job(bench, bench.out(trial.name, name), kafka, topic)
                    took, _ = job.run(job.sql(LOG, statements, width="1 second"))
                    each.append(took)
                    tell(trial.name, f"{name}, {length}", took)
    ratios = {name: peak(runs[f"{name}, an hour"]) / peak(runs[f"{name}, a minute"]) for name in jobs}
    said = f"{rate:,} messages of 200 bytes a second of event time: {rate * 60:,} and {rate * 3600:,} messages"
    notes = [f"{name}: {ratio:.2f} ×" for name, ratio in ratios.items()]
    return Result(trial.name, trial.title, said, runs, max(ratios.values()), "×", trial.bar, trial.aim, notes=notes)


def seam(bench: Bench, trial: SeamTrial) -> Result:
    """From an archived history into the log: the longest time in which no row was read, around the change.

    Progress is told after each step, with the run's own clock. Around the seam is from the step before the history's last to
    two seconds after the first of the log. Start and end of the process are not in the figure.
    """
    work = bench.out(trial.name)
    work.mkdir(parents=True)
    history, log = (int(count * bench.scale) for count in (trial.history, trial.log))
    every = trial.days * DAY // (history + log)
    figures, anywhere, commits = [], [], []
    runs: dict[str, list[measure.Measured]] = {"archive of the history": [], "history and log": []}
    with broker(work, bench.writer) as kafka:
        kafka.fill("seam", history, create=True, every=every)
        archived = Job(bench, bench.out(trial.name, "archive"), kafka, "seam")
        took, _ = archived.run(archived.sql(LOG, ARCHIVE))
        runs["archive of the history"].append(took)
        kafka.fill("seam", log, every=every, **{"from": history})
        both = (
            "CREATE SOURCE both (WATERMARK FOR at AS at) WITH (lake = '{lake}', tail = '{log}', format = 'json');\n"
        )
        for turn in range(bench.repeats):
            job = Job(bench, bench.out(trial.name, "both"), kafka, "seam")
            sql = job.sql(both, WINDOWS, lake=str(archived.table), source="both", width="1 hour")
            took, said = job.run(sql, "--commit-interval", f"{trial.commit} ms")
            runs["history and log"].append(took)
            tell(f"{trial.name} {turn + 1}/{bench.repeats}", "history and log", took)
            lines = list(events(said, "progress"))
            steps = grown([(line["elapsed_ms"], line["rows"]) for line in lines])
            at = next(i for i, (_, rows) in enumerate(steps) if rows > history)
            near = [i for i in range(max(at - 1, 1), len(steps)) if i <= at or steps[i][0] <= steps[at][0] + 2000]
            figures.append(longest(steps, near))
            anywhere.append(longest(steps, range(1, len(steps))))
            epochs = grown([(line["elapsed_ms"], line["epoch"]) for line in lines])
            commits.append(longest(epochs, range(1, len(epochs))))
        job.run(sql, "--final")
        total = history + log
        found = duckdb.execute(
            "SELECT sum(messages)::HUGEINT, sum(ns)::HUGEINT FROM read_parquet($files)",
            {"files": DeltaTable(str(job.table)).file_uris()},
        ).fetchone()
    if found != (total, total * (total - 1) // 2):
        raise Disagreement(f"messages and their sum are {found}, of {total:,}")
    said = f"{history:,} messages in a table partitioned by day, then {log:,} in the log; windows of an hour by site"
    result = Result(trial.name, trial.title, said, runs, max(figures), "s", trial.bar, trial.aim)
    result.notes.append("the figure is that of the worst turn; each message is in the result once")
    result.notes.append(
        f"the longest time without a row anywhere in a run is {max(anywhere):.2f} s, without a checkpoint, of which one is "
        f"due every {trial.commit / 1000:g} s, {max(commits):.2f} s"
    )
    return result


def grown(told: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of what was told over time, what is more than before."""
    steps = told[:1]
    for time_ms, value in told[1:]:
        if value > steps[-1][1]:
            steps.append((time_ms, value))
    return steps


def longest(steps: list[tuple[int, int]], which) -> float:
    """The longest time, in seconds, that one of these steps came after the one before."""
    return max((steps[i][0] - steps[i - 1][0] for i in which), default=0) / 1000
