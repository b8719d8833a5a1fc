"""Measures Watershed beside its peers, on the same files in the same run, and writes what came out to `results/`.

make bench
make bench ARGS='--only hourly --repeats 5'
make bench ARGS='--on minio'
make bench ARGS='--scale 0.02 --label trial --out benchmarks/results/local'
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import agree
import logs
import measure
import report
import trials
import upserts
from engines import Setup
from trials import Bench, Result
from workloads import (
    NAMES,
    STORE,
    TRIALS,
    WORKLOADS,
    ArchiveTrial,
    EstimateTrial,
    KillTrial,
    LogLatencyTrial,
    LogMemoryTrial,
    MemoryTrial,
    PairTrial,
    SeamTrial,
    SingleTrial,
    SinkLatencyTrial,
    SparkTrial,
    StreamTrial,
    UpsertTrial,
)

HERE = Path(__file__).parent
DO = {
    PairTrial: trials.pair,
    MemoryTrial: trials.memory,
    SparkTrial: trials.spark,
    KillTrial: trials.kill,
    EstimateTrial: trials.estimates,
    UpsertTrial: upserts.trial,
    StreamTrial: upserts.stream,
    SingleTrial: upserts.single,
    ArchiveTrial: logs.archive,
    LogLatencyTrial: logs.latency,
    SinkLatencyTrial: logs.sink_latency,
    LogMemoryTrial: logs.memory,
    SeamTrial: logs.seam,
}


def main() -> int:
    given = arguments()
    work = given.cache / "bench"
    setup = Setup(given.watershed, given.peer, work / "answers", given.threads)
    without = frozenset(given.without)
    bench = Bench(setup, work, given.repeats, given.scale, without, spark_python, given.writer)

    results: list[Result] = []
    failures = 0
    on_store = [(STORE.name, lambda: trials.store(bench, STORE))]
    for name, do in on_store if given.on == "minio" else chosen(bench, given.only, without):
        print(name, flush=True)
        try:
            results.append(do())
        except (measure.Failed, agree.Disagreement) as problem:
            failures += 1
            print(f"{name} failed: {problem}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(setup.work / name, ignore_errors=True)

    if results:
        binary = given.watershed.stat().st_size if given.watershed.exists() else None
        told = {"threads": given.threads, "repeats": given.repeats, "scale": given.scale, "binary": binary}
        print("\n" + report.write(results, told, given.out, given.label))
    return 1 if failures else 0


def chosen(bench: Bench, only: list[str], without: frozenset[str]):
    """What to measure: a name, and what to call for it."""
    for each in WORKLOADS:
        if each.name in only:
            yield each.name, lambda each=each: trials.workload(bench, each)
    for each in TRIALS:
        if each.name in only and "watershed" not in without and each.name not in without:
            yield each.name, lambda each=each: DO[type(each)](bench, each)


def spark_python() -> str:
    """The Python that has Spark, made if it is not there."""
    tool = HERE.parent / "tools" / "spark.sh"
    return subprocess.run([str(tool)], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("WATERSHED_CACHE", Path.home() / ".cache" / "watershed"))
    built = Path(os.environ.get("CARGO_TARGET_DIR", cache / "target")) / "release"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument("--on", choices=("minio",), help="only this: facts, home and result on a server, against the disk")
    parser.add_argument("--without", nargs="+", choices=("datafusion", "duckdb", "watershed", "spark"), default=())
    parser.add_argument("--repeats", type=int, default=3, help="how often each engine runs (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the rows, to try things out (1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each engine (all cores)")
    parser.add_argument("--label", default=datetime.date.today().isoformat(), help="name of the result (today's date)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the result goes")
    parser.add_argument("--cache", type=Path, default=cache, help="where generated facts are kept")
    parser.add_argument("--watershed", type=Path, default=Path(os.environ.get("WATERSHED", built / "watershed")))
    parser.add_argument("--peer", type=Path, default=built / "watershed-peer")
    parser.add_argument("--writer", type=Path, default=built / "watershed-writer")
    given = parser.parse_args()
    # Engines are told whole paths, wherever they run.
    for name in ("out", "cache", "watershed", "peer", "writer"):
        setattr(given, name, getattr(given, name).absolute())
    return given


if __name__ == "__main__":
    sys.exit(main())
