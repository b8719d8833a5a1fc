"""What a run leaves: a page of tables, the same as JSON for later comparison, and a plot."""

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict
from pathlib import Path
from statistics import median

import duckdb
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from measure import Measured  # noqa: E402
from trials import Result  # noqa: E402

ROOT = Path(__file__).parent.parent

# The engine that this is about stands out; the others are told apart by their labels.
OWN = "#1f6f8b"
OTHERS = "#b8bfc6"
PEERS = ("datafusion", "duckdb", "spark")


def write(results: list[Result], setup: dict, folder: Path, label: str) -> str:
    """Writes LABEL.md, LABEL.json and LABEL.png into the folder. Returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {"machine": machine(), "versions": versions(), "setup": setup}
    (folder / f"{label}.json").write_text(
        json.dumps({**described, "results": [asdict(r) for r in results]}, indent=1) + "\n"
    )
    drawn = plot(results, folder / f"{label}.png")
    text = page(results, described, label, drawn)
    (folder / f"{label}.md").write_text(text)
    return text


def page(results: list[Result], described: dict, label: str, drawn: bool) -> str:
    setup = described["setup"]
    lines = [
        f"# Benchmarks, {label}",
        "",
        f"Machine: {', '.join(described['machine'].values())}. {setup['threads']} threads each.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in described['versions'].items())}.",
        f"Runs of each engine: {setup['repeats']} (Spark: 1), in turns with the others, files in the page cache. "
        "A ratio is the median over the turns, against the faster peer (or the other job) of the same turn.",
    ]
    if setup["scale"] != 1:
        lines.append(f"**Only {setup['scale']:g} of the rows: a trial, not a result.**")
    lines += ["", *bars(results, setup.get("binary"))]
    if drawn:
        lines += ["", f"![wall time, processor time and peak memory]({label}.png)"]
    for result in results:
        lines += ["", f"## {result.title[0].upper()}{result.title[1:]}", "", f"{result.data}.", "", *took(result)]
        if result.notes:
            notes = "; ".join(result.notes)
            lines += ["", f"{notes[0].upper()}{notes[1:]}."]
    return "\n".join(lines) + "\n"


def bars(results: list[Result], binary: int | None) -> list[str]:
    """What was reached, of what was wanted."""
    lines = [row("work", "reached", "bar", "aim", ""), row(*["---"] * 5)]
    for r in results:
        sign = "≥" if r.more_is_better else "≤"
        reached, bar = (shown(value, r.unit) for value in (r.figure, r.bar))
        aim = "" if r.aim is None else shown(r.aim, r.unit)
        lines.append(row(r.title, reached, f"{sign} {bar}", aim, verdict(r)))
        if r.memory_bar is not None and r.memory is not None:
            met = "bar met" if r.memory <= r.memory_bar else "**bar missed**"
            what = "– its peak memory, over the smaller of the peers'"
            lines.append(row(what, shown(r.memory, "×"), f"≤ {shown(r.memory_bar, '×')}", "", met))
    if binary:
        lines.append(row("size of the binary", f"{binary / 1e6:.0f} MB", "", "90 MB", ""))
    return lines


def took(result: Result) -> list[str]:
    """What each engine's runs took."""
    lines = [row("", "wall, best", "wall, median", "CPU, median", "peak memory, median"), row(*["---"] * 5)]
    for engine, runs in result.runs.items():
        wall, cpu, peak = (typical(runs, measure) for measure in ("wall", "cpu", "peak"))
        best = min(run.wall for run in runs)
        lines.append(row(engine, f"{best:.2f} s", f"{wall:.2f} s", f"{cpu:.2f} s", f"{peak / 1e6:,.0f} MB"))
    return lines


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def plot(results: list[Result], file: Path) -> bool:
    """Wall time, processor time and peak memory of the engines in each workload that has peers."""
    compared = [r for r in results if any(name == "watershed" or name.startswith(PEERS) for name in r.runs)]
    if not compared:
        return False
    measures = [("wall", 1, "wall time, s"), ("cpu", 1, "processor time, s"), ("peak", 1e9, "peak memory, GB")]
    heights = [len(r.runs) + 0.9 for r in compared]
    figure, grid = plt.subplots(
        len(compared),
        len(measures),
        figsize=(11, 0.42 * sum(heights) + 0.6),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for row, (result, axes) in enumerate(zip(compared, grid, strict=True)):
        names = list(result.runs)
        for column, (axis, (measure, unit, label)) in enumerate(zip(axes, measures, strict=True)):
            values = [typical(runs, measure) / unit for runs in result.runs.values()]
            bars = axis.barh(names, values, color=[colour(name) for name in names], height=0.7)
            axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
            axis.invert_yaxis()
            axis.margins(x=0.18)
            axis.spines[["top", "right", "bottom"]].set_visible(False)
            axis.tick_params(bottom=False, labelbottom=False, left=False, labelleft=column == 0)
            if row == 0:
                axis.set_title(label, loc="left", fontsize=10, color="#555555", pad=22)
        title = axes[0].text(
            0, 1.02, result.title, transform=axes[0].transAxes, fontsize=10, weight="bold", va="bottom"
        )
        title.set_in_layout(False)  # it may run over the next column, and must not widen its own
    figure.savefig(file, dpi=130, facecolor="white")
    plt.close(figure)
    return True


def colour(name: str) -> str:
    return OTHERS if name.startswith(PEERS) else OWN


def shown(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}".replace("%", " %") if unit == "%" else f"{value:.2f} {unit}"


def verdict(r: Result) -> str:
    if r.figure is None:
        return "not measured"
    better = (lambda a, b: a >= b) if r.more_is_better else (lambda a, b: a <= b)
    if r.aim is not None and better(r.figure, r.aim):
        return "aim met"
    return "bar met" if better(r.figure, r.bar) else "**bar missed**"


def typical(runs: list[Measured], measure: str) -> float:
    return median(getattr(run, measure) for run in runs)


def machine() -> dict[str, str]:
    """What the machine is, without its name."""
    told = {"processor": platform.processor() or platform.machine(), "cores": f"{os.cpu_count()} cores"}
    if Path("/proc/cpuinfo").exists():
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        told["processor"] = model[1] if model else told["processor"]
    told["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    told["system"] = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    return told


def versions() -> dict[str, str]:
    """Of what was measured, and of what it was built with."""
    datafusion = re.search(r'name = "datafusion"\nversion = "([^"]+)"', (ROOT / "Cargo.lock").read_text())
    return {
        "Watershed": output("git", "describe", "--always", "--dirty"),
        "DataFusion": datafusion[1] if datafusion else "?",
        "DuckDB": duckdb.__version__,
        "rustc": output("rustc", "-V").split()[1],
    }


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
