"""Writes avro.json: messages of three schemas, encoded by fastavro, which is none of ours. Run it in this folder."""

import datetime
import decimal
import io
import json
import uuid

import fastavro

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "n", "type": "int"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}},
        {"name": "ratio", "type": "float"},
        {"name": "x", "type": "double"},
        {"name": "ok", "type": "boolean"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "seen", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["BUY", "SELL"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "uid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": "int"}},
        {
            "name": "home",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Address",
                    "fields": [
                        {"name": "street", "type": "string"},
                        {"name": "zip", "type": ["null", "string"], "default": None},
                    ],
                },
            ],
        },
        # A type by its name, which is defined in a field before it.
        {"name": "work", "type": ["null", "Address"]},
        {"name": "blob", "type": "bytes"},
        {"name": "other", "type": ["null", "string", "long"]},
    ],
}

# What became of it: fields added, one removed, one widened.
ORDER_2 = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "name", "type": ["null", "string"]},
        {"name": "id", "type": "int"},
        {"name": "more", "type": {"type": "array", "items": {"type": "map", "values": "double"}}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}

# Another thing of the same topic: the field `id` is text.
CANCEL = {"type": "record", "name": "Cancel", "fields": [{"name": "id", "type": "string"}]}

at = datetime.datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=datetime.timezone.utc)
orders = [
    {
        "id": 2**63 - 1,
        "name": "ann",
        "n": -1,
        "price": decimal.Decimal("-12.34"),
        "ratio": 0.5,
        "x": -1e300,
        "ok": True,
        "at": at,
        "seen": at.replace(microsecond=123456),
        "day": datetime.date(2026, 1, 31),
        "kind": "SELL",
        "hash": b"\x00\x01\xfe\xff",
        "uid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "tags": ["a", "", "ä"],
        "counts": {"one": 1},
        "home": {"street": "Main", "zip": None},
        "work": {"street": "Side", "zip": "123"},
        "blob": b"\xff",
        "other": 5,
    },
    {
        "id": 0,
        "name": "",
        "n": 0,
        "price": decimal.Decimal("0"),
        "ratio": 0.0,
        "x": 0.0,
        "ok": False,
        "at": datetime.datetime(1969, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc),
        "seen": None,
        "day": datetime.date(1969, 12, 31),
        "kind": "BUY",
        "hash": b"\x00\x00\x00\x00",
        "uid": uuid.UUID(int=0),
        "tags": [],
        "counts": {},
        "home": None,
        "work": None,
        "blob": b"",
        "other": None,
    },
]
changed = [
    {"name": None, "id": 7, "more": [{"a": 1.5}, {}], "at": at},
    {"name": "bob", "id": -7, "more": [], "at": at},
]
cancels = [{"id": "7"}]


def encode(schema, records):
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    bodies = []
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, record)
        bodies.append(out.getvalue().hex())
    return {"schema": json.dumps(schema), "bodies": bodies}


groups = {"1": encode(ORDER, orders), "2": encode(ORDER_2, changed), "3": encode(CANCEL, cancels)}
with open("avro.json", "w", encoding="utf-8") as out:
    json.dump(groups, out, indent=1)
    out.write("\n")
