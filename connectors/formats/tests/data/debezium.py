"""Writes debezium.json: changes as Debezium's connectors write them with Confluent's Avro converter, encoded by fastavro, which
is none of ours. The schemas have the shape of those that are registered for a table of PostgreSQL. Run it in this folder."""

import decimal
import io
import json

import fastavro

MICROS = 1769860800123456  # 2026-01-31T12:00:00.123456Z


def named(plain, name, **more):
    return {"type": plain, "connect.version": 1, "connect.name": name, **more}


def optional(of):
    return ["null", of]


def decimals(precision, scale):
    parameters = {"scale": str(scale), "connect.decimal.precision": str(precision)}
    return named(
        "bytes",
        "org.apache.kafka.connect.data.Decimal",
        scale=scale,
        precision=precision,
        **{"connect.parameters": parameters, "logicalType": "decimal"},
    )


VARIABLE = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
    "connect.doc": "Variable scaled decimal",
    "connect.version": 1,
    "connect.name": "io.debezium.data.VariableScaleDecimal",
}

FIELDS = [
    {"name": "id", "type": {"type": "int", "connect.default": 0}, "default": 0},
    {"name": "name", "type": optional("string"), "default": None},
    {"name": "balance", "type": optional(decimals(10, 2)), "default": None},
    {"name": "text_balance", "type": optional("string"), "default": None},
    {"name": "ms", "type": optional(named("long", "io.debezium.time.Timestamp")), "default": None},
    {"name": "us", "type": optional(named("long", "io.debezium.time.MicroTimestamp")), "default": None},
    {"name": "ns", "type": optional(named("long", "io.debezium.time.NanoTimestamp")), "default": None},
    {"name": "zoned", "type": optional(named("string", "io.debezium.time.ZonedTimestamp")), "default": None},
    {"name": "day", "type": optional(named("int", "io.debezium.time.Date")), "default": None},
    {
        "name": "connect_day",
        "type": optional(named("int", "org.apache.kafka.connect.data.Date", logicalType="date")),
        "default": None,
    },
    {"name": "took", "type": optional(named("long", "io.debezium.time.MicroTime")), "default": None},
    {"name": "photo", "type": optional("bytes"), "default": None},
    {"name": "tags", "type": optional({"type": "array", "items": optional("string")}), "default": None},
    {"name": "any", "type": optional(VARIABLE), "default": None},
    {"name": "uid", "type": optional(named("string", "io.debezium.data.Uuid")), "default": None},
]


def envelope(fields):
    source = [
        {"name": "version", "type": "string"},
        {"name": "connector", "type": "string"},
        {"name": "name", "type": "string"},
        {"name": "ts_ms", "type": "long"},
        {"name": "snapshot", "type": optional(named("string", "io.debezium.data.Enum")), "default": None},
        {"name": "db", "type": "string"},
        {"name": "schema", "type": "string"},
        {"name": "table", "type": "string"},
        {"name": "lsn", "type": optional("long"), "default": None},
    ]
    value = {"type": "record", "name": "Value", "fields": fields, "connect.name": "shop.public.customers.Value"}
    block = [
        {"name": "id", "type": "string"},
        {"name": "total_order", "type": "long"},
        {"name": "data_collection_order", "type": "long"},
    ]
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": "shop.public.customers",
        "fields": [
            {"name": "before", "type": optional(value), "default": None},
            {"name": "after", "type": optional("Value"), "default": None},
            {
                "name": "source",
                "type": {
                    "type": "record",
                    "name": "Source",
                    "namespace": "io.debezium.connector.postgresql",
                    "fields": source,
                    "connect.name": "io.debezium.connector.postgresql.Source",
                },
            },
            {
                "name": "transaction",
                "type": optional({"type": "record", "name": "block", "namespace": "event", "fields": block}),
                "default": None,
            },
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": optional("long"), "default": None},
            {"name": "ts_us", "type": optional("long"), "default": None},
        ],
        "connect.version": 2,
        "connect.name": "shop.public.customers.Envelope",
    }


SOURCE = {
    "version": "3.0.0.Final",
    "connector": "postgresql",
    "name": "shop",
    "ts_ms": 1769860800000,
    "snapshot": "false",
    "db": "shop",
    "schema": "public",
    "table": "customers",
    "lsn": 24023128,
}


def change(op, before=None, after=None, at=1769860800000):
    source = dict(SOURCE, ts_ms=at)
    return {"before": before, "after": after, "source": source, "op": op, "ts_ms": at + 500, "ts_us": (at + 500) * 1000}


full = {
    "id": 1001,
    "name": "Sally",
    "balance": decimal.Decimal("-12.34"),
    "text_balance": "12345678.91",
    "ms": MICROS // 1000,
    "us": MICROS,
    "ns": MICROS * 1000,
    "zoned": "2026-01-31T13:00:00.123456+01:00",
    "day": 20484,
    "connect_day": 20484,
    "took": 1000000,
    "photo": b"\x00\xff",
    "tags": ["a", None],
    "any": {"scale": 3, "value": b"\x04\xd2"},
    "uid": "12345678-1234-5678-1234-567812345678",
}
key = {"id": 1001}
changes = [
    change("r", after=full),
    change("c", after={"id": 1002, "name": "George"}, at=1769860801000),
    change("u", before=key, after={"id": 1001, "name": "Anne", "photo": b"__debezium_unavailable_value"}),
    change("d", before=key, at=1769860802000),
    change("d"),
    change("c"),
    change("t"),
    change("m"),
    change("u", before={"id": 1002, "name": "old"}, after={"id": 1002, "name": "__debezium_unavailable_value"}),
]

# The table was altered: a column more, one less, one wider.
ALTERED = [
    {"name": "id", "type": "long"},
    {"name": "name", "type": optional("string"), "default": None},
    {"name": "since", "type": optional(named("int", "io.debezium.time.Date")), "default": None},
]
altered = [change("u", after={"id": 2**40, "name": "Ed", "since": 0}), change("d", before={"id": 1002, "name": None})]

# What a transform has unwrapped: the row alone.
FLAT = {"type": "record", "name": "Value", "namespace": "shop.flat", "fields": ALTERED}
flat = [{"id": 1, "name": "flat", "since": 0}]


def encode(schema, records):
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    bodies = []
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, record)
        bodies.append(out.getvalue().hex())
    return {"schema": json.dumps(schema), "bodies": bodies}


groups = {"1": encode(envelope(FIELDS), changes), "2": encode(envelope(ALTERED), altered), "3": encode(FLAT, flat)}
with open("debezium.json", "w", encoding="utf-8") as out:
    json.dump(groups, out, indent=1)
    out.write("\n")
