"""Cuts `airports.csv` from the one that the npm package vega-datasets carries: the airports of the three million flights, as
they stand there, in its order. PROVENANCE.md has the sums.

    npm pack vega-datasets@3.2.1 && tar -xzf vega-datasets-3.2.1.tgz
    "$(tools/python.sh)" examples/flights/airports.py package/data examples/flights/airports.csv
"""

import sys

import pyarrow.compute as pc
import pyarrow.parquet as pq


def main(source: str, target: str) -> None:
    flights = pq.read_table(f"{source}/flights-3m.parquet", columns=["origin", "destination"])
    flown = set(pc.unique(flights["origin"]).to_pylist()) | set(pc.unique(flights["destination"]).to_pylist())
    with open(f"{source}/airports.csv", encoding="utf-8", newline="") as file:
        header, *lines = file.read().splitlines()
    kept = [line for line in lines if line.split(",", 1)[0] in flown]
    with open(target, "w", encoding="utf-8", newline="") as file:
        file.write("\n".join([header, *kept]) + "\n")
    print(f"{target}: {len(kept)} of {len(lines)} airports, for {len(flown)} codes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} FOLDER TARGET.csv")
    main(*sys.argv[1:])
