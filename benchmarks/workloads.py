"""What is measured: the facts, the question asked of them, and the bar that Watershed has to reach.

A question is one SELECT, said twice: over the window function `TUMBLE` for Watershed, and in plain SQL for the batch
engines, word for word the same for DataFusion and DuckDB. `agree.py` checks that both mean the same.
"""

from dataclasses import dataclass, replace

# How all engines compress what they write: what Watershed's tables and DuckDB take when nothing is said.
COMPRESSION = "snappy"

SOURCE = "CREATE SOURCE facts (WATERMARK FOR ts AS ts) WITH (lake = '{facts}');"


@dataclass(frozen=True)
class Facts:
    """Facts to generate: a Parquet folder with a partition a day (see `peer/src/generate.rs`)."""

    days: int
    rows: int  # a day
    keys: int
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.days}d-{self.rows}r-{self.keys}k-s{self.seed}"

    @property
    def total_rows(self) -> int:
        return self.days * self.rows

    def scaled(self, by: float) -> "Facts":
        """The same number of days with fewer rows, and as many fewer keys where nearly each row has its own."""
        keys = self.keys if self.keys * 10 < self.rows else max(1, int(self.keys * by))
        return replace(self, rows=max(1, int(self.rows * by)), keys=keys)

    def __str__(self) -> str:
        return f"{self.days} days × {self.rows:,} rows, {self.keys:,} keys"


@dataclass(frozen=True)
class Question:
    """One SELECT over `facts`, and how its answers are compared."""

    streaming: str
    batch: str
    key: tuple[str, ...]  # names a row; empty: rows have no key and are compared as a bag
    exact: tuple[str, ...]
    floats: tuple[str, ...]

    def watershed(self, facts: str) -> str:
        """The whole text of a job that keeps the answer as the view `answer`."""
        return f"{SOURCE.format(facts=facts)}\n\nCREATE MATERIALIZED VIEW answer AS\n{self.streaming};\n"


@dataclass(frozen=True)
class Workload:
    """A question asked of some facts, with the ratio to the fastest peer that is wanted (bar) and hoped for (aim)."""

    name: str
    title: str
    facts: Facts
    question: Question
    bar: float
    aim: float
    peers: tuple[str, ...] = ("datafusion", "duckdb")
    memory_bar: float | None = None  # peak memory, as a part of the smaller of the peers'


def tumbling(unit: str) -> Question:
    """Five aggregates for each key in each hour or day."""
    return Question(
        streaming=f"""SELECT window_start, window_end, k,
       count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(v) AS high
FROM TUMBLE(facts, ts, INTERVAL '1 {unit}')
GROUP BY window_start, window_end, k""",
        # Grouped by the window's start alone, its end added afterwards: the fastest way to say it in batch SQL.
        batch=f"""SELECT window_start, window_start + INTERVAL '1 {unit}' AS window_end, k, n, total, mean, low, high
FROM (
    SELECT date_trunc('{unit}', ts) AS window_start, k,
           count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(v) AS high
    FROM facts
    GROUP BY 1, 2
)""",
        key=("window_start", "k"),
        exact=("window_end", "n", "low", "high"),
        floats=("total", "mean"),
    )


HOURLY = tumbling("hour")
DAILY = tumbling("day")

FILTER_SQL = "SELECT ts, k, v * 1.19 AS gross FROM facts WHERE v >= 750"
FILTER = Question(streaming=FILTER_SQL, batch=FILTER_SQL, key=(), exact=("ts", "k", "gross"), floats=())

# Large enough that the faster batch engine needs ten seconds on two cores.
HALF_A_YEAR = Facts(days=180, rows=1_400_000, keys=1_000)

WORKLOADS = (
    Workload(
        name="hourly",
        title="tumbling 1 h, 1,000 keys, five aggregates",
        facts=HALF_A_YEAR,
        question=HOURLY,
        bar=1.0,
        aim=0.7,
    ),
    Workload(
        name="daily",
        title="tumbling 1 day, a million keys a day",
        facts=Facts(days=40, rows=1_500_000, keys=1_000_000),
        question=DAILY,
        bar=1.0,
        aim=0.8,
        memory_bar=0.5,
    ),
    Workload(
        name="filter",
        title="stateless filter and projection",
        facts=HALF_A_YEAR,
        question=FILTER,
        bar=1.1,
        aim=1.0,
        peers=("datafusion",),
    ),
)


@dataclass(frozen=True)
class MemoryTrial:
    """Does memory depend on how long the history is? The same job over few days and over many."""

    name: str = "memory"
    title: str = "peak memory, 180 days against 18"
    facts: Facts = HALF_A_YEAR
    question: Question = HOURLY
    few_days: int = 18
    bar: float = 1.15
    aim: float = 1.05


@dataclass(frozen=True)
class SparkTrial:
    """Spark Structured Streaming, one file a trigger, against Watershed on the same days."""

    name: str = "spark"
    title: str = "against Spark Structured Streaming, slice by slice"
    facts: Facts = HALF_A_YEAR
    question: Question = HOURLY
    days: int = 30
    bar: float = 20.0
    aim: float = 30.0


@dataclass(frozen=True)
class KillTrial:
    """Killed halfway and run again: which part of the rows is read twice?"""

    name: str = "kill"
    title: str = "work repeated after a kill halfway"
    facts: Facts = HALF_A_YEAR
    question: Question = HOURLY
    at: float = 0.5
    bar: float = 0.10
    aim: float = 0.02


TRIALS = (MemoryTrial(), SparkTrial(), KillTrial())
NAMES = tuple(each.name for each in (*WORKLOADS, *TRIALS))
