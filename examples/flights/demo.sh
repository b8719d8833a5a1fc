#!/usr/bin/env bash
# The demo: loads half a year of flights into a Delta table partitioned by day, runs flights.sql over it, and prints
# some of what came out. Starts over each time, in .demo (or DEMO). FULL=1 takes all three million flights instead of a tenth.
#
#   make demo [FULL=1]
#   WATERSHED=path/to/watershed examples/flights/demo.sh
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
demo=${DEMO:-.demo}
watershed=${WATERSHED:-watershed}
flights=$here/flights.parquet
vars=(--var "FLIGHTS=$demo/flights" --var "AIRPORTS=$here/airports.csv")

if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; else bold='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() { printf '$ watershed %s\n' "$*"; "$watershed" "$@"; }

rm -rf "$demo/flights" "$demo/home"
mkdir -p "$demo"

if [ "${FULL:-0}" = 1 ]; then
    flights=$demo/flights-3m.parquet
    if [ ! -f "$flights" ]; then
        say "Fetching three million flights"
        "$here/fetch.sh" "$flights"
    fi
fi

say "1. The lake: a Delta table with a partition a day"
run load "$flights" --into "$demo/flights" --time-column date --partition-by day

say "2. The job: slice after slice of history, exactly once"
run --home "$demo/home" run "$here/flights.sql" "${vars[@]}"

say "3. The same again: nothing is new, so nothing is done"
run --home "$demo/home" run "$here/flights.sql" "${vars[@]}"

say "4. The worst hours at a large airport"
run --home "$demo/home" query "
SELECT window_start, origin, flights, late_flights, round(mean_delay, 1) AS mean_delay, worst_delay
FROM delays WHERE flights >= 10 ORDER BY mean_delay DESC, window_start LIMIT 10"

say "5. The longest delays"
run --home "$demo/home" query "
SELECT date, origin, destination, delay FROM long_delays ORDER BY delay DESC, date LIMIT 5"

say "6. Where it was worst: flights joined with the airports' file as they were read"
run --home "$demo/home" query "
SELECT state, city, sum(flights) AS flights, round(sum(flights * mean_delay) / sum(flights), 1) AS mean_delay
FROM delays_by_city GROUP BY state, city HAVING sum(flights) >= 1000 ORDER BY mean_delay DESC LIMIT 5"

say "7. The busiest three hours: windows that overlap"
run --home "$demo/home" query "
SELECT window_start, window_end, origin, flights, round(mean_delay, 1) AS mean_delay
FROM traffic ORDER BY flights DESC, window_start LIMIT 5"

say "The results are Delta tables in $demo/home/tables. In DuckDB, say:  FROM delta_scan('$demo/home/tables/delays');"
