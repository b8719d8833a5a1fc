-- Half a year of US domestic flights, as one stream. Run it with `make demo`, or:
--
--   watershed load examples/flights/flights.parquet --into .demo/flights --time-column date --partition-by day
--   watershed --home .demo/home run examples/flights/flights.sql --var FLIGHTS=.demo/flights \
--             --var AIRPORTS=examples/flights/airports.csv

-- The facts: a Delta table partitioned by day. A day that has been read is complete, so the watermark needs no delay.
CREATE SOURCE flights (WATERMARK FOR date AS date)
WITH (lake = '${FLIGHTS}');

-- How punctual was each airport, hour by hour? A row appears once its hour is over, and never changes.
CREATE MATERIALIZED VIEW delays AS
SELECT window_start, window_end, origin,
       count(*) AS flights,
       count(*) FILTER (WHERE delay > 15) AS late_flights,
       avg(delay) AS mean_delay,
       max(delay) AS worst_delay
FROM TUMBLE(flights, date, INTERVAL '1 hour')
GROUP BY window_start, window_end, origin;

-- How busy is each airport right now? The last three hours, anew every hour: windows overlap and share their work.
CREATE MATERIALIZED VIEW traffic AS
SELECT window_start, window_end, origin, count(*) AS flights, avg(delay) AS mean_delay
FROM HOP(flights, date, INTERVAL '1 hour', INTERVAL '3 hours')
GROUP BY window_start, window_end, origin;

-- Every flight that arrived two hours late or more. No windows, no state: rows are passed on as they come.
CREATE MATERIALIZED VIEW long_delays AS
SELECT date, origin, destination, distance, delay
FROM flights
WHERE delay >= 120;

-- Where the airports are: a file as it is, which a run reads once.
CREATE EXTERNAL TABLE airports (iata VARCHAR, name VARCHAR, city VARCHAR, state VARCHAR)
STORED AS CSV LOCATION '${AIRPORTS}';

-- The same as delays, with a name to each airport. The stream is joined before it is grouped.
CREATE MATERIALIZED VIEW delays_by_city AS
SELECT window_start, window_end, a.state, a.city,
       count(*) AS flights,
       avg(delay) AS mean_delay
FROM TUMBLE(flights, date, INTERVAL '1 hour') AS f
LEFT JOIN airports AS a ON f.origin = a.iata
GROUP BY window_start, window_end, a.state, a.city;
