"""Who is measured: how each engine is told to answer a question, and where its answer lies afterwards."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import measure
from deltalake import DeltaTable
from measure import Measured
from workloads import COMPRESSION, Question

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Setup:
    """What all engines share."""

    watershed: Path  # the binaries
    peer: Path
    work: Path  # a folder for answers, checkpoints and what is spilled
    threads: int


@dataclass(frozen=True)
class Data:
    """What a question is asked of."""

    facts: Path
    partition: str = "day"  # the partition column of the facts
    dimensions: dict[str, Path] = field(default_factory=dict)  # other tables, by name


@dataclass(frozen=True)
class Run:
    """One answer: what it took, and the Parquet files it is in."""

    measured: Measured
    files: list[str]


def watershed(setup: Setup, question: Question, data: Data, out: Path) -> Run:
    """Watershed, as a user runs it: from the files to a Delta table, with its checkpoints."""
    measured, _ = measure.run(watershed_command(setup, question, data, out))
    return Run(measured, answer_of(out))


def watershed_command(setup: Setup, question: Question, data: Data, out: Path) -> list[str]:
    """The command that runs the question as a job with its home at `out`, or goes on with it."""
    out.mkdir(parents=True, exist_ok=True)
    sql = out / "job.sql"
    sql.write_text(question.watershed(str(data.facts), {name: str(at) for name, at in data.dimensions.items()}))
    command = [str(setup.watershed), "--home", str(out / "home"), "run", str(sql), "--json"]
    return [*command, "--parallelism", str(setup.threads), *(["--final"] if question.final else [])]


def answer_of(out: Path) -> list[str]:
    """The files of the view that a run of `watershed_command` has made, as delta-rs reads its log."""
    return DeltaTable(str(out / "home" / "tables" / "answer")).file_uris()


def datafusion(setup: Setup, question: Question, data: Data, out: Path) -> Run:
    """DataFusion in batch, from Rust (`peer/`)."""
    sql = batch_sql(question.batch, out)
    answer = out / "answer"
    command = [str(setup.peer), "batch", "--data", str(data.facts), "--sql", str(sql), "--out", str(answer)]
    command += ["--partition", data.partition, *tables(data)]
    measured, _ = measure.run([*command, "--compression", COMPRESSION, "--threads", str(setup.threads)])
    return Run(measured, parquet_in(answer))


def duckdb(setup: Setup, question: Question, data: Data, out: Path) -> Run:
    """DuckDB in batch, from Python (`duckdb_batch.py`)."""
    sql = batch_sql(question.duckdb or question.batch, out)
    answer = out / "answer"
    command = [
        sys.executable,
        str(HERE / "duckdb_batch.py"),
        "--data",
        str(data.facts),
        "--sql",
        str(sql),
        "--out",
        str(answer),
        *tables(data),
    ]
    command += ["--compression", COMPRESSION, "--threads", str(setup.threads), "--spill", str(out / "spill")]
    measured, _ = measure.run(command)
    return Run(measured, parquet_in(answer))


def spark(setup: Setup, python: str, facts: Path, out: Path) -> tuple[Run, dict]:
    """Spark Structured Streaming on the hourly question (`spark_stream.py`), with what it says of itself."""
    answer = out / "answer"
    command = [python, str(HERE / "spark_stream.py"), "--data", str(facts), "--out", str(answer)]
    command += ["--checkpoint", str(out / "checkpoint"), "--compression", COMPRESSION, "--threads", str(setup.threads)]
    measured, said = measure.run(command)
    return Run(measured, parquet_in(answer)), json.loads(said.strip().splitlines()[-1])


BATCH = {"datafusion": datafusion, "duckdb": duckdb, "watershed": watershed}


def batch_sql(text: str, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    sql = out / "query.sql"
    sql.write_text(text)
    return sql


def tables(data: Data) -> list[str]:
    """The tables besides the facts, as both batch engines are told of them."""
    return [word for name, place in data.dimensions.items() for word in ("--table", f"{name}={place}")]


def parquet_in(folder: Path) -> list[str]:
    return sorted(os.fspath(file) for file in folder.glob("*.parquet"))
