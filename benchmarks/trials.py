"""What is done with each workload and trial in `workloads.py`: runs in turns, answers compared, a figure."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import agree
import engines
import facts
import measure
import minio
from engines import Data, Run, Setup
from measure import Measured
from workloads import (
    WORKLOADS,
    EstimateTrial,
    Facts,
    FactsInHours,
    KillTrial,
    MemoryTrial,
    PairTrial,
    Question,
    SparkTrial,
    StoreTrial,
    Workload,
)


@dataclass
class Result:
    """What came of one workload or trial."""

    name: str
    title: str
    data: str
    runs: dict[str, list[Measured]]  # by engine, or by variant
    figure: float | None  # what bar and aim are about
    unit: str  # "×" or "%"
    bar: float
    aim: float | None
    more_is_better: bool = False
    memory: float | None = None  # peak memory, as a part of the smaller of the peers'
    memory_bar: float | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """Where and how often to measure."""

    setup: Setup
    cache: Path
    repeats: int
    scale: float
    without: frozenset[str]
    spark_python: Callable[[], str]  # makes Spark's environment, so called only when needed
    writer: Path  # the binary of `writer/`

    def facts_of(self, wanted: Facts | FactsInHours) -> tuple[Path, str]:
        """The folder of the facts, in the page cache, and what to say of them."""
        scaled = wanted.scaled(self.scale)
        folder = facts.folder(self.cache, scaled, self.setup.peer)
        return folder, f"{scaled}, {facts.warm(folder) / 1e9:.2f} GB of Parquet"

    def data_of(self, wanted: Facts | FactsInHours, question: Question, days: int | None = None) -> tuple[Data, str]:
        """The facts, or the first days of them, and the tables that the question joins them with."""
        folder, said = self.facts_of(wanted)
        if days:
            folder, said = facts.first_days(folder, days), f"The first {days} of {said}"
        tables = {}
        if question.dimensions:
            place = facts.dimensions(self.cache, wanted.scaled(self.scale), self.setup.peer)
            tables = {name: place / name for name in question.dimensions}
        return Data(folder, wanted.partition, tables), said

    def out(self, *names: str) -> Path:
        """An empty place for one answer."""
        out = self.setup.work.joinpath(*names)
        shutil.rmtree(out, ignore_errors=True)
        return out


def workload(bench: Bench, work: Workload) -> Result:
    """All engines in turns, so that a slow minute of the machine is everyone's."""
    data, said = bench.data_of(work.facts, work.question, work.days)
    all_engines = (*work.peers, *work.beside, "watershed")
    taking_part = [e for e in engines.BATCH if e not in bench.without and e in all_engines]
    runs: dict[str, list[Measured]] = {engine: [] for engine in taking_part}
    answers: dict[str, Run] = {}
    for turn in range(bench.repeats):
        for engine in taking_part:
            answers[engine] = engines.BATCH[engine](bench.setup, work.question, data, bench.out(work.name, engine))
            runs[engine].append(answers[engine].measured)
            tell(f"{work.name} {turn + 1}/{bench.repeats}", engine, answers[engine].measured)

    first, *others = taking_part
    rows = [agree.check(work.question, answers[first].files, answers[other].files) for other in others]
    peers = [runs[engine] for engine in taking_part if engine in work.peers]
    own = runs.get("watershed")
    result = Result(work.name, work.title, said, runs, None, "×", work.bar, work.aim, memory_bar=work.memory_bar)
    if rows:
        result.notes.append(f"all engines give the same {rows[0]:,} rows")
    if beside := [engine for engine in work.beside if engine in runs]:
        result.notes.append(f"the bar is about {', '.join(work.peers)}; {', '.join(beside)} ran for comparison")
    if own and peers:
        turns = zip(own, *peers, strict=True)
        result.figure = median(mine.wall / min(peer.wall for peer in theirs) for mine, *theirs in turns)
        result.memory = peak(own) / min(peak(peer) for peer in peers)
    return result


def pair(bench: Bench, trial: PairTrial) -> Result:
    """One job against another, in turns. DataFusion answers each in batch, once, to see that the answers are right."""
    data, told = zip(*(bench.data_of(job.facts, job.question) for job in trial.jobs), strict=True)
    runs: dict[str, list[Measured]] = {job.name: [] for job in trial.jobs}
    answers: dict[str, Run] = {}
    for turn in range(bench.repeats):
        for job, its in zip(trial.jobs, data, strict=True):
            place = "first" if job == trial.jobs[0] else "second"
            answers[job.name] = engines.watershed(bench.setup, job.question, its, bench.out(trial.name, place))
            runs[job.name].append(answers[job.name].measured)
            tell(f"{trial.name} {turn + 1}/{bench.repeats}", job.name, answers[job.name].measured)

    notes = []
    if "datafusion" not in bench.without:
        for job, its in zip(trial.jobs, data, strict=True):
            name = f"datafusion, {job.name}"
            batch = engines.datafusion(bench.setup, job.question, its, bench.out(trial.name, "datafusion"))
            runs[name] = [batch.measured]
            tell(trial.name, name, batch.measured)
            rows = agree.check(job.question, batch.files, answers[job.name].files)
            notes.append(f"{job.name}: the same {rows:,} rows as DataFusion's")
        notes.append("DataFusion ran once, to compare the answers")

    first, second = (runs[job.name] for job in trial.jobs)
    figure = median(one.wall / other.wall for one, other in zip(first, second, strict=True))
    said = "; ".join(dict.fromkeys(told))
    return Result(trial.name, trial.title, said, runs, figure, "×", trial.bar, trial.aim, notes=notes)


def memory(bench: Bench, trial: MemoryTrial) -> Result:
    """The same job over few days and over many."""
    folder, data = bench.facts_of(trial.facts)
    days = {f"{trial.few_days} days": facts.first_days(folder, trial.few_days), f"{trial.facts.days} days": folder}
    runs: dict[str, list[Measured]] = {name: [] for name in days}
    for turn in range(bench.repeats):
        for name, some in days.items():
            run = engines.watershed(bench.setup, trial.question, Data(some), bench.out(trial.name))
            runs[name].append(run.measured)
            tell(f"{trial.name} {turn + 1}/{bench.repeats}", name, run.measured)
    few, many = map(peak, runs.values())
    return Result(trial.name, trial.title, data, runs, many / few, "×", trial.bar, trial.aim)


def spark(bench: Bench, trial: SparkTrial) -> Result:
    """Spark once, for it takes long; its clock starts with the query, Watershed's with the process."""
    folder, data = bench.facts_of(trial.facts)
    some = facts.first_days(folder, trial.days)
    own = [
        engines.watershed(bench.setup, trial.question, Data(some), bench.out(trial.name, "watershed"))
        for _ in range(bench.repeats)
    ]
    tell(trial.name, "watershed", own[-1].measured)
    run, said = engines.spark(bench.setup, bench.spark_python(), some, bench.out(trial.name, "spark"))
    theirs = replace(run.measured, wall=said["seconds"])
    tell(trial.name, "spark", theirs)
    rows = agree.check(trial.question, own[-1].files, run.files, part=True)

    runs = {"watershed": [each.measured for each in own], "spark": [theirs]}
    figure = theirs.wall / median(m.wall for m in runs["watershed"])
    result = Result(
        trial.name, trial.title, f"The first {trial.days} of {data}", runs, figure, "×", trial.bar, trial.aim, True
    )
    result.notes.append(
        f"Spark {said['spark']}, {said['triggers']} triggers; {run.measured.wall - theirs.wall:.1f} s to start and "
        f"stop are not counted; its {rows:,} rows are the same as Watershed's"
    )
    return result


def kill(bench: Bench, trial: KillTrial) -> Result:
    """Kill -9 when a part of the rows has been read, then run again to the end."""
    folder, data = bench.facts_of(trial.facts)
    whole_out = bench.out(trial.name, "whole")
    command = engines.watershed_command(bench.setup, trial.question, Data(folder), whole_out)
    whole, said = measure.run(command)
    rows = rows_read(said)
    tell(trial.name, "whole", whole)

    runs: dict[str, list[Measured]] = {"whole": [whole], "resumed": []}
    repeated, longer = [], []
    for _ in range(bench.repeats):
        out = bench.out(trial.name, "killed")
        command = engines.watershed_command(bench.setup, trial.question, Data(folder), out)
        read_before, seconds = run_and_kill(command, trial.at * rows)
        resumed, said = measure.run(command)
        runs["resumed"].append(resumed)
        repeated.append((read_before + rows_read(said) - rows) / rows)
        longer.append((seconds + resumed.wall) / whole.wall - 1)
        tell(trial.name, f"killed after {seconds:.2f} s, resumed", resumed)
        agree.check(trial.question, engines.answer_of(whole_out), engines.answer_of(out))

    result = Result(trial.name, trial.title, data, runs, median(repeated), "%", trial.bar, trial.aim)
    result.notes.append(
        f"rows read by both runs, less all rows, over all rows; both together took {median(longer):+.1%} time"
    )
    result.notes.append("the resumed jobs' answers are those of the whole one")
    return result


def store(bench: Bench, trial: StoreTrial) -> Result:
    """From and to MinIO, and from and to the disk, in turns; and all the facts downloaded, for the server's own limit."""
    folder, data = bench.facts_of(trial.facts)
    some = facts.first_days(folder, trial.days)
    size = facts.warm(some)
    names = ("MinIO", "local disk", "plain download")
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    with minio.server(bench.setup.work) as server:
        os.environ.update(server.environment)
        try:
            remote = server.upload(some, "facts")
            for turn in range(bench.repeats):
                for name in names:
                    took = store_turn(bench, trial, name, some, remote, server)
                    runs[name].append(took)
                    tell(f"{trial.name} {turn + 1}/{bench.repeats}", name, took)
            found = bench.out(trial.name, "found")
            server.copy_back("home/tables/answer", found / "home" / "tables" / "answer")
        finally:
            for name in server.environment:
                os.environ.pop(name, None)
    rows = agree.check(
        trial.question, engines.answer_of(bench.setup.work / trial.name / "local"), engines.answer_of(found)
    )
    turns = list(zip(*runs.values(), strict=True))
    figure = median(far.wall / near.wall for far, near, _ in turns)
    download = median(plain.wall for *_, plain in turns)
    said = f"The first {trial.days} of {data}"
    result = Result(trial.name, trial.title, said, runs, figure, "×", trial.bar, trial.aim)
    result.notes.append(f"both give the same {rows:,} rows")
    result.notes.append(
        f"downloading the {size / 1e9:.2f} GB of facts, {bench.setup.threads} at a time, takes {download:.2f} s "
        f"({size / 1e6 / download:,.0f} MB/s, the interpreter's start counted): "
        f"{median(plain.wall / near.wall for _, near, plain in turns):.2f} times the local job"
    )
    result.notes.append("the server shares the cores with the job; its own time and memory are not in the figures")
    return result


def store_turn(
    bench: Bench, trial: StoreTrial, name: str, local: Path, remote: str, server: minio.Server
) -> Measured:
    if name == "plain download":
        command = [sys.executable, minio.__file__, "download", server.endpoint, minio.BUCKET, "facts"]
        return measure.run([*command, str(bench.setup.threads)])[0]
    if name == "local disk":
        return engines.watershed(bench.setup, trial.question, Data(local), bench.out(trial.name, "local")).measured
    server.remove("home")
    command = engines.watershed_command(bench.setup, trial.question, Data(local), bench.out(trial.name, "remote"))
    sql = Path(command[command.index("run") + 1])
    sql.write_text(trial.question.watershed(remote, {}))
    command[command.index("--home") + 1] = f"s3://{minio.BUCKET}/home"
    return measure.run(command)[0]


def estimates(bench: Bench, trial: EstimateTrial) -> Result:
    """Plans each workload, runs it once, and compares. Time is told, and not held against the bar: it is not promised."""
    worst, notes = 1.0, []
    runs: dict[str, list[Measured]] = {}
    for workload in (each for each in WORKLOADS if each.name in trial.workloads):
        data, _ = bench.data_of(workload.facts, workload.question, workload.days)
        out = bench.out(trial.name, workload.name)
        command = engines.watershed_command(bench.setup, workload.question, data, out)
        planned, said = measure.run([part if part != "run" else "plan" for part in command])
        estimate = json.loads(said.splitlines()[-1])["estimate"]
        ran, said = measure.run(command)
        summary = next(line for line in map(json.loads, said.splitlines()) if line["event"] == "summary")
        table = engines.answer_of(out)
        pairs = {
            "files": (estimate["files"], summary["run"]["account"]["files"] + summary["run"]["account"]["pruned_files"]),
            "bytes": (estimate["read_bytes"], summary["run"]["bytes"]),
            "rows": (estimate["rows"], summary["run"]["account"]["opened"]),
            "output rows": (estimate["output_rows"], summary["run"]["written"]),
            "output bytes": (estimate["output_bytes"], sum(Path(file.removeprefix("file://")).stat().st_size for file in table)),
            "state": (estimate["peak_bytes"], summary["peak"]["bytes"]),
        }
        ratios = {name: expected / reached for name, (expected, reached) in pairs.items() if expected or reached}
        worst = max([worst, *(max(ratio, 1 / ratio) if ratio else float("inf") for ratio in ratios.values())])
        runs[f"{workload.name}, plan"], runs[f"{workload.name}, run"] = [planned], [ran]
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        notes.append(f"{workload.name}, expected over reached: {told}; time {estimate['seconds'] / ran.wall:.2f}")
        tell(trial.name, workload.name, ran)
    return Result(trial.name, trial.title, "The facts of each workload", runs, worst, "×", trial.bar, trial.aim, notes=notes)


def run_and_kill(command: list[str], rows: float) -> tuple[int, float]:
    """Starts the job and kills it when it says it has read so many rows. Returns how many it had read, and seconds."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        read = 0
        for line in job.stdout:
            said = json.loads(line)
            if said["event"] == "progress":
                read = said["rows"]
                if read >= rows and job.poll() is None:
                    job.kill()
    if job.returncode >= 0:
        raise measure.Failed(f"{' '.join(command)}\nended with {job.returncode} before it could be killed")
    return read, time.perf_counter() - start


def rows_read(said: str) -> int:
    """The rows that a run read, from its summary."""
    lines = [json.loads(line) for line in said.splitlines()]
    return sum(line["run"]["rows"] for line in lines if line["event"] == "summary")


def peak(runs: list[Measured]) -> float:
    return median(run.peak for run in runs)


def tell(what: str, who: str, took: Measured) -> None:
    print(f"  {what:<14} {who:<12} {took.wall:7.2f} s wall {took.cpu:7.2f} s CPU {took.peak / 1e6:7.0f} MB", flush=True)
