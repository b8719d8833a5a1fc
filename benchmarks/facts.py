"""The facts on disk: generated once, kept in the cache folder, and read before they are measured."""

import os
import shutil
import subprocess
from pathlib import Path

from workloads import Facts


def folder(cache: Path, facts: Facts, peer: Path) -> Path:
    """The folder that holds the facts; generated if it is not there yet."""
    target = cache / "facts" / facts.name
    if not target.exists():
        print(f"generating {facts}")
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        parameters = {"days": facts.days, "rows": facts.rows, "keys": facts.keys, "seed": facts.seed}
        flags = [word for name, value in parameters.items() for word in (f"--{name}", str(value))]
        subprocess.run([str(peer), "generate", "--out", str(partial), *flags], check=True)
        # Spark's file source takes files by their modification times: let those be in the order of the days.
        for place, file in enumerate(files(partial)):
            os.utime(file, (1_700_000_000 + place, 1_700_000_000 + place))
        partial.rename(target)
    return target


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
    """The files of a folder of facts, in the order of their days."""
    return sorted(root.glob("day=*/*.parquet"))


def warm(root: Path) -> int:
    """Reads every file, so that no engine pays for the disk. Returns how many bytes there are."""
    size = 0
    for file in files(root):
        with open(file, "rb", buffering=0) as f:
            while chunk := f.read(1 << 22):
                size += len(chunk)
    return size
