"""Who is measured: how each engine is told to answer a question, and where its answer lies afterwards."""

import json
import os
import sys
from dataclasses import dataclass
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
class Run:
    """One answer: what it took, and the Parquet files it is in."""

    measured: Measured
    files: list[str]


def watershed(setup: Setup, question: Question, facts: Path, out: Path) -> Run:
    """Watershed, as a user runs it: from the files to a Delta table, with its checkpoints."""
    measured, _ = measure.run(watershed_command(setup, question, facts, out))
    return Run(measured, answer_of(out))


def watershed_command(setup: Setup, question: Question, facts: Path, out: Path) -> list[str]:
    """The command that runs the question as a job with its home at `out`, or goes on with it."""
    out.mkdir(parents=True, exist_ok=True)
    sql = out / "job.sql"
    sql.write_text(question.watershed(str(facts)))
    command = [str(setup.watershed), "--home", str(out / "home"), "run", str(sql), "--json"]
    return [*command, "--parallelism", str(setup.threads)]


def answer_of(out: Path) -> list[str]:
    """The files of the view that a run of `watershed_command` has made, as delta-rs reads its log."""
    return DeltaTable(str(out / "home" / "tables" / "answer")).file_uris()


def datafusion(setup: Setup, question: Question, facts: Path, out: Path) -> Run:
    """DataFusion in batch, from Rust (`peer/`)."""
    sql = batch_sql(question, out)
    answer = out / "answer"
    command = [str(setup.peer), "batch", "--data", str(facts), "--sql", str(sql), "--out", str(answer)]
    measured, _ = measure.run([*command, "--compression", COMPRESSION, "--threads", str(setup.threads)])
    return Run(measured, parquet_in(answer))


def duckdb(setup: Setup, question: Question, facts: Path, out: Path) -> Run:
    """DuckDB in batch, from Python (`duckdb_batch.py`)."""
    sql = batch_sql(question, out)
    answer = out / "answer"
    command = [
        sys.executable,
        str(HERE / "duckdb_batch.py"),
        "--data",
        str(facts),
        "--sql",
        str(sql),
        "--out",
        str(answer),
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


def batch_sql(question: Question, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    sql = out / "query.sql"
    sql.write_text(question.batch)
    return sql


def parquet_in(folder: Path) -> list[str]:
    return sorted(os.fspath(file) for file in folder.glob("*.parquet"))
