"""What is measured: the facts, the question asked of them, and the bar that Watershed has to reach.

A question is one SELECT, said twice: over window functions such as `TUMBLE` for Watershed, and in plain SQL for the
batch engines, word for word the same for DataFusion and DuckDB where both are fastest with the same words. `agree.py`
checks that all mean the same.
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
    shape: str = "plain"  # which columns: plain, sales or wide

    @property
    def name(self) -> str:
        shape = "" if self.shape == "plain" else f"-{self.shape}"
        return f"{self.days}d-{self.rows}r-{self.keys}k-s{self.seed}{shape}"

    @property
    def partition(self) -> str:
        """The partition column."""
        return "day"

    def scaled(self, by: float) -> "Facts":
        """The same number of days with fewer rows, and as many fewer keys where nearly each row has its own."""
        keys = self.keys if self.keys * 10 < self.rows else max(1, int(self.keys * by))
        return replace(self, rows=max(1, int(self.rows * by)), keys=keys)

    def flags(self) -> dict[str, int | str]:
        """What the generator is told."""
        return {"count": self.days, "rows": self.rows, "keys": self.keys, "seed": self.seed, "shape": self.shape}

    def __str__(self) -> str:
        return f"{self.days} days × {self.rows:,} rows, {self.keys:,} keys"


@dataclass(frozen=True)
class FactsInHours:
    """Facts in the first hours of each month and no others, in a partition an hour or a partition a month.

    By the hour and by the month they are the same rows, in the same order, at the same times.
    """

    months: int
    hours: int  # of each month
    rows: int  # an hour
    keys: int
    partition: str = "hour"  # or month
    first: str = "2018-01-01"
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.months}m-{self.hours}h-{self.rows}r-{self.keys}k-s{self.seed}-by-{self.partition}"

    def scaled(self, by: float) -> "FactsInHours":
        """The same hours with fewer rows."""
        return replace(self, rows=max(1, int(self.rows * by)))

    def flags(self) -> dict[str, int | str]:
        """What the generator is told."""
        told = {"by": self.partition, "first": self.first, "count": self.months, "hours": self.hours}
        return {**told, "rows": self.rows, "keys": self.keys, "seed": self.seed}

    def __str__(self) -> str:
        partitions = self.months if self.partition == "month" else self.months * self.hours
        rows = self.months * self.hours * self.rows // partitions
        return f"{partitions:,} partitions of {rows:,} rows, {self.keys:,} keys"


@dataclass(frozen=True)
class Question:
    """One SELECT over `facts`, and how its answers are compared."""

    streaming: str
    batch: str
    key: tuple[str, ...]  # names a row; empty: rows have no key and are compared as a bag
    exact: tuple[str, ...]
    floats: tuple[str, ...]
    duckdb: str | None = None  # where DuckDB is faster in other words
    dimensions: tuple[str, ...] = ()  # tables that facts are joined with
    final: bool = False  # some windows end after the facts do: those are to be emitted too

    def watershed(self, facts: str, dimensions: dict[str, str]) -> str:
        """The whole text of a job that keeps the answer as the view `answer`."""
        tables = "".join(
            f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{place}/';\n"
            for name, place in dimensions.items()
        )
        return f"{SOURCE.format(facts=facts)}\n{tables}\nCREATE MATERIALIZED VIEW answer AS\n{self.streaming};\n"


@dataclass(frozen=True)
class Workload:
    """A question asked of some facts, with the ratio to the fastest peer that is wanted (bar) and hoped for (aim)."""

    name: str
    title: str
    facts: Facts
    question: Question
    bar: float
    aim: float | None
    peers: tuple[str, ...] = ("datafusion", "duckdb")
    beside: tuple[str, ...] = ()  # engines that run too, for comparison, and not for bar and aim
    memory_bar: float | None = None  # peak memory, as a part of the smaller of the peers'
    days: int | None = None  # only the first days of the facts


FIVE = "count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(v) AS high"


def tumbling(unit: str, keys: tuple[str, ...] = ("k",)) -> Question:
    """Five aggregates for each key in each hour or day."""
    columns = ", ".join(keys)
    return Question(
        streaming=f"""SELECT window_start, window_end, {columns},
       {FIVE}
FROM TUMBLE(facts, ts, INTERVAL '1 {unit}')
GROUP BY window_start, window_end, {columns}""",
        # Grouped by the window's start alone, its end added afterwards: the fastest way to say it in batch SQL.
        batch=f"""SELECT window_start, window_start + INTERVAL '1 {unit}' AS window_end, {columns},
       n, total, mean, low, high
FROM (
    SELECT date_trunc('{unit}', ts) AS window_start, {columns},
           {FIVE}
    FROM facts
    GROUP BY date_trunc('{unit}', ts), {columns}
)""",
        key=("window_start", *keys),
        exact=("window_end", "n", "low", "high"),
        floats=("total", "mean"),
    )


HOURLY = tumbling("hour")
DAILY = tumbling("day")
STRINGS = tumbling("hour", tuple(f"g{n:02}" for n in range(1, 21)))

FILTER_SQL = "SELECT ts, k, v * 1.19 AS gross FROM facts WHERE v >= 750"
FILTER = Question(streaming=FILTER_SQL, batch=FILTER_SQL, key=(), exact=("ts", "k", "gross"), floats=())


def hopping() -> Question:
    """`HOURLY`, begun anew every five minutes."""

    def expanded(pane: str, lags: str) -> str:
        return f"""SELECT window_start, window_start + INTERVAL '1 hour' AS window_end, k, n, total, mean, low, high
FROM (
    SELECT {pane} - lag AS window_start, k,
           {FIVE}
    FROM {lags}
    CROSS JOIN facts
    GROUP BY 1, 2
)"""

    # Each row is copied into its twelve windows. A join with twelve constants is the fastest way tried in both engines:
    # in DataFusion, unnest of a list of constants takes a third longer, and unnest(range(…)) half as long again.
    lags = ", ".join(f"(INTERVAL '{minutes} minutes')" for minutes in range(0, 60, 5))
    return Question(
        streaming=f"""SELECT window_start, window_end, k,
       {FIVE}
FROM HOP(facts, ts, INTERVAL '5 minutes', INTERVAL '1 hour')
GROUP BY window_start, window_end, k""",
        batch=expanded("date_bin(INTERVAL '5 minutes', ts)", f"(VALUES {lags}) AS lags(lag)"),
        duckdb=expanded("time_bucket(INTERVAL '5 minutes', ts)", f"(VALUES {lags}) AS lags(lag)"),
        key=HOURLY.key,
        exact=HOURLY.exact,
        floats=HOURLY.floats,
        final=True,  # the last windows begin within the last hour
    )


def joined() -> Question:
    """Facts with what is known of their customer, product and region, grouped by that."""
    attributes = "segment, category, country"
    aggregates = "count(*) AS n, sum(v) AS total, sum(v * tax) AS taxes"
    joins = """JOIN customers ON f.k = customers.k
{i}JOIN products ON f.product = products.product
{i}JOIN regions ON f.region = regions.region"""
    return Question(
        streaming=f"""SELECT window_start, window_end, {attributes},
       {aggregates}
FROM TUMBLE(facts, ts, INTERVAL '1 hour') AS f
{joins.format(i="")}
GROUP BY window_start, window_end, {attributes}""",
        batch=f"""SELECT window_start, window_start + INTERVAL '1 hour' AS window_end, {attributes}, n, total, taxes
FROM (
    SELECT date_trunc('hour', ts) AS window_start, {attributes},
           {aggregates}
    FROM facts AS f
    {joins.format(i="    ")}
    GROUP BY date_trunc('hour', ts), {attributes}
)""",
        key=("window_start", "segment", "category", "country"),
        exact=("window_end", "n"),
        floats=("total", "taxes"),
        dimensions=("customers", "products", "regions"),
    )


# What a roll-up starts from, and that view as a job of its own.
HOURS = """SELECT window_start AS hour, k, count(*) AS n, sum(v) AS total
{i}FROM TUMBLE(facts, ts, INTERVAL '1 hour')
{i}GROUP BY window_start, k"""
BATCH_HOURS = """SELECT date_trunc('hour', ts) AS hour, k, count(*) AS n, sum(v) AS total
{i}FROM facts
{i}GROUP BY date_trunc('hour', ts), k"""


def rolled_up(hours: str) -> str:
    """The months of days of hours."""
    return f"""WITH hourly AS (
    {hours.format(i="    ")}
), daily AS (
    SELECT date_trunc('day', hour) AS day, k, sum(n) AS n, sum(total) AS total
    FROM hourly
    GROUP BY date_trunc('day', hour), k
)
SELECT date_trunc('month', day) AS month, k, sum(n) AS n, sum(total) AS total
FROM daily
GROUP BY date_trunc('month', day), k"""


HOP = hopping()
JOINS = joined()
HOUR_VIEW = Question(
    streaming=HOURS.format(i=""),
    batch=BATCH_HOURS.format(i=""),
    key=("hour", "k"),
    exact=("n",),
    floats=("total",),
    final=True,
)
ROLL_UP = Question(
    streaming=rolled_up(HOURS),
    batch=rolled_up(BATCH_HOURS),
    key=("month", "k"),
    exact=("n",),
    floats=("total",),
    final=True,  # the last month has begun only
)

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
    Workload(
        name="hop",
        title="hopping 1 h by 5 min, 1,000 keys",
        facts=HALF_A_YEAR,
        question=HOP,
        bar=0.5,
        aim=0.2,
        peers=("datafusion",),
        beside=("duckdb",),
        days=12,
    ),
    Workload(
        name="joins",
        title="tumbling 1 h with three dimension joins",
        facts=Facts(days=60, rows=1_400_000, keys=1_000, shape="sales"),
        question=JOINS,
        bar=1.0,
        aim=0.8,
    ),
    Workload(
        name="strings",
        title="tumbling 1 h, 20 string columns as keys",
        facts=Facts(days=60, rows=500_000, keys=1_000, shape="wide"),
        question=STRINGS,
        bar=1.0,
        aim=None,
    ),
)


@dataclass(frozen=True)
class Job:
    """One of two jobs that are compared."""

    name: str
    facts: Facts | FactsInHours
    question: Question


@dataclass(frozen=True)
class PairTrial:
    """One job of Watershed's against another: the ratio of their times, first over second."""

    name: str
    title: str
    jobs: tuple[Job, Job]
    bar: float
    aim: float


# The same rows at the same times, and the same question: only the borders of the partitions differ. 100 days have too
# few hours for 10,000 partitions, so these are the hours of 100 months, 100 of each. (Were the rows spread over 100
# days and over 10,000 hours, windows and output would differ too.) So few keys that each has some fifty rows in a
# window, as in `hourly`: more would drown the reading of partitions in the writing of rows.
HOURS_OF_MONTHS = FactsInHours(months=100, hours=100, rows=1_000, keys=20)

PAIRS = (
    PairTrial(
        name="rollup",
        title="hour → day → month roll-up, against the hour view alone",
        jobs=(Job("roll-up", HALF_A_YEAR, ROLL_UP), Job("hour view", HALF_A_YEAR, HOUR_VIEW)),
        bar=1.1,
        aim=1.0,
    ),
    PairTrial(
        name="partitions",
        title="10,000 partitions of 1,000 rows, against the same rows in 100",
        jobs=(
            Job("10,000 partitions", HOURS_OF_MONTHS, HOURLY),
            Job("100 partitions", replace(HOURS_OF_MONTHS, partition="month"), HOURLY),
        ),
        bar=1.5,
        aim=1.1,
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


@dataclass(frozen=True)
class StoreTrial:
    """The same job with all it reads and writes in a bucket of a server on this machine, against the local disk."""

    name: str = "s3"
    title: str = "tumbling 1 h from and to MinIO, against the local disk"
    facts: Facts = HALF_A_YEAR
    question: Question = HOURLY
    days: int = 180
    bar: float = 1.3
    aim: float = 1.1


@dataclass(frozen=True)
class EstimateTrial:
    """What `watershed plan` expects of each workload, against what the run then does: the worst of all ratios."""

    name: str = "estimates"
    title: str = "estimates against what then happens"
    workloads: tuple[str, ...] = ("hourly", "daily", "filter", "hop", "joins", "strings")
    bar: float = 2.0
    aim: float = 1.25


@dataclass(frozen=True)
class UpsertTrial:
    """Some of a keyed table's rows replaced, against delta-rs's MERGE; then scans of the table."""

    name: str = "upserts"
    title: str = "1 % of a keyed table's rows replaced, times faster than delta-rs's MERGE"
    rows: int = 20_000_000
    partitions: int = 100
    share: float = 0.01
    commits: int = 100
    bar: float = 10.0
    aim: float | None = None


@dataclass(frozen=True)
class StreamTrial:
    """Upserts into one partition, a commit a second: the 99th percentile of what a commit takes."""

    name: str = "stream"
    title: str = "a commit a second into one partition of a keyed table, p99"
    rate: int = 150_000
    seconds: int = 120
    bar: float = 1.0
    aim: float | None = None


@dataclass(frozen=True)
class SingleTrial:
    """One row into a table of many."""

    name: str = "single"
    title: str = "one row into a keyed table of 100 million, with a warm index"
    rows: int = 100_000_000
    files: int = 20
    bar: float = 2.0
    aim: float | None = None


@dataclass(frozen=True)
class ArchiveTrial:
    """A whole topic into a table partitioned by day, in millions of messages a second; beside it Spark."""

    name: str = "archive"
    title: str = "a log archived into a Delta table"
    messages: int = 20_000_000
    spark_messages: int = 5_000_000
    days: int = 10
    bar: float = 0.4
    aim: float | None = None


@dataclass(frozen=True)
class LogLatencyTrial:
    """From the moment of an event to the commit in which it can be read: the 99th percentile."""

    name: str = "log-latency"
    title: str = "from an event in a log to a readable row, a commit a second, p99"
    rate: int = 50_000
    seconds: int = 120
    warm: int = 40  # seconds before these: epochs are a second long once the run has lasted 32
    bar: float = 1.5
    aim: float | None = None


@dataclass(frozen=True)
class SinkLatencyTrial:
    """From the end of a window to its results in a topic: the 99th percentile."""

    name: str = "sink-latency"
    title: str = "from a window's end to its results in a topic, p99"
    rate: int = 100_000
    keys: int = 10_000
    seconds: int = 120
    warm: int = 20  # seconds before these
    bar: float = 0.15
    aim: float | None = None


@dataclass(frozen=True)
class LogMemoryTrial:
    """Does memory depend on how long the log is? The same jobs over a minute's messages and an hour's."""

    name: str = "log-memory"
    title: str = "peak memory over an hour of a log against a minute"
    rate: int = 20_000
    bar: float = 1.1
    aim: float | None = None


@dataclass(frozen=True)
class SeamTrial:
    """From a history into its log: the longest time in which nothing was read, around the change."""

    name: str = "seam-pause"
    title: str = "longest pause around the seam of history and log"
    history: int = 5_000_000
    log: int = 5_000_000
    days: int = 20
    commit: int = 500  # milliseconds
    bar: float = 1.0
    aim: float | None = None


STORE = StoreTrial()  # with --on minio, and then alone
KEYED = (UpsertTrial(), StreamTrial(), SingleTrial())
LOGS = (ArchiveTrial(), LogLatencyTrial(), SinkLatencyTrial(), LogMemoryTrial(), SeamTrial())
TRIALS = (*PAIRS, MemoryTrial(), SparkTrial(), KillTrial(), EstimateTrial(), *KEYED, *LOGS)
NAMES = tuple(each.name for each in (*WORKLOADS, *TRIALS))
