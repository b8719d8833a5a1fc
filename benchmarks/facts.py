"""The facts on disk, and tables to join them with: generated once, kept in the cache folder, read before each trial."""

import os
import shutil
import subprocess
from pathlib import Path

from workloads import Facts, FactsInHours


def folder(cache: Path, facts: Facts | FactsInHours, peer: Path) -> Path:
    """The folder that holds the facts; generated if it is not there yet."""
    target = cache / "facts" / facts.name
    if not target.exists():
        print(f"generating {facts}")
        partial = generated(peer, "generate", target, facts.flags())
        # Spark's file source takes files by their modification times: let those be in the order of the days.
        for place, file in enumerate(files(partial)):
            os.utime(file, (1_700_000_000 + place, 1_700_000_000 + place))
        partial.rename(target)
    return target


def dimensions(cache: Path, facts: Facts, peer: Path) -> Path:
    """The folder with the tables that facts of the shape `sales` are joined with, a folder each."""
    target = cache / "facts" / f"dimensions-{facts.keys}k-s{facts.seed}"
    if not target.exists():
        generated(peer, "dimensions", target, {"keys": facts.keys, "seed": facts.seed}).rename(target)
    return target


def generated(peer: Path, what: str, target: Path, flags: dict[str, int | str]) -> Path:
    """What the generator wrote, still beside its place: a folder that stands in its place is whole."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    subprocess.run([str(peer), what, "--out", str(partial), *words], check=True)
    return partial


def first_days(whole: Path, days: int) -> Path:
    """A folder with the first days of another, the same files under a second name."""
    target = whole.with_name(f"{whole.name}-first-{days}")
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for file in files(whole)[:days]:
            link = partial / file.relative_to(whole)
            link.parent.mkdir(parents=True)
            os.link(file, link)
        partial.rename(target)
    return target


def files(root: Path) -> list[Path]:
    """The files of a folder of facts, in the order of their times."""
    return sorted(root.glob("*=*/*.parquet"))


def warm(root: Path) -> int:
    """Reads every file, so that no engine pays for the disk. Returns how many bytes there are."""
    size = 0
    for file in files(root):
        with open(file, "rb", buffering=0) as f:
            while chunk := f.read(1 << 22):
                size += len(chunk)
    return size
