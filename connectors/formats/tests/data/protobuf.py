"""Writes what tests/it/protobuf reads: descriptors that protoc compiled, messages that Google's protobuf encoded and
Confluent's serializer framed, none of which is ours. Run it in this folder, with `pip install protobuf==7.36.2
grpcio-tools==1.85.1 confluent-kafka[protobuf,schemaregistry]==2.16.0`.

* protobuf/*.binpb: descriptor sets of protobuf/*.proto. `lone.binpb` is shop's without what it imports.
* protobuf.json: messages by name, in hexadecimal.
* protobuf_mutated.json: fields of orders, put together and spoilt in ways drawn from a fixed seed; and for each what Google's
  parser makes of it, as JSON, or null if it refuses it. `odd` says that the message has a field whose wire type or number is not the
  field's, which Google's parser passes over or cuts off, or a time that is none.
"""

import json
import random
import struct

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, unknown_fields
from grpc_tools import protoc
import grpc_tools

INCLUDE = grpc_tools.__path__[0] + "/_proto"


def compile_set(out, proto, *more):
    arguments = ["protoc", "-Iprotobuf", "-I" + INCLUDE, f"--descriptor_set_out=protobuf/{out}", *more, proto]
    assert protoc.main(arguments) == 0


compile_set("shop.binpb", "shop.proto", "--include_imports")
compile_set("lone.binpb", "shop.proto")
compile_set("old.binpb", "old.proto", "--include_imports")
compile_set("new.binpb", "new.proto", "--include_imports")

pool = descriptor_pool.DescriptorPool()
for name in ["shop", "old"]:
    with open(f"protobuf/{name}.binpb", "rb") as file:
        for proto in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
            pool.Add(proto)
Order = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))
Cancel = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Cancel"))
Address = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Address"))
Code = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Cancel.Why.Code"))
Event = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Event"))
Reading = message_factory.GetMessageClass(pool.FindMessageTypeByName("Reading"))

full = Order(
    i32=-(2**31),
    i64=-(2**63),
    u32=2**31 - 1,
    u64=2**63 - 1,
    s32=-(2**31),
    s64=-(2**63),
    f32=2**31 - 1,
    f64=2**63 - 1,
    sf32=-1,
    sf64=-(2**63),
    ok=True,
    ratio=0.1,
    x=-1e300,
    name="änn",
    blob=b"\x00\xff",
    kind=2,
    maybe=0,
    maybe_kind=0,
    numbers=[1, -1, 300],
    unpacked=[1, -2, 3],
    tags=["a", "", "ä"],
    kinds=[1, 2, 0, -1, 77],
    counts={"one": 1, "": -2},
    flags={True: 2, False: 9},
    card="visa",
)
full.at.seconds, full.at.nanos = 1769860800, 123456789
full.took.seconds, full.took.nanos = -1, -500_000_999
full.wi64.value = -5
full.wname.value = "w"
full.wok.value = True
full.wu64.value = 2**64 - 1
full.wx.value = 0.5
time = full.times.add()
time.seconds, time.nanos = -1, 999_999_999
full.times.add()
item = full.items.add()
item.sku, item.count = "s1", 2
item.prices.extend([1.5, 2.5])
item.notes["n"] = 1
item.part.n = 4
full.items.add()
full.by_number[7].sku = "seven"
full.by_number[-7].count = -7
full.home.street = "Main"
full.home.zip = ""
full.home.floors.extend([1, 2])
full.more["k"] = "v"

# Wrappers that are there and hold nothing; a unique member that holds nothing; the greatest of unsigned numbers.
bare = Order(u32=2**32 - 1, u64=2**64 - 1, f32=2**32 - 1, f64=2**64 - 1, kind=77)
bare.wi64.SetInParent()
bare.wname.SetInParent()
bare.at.SetInParent()
bare.home.SetInParent()
bare.free.SetInParent()

invoiced = Order(invoice=dict(street="Side", floors=[9]))
paid = Order(cents=5)

reading = Reading(id=-1, count=7, level=1, name="r", loose=[1, 2], tight=[3, 4])
reading.place.lon = 1.5
reading.place.inner.n = 3
reading.sample.add().v = 1
reading.sample.add()
reading.Extensions[pool.FindExtensionByName("note")] = "passed over"
lacking = Reading()

event = Event(city="Bern", small=2**32 - 1, large=2**64 - 1, kind=2, parts=[b"\x01", b""], kinds={"k": 1}, at_ms=-1)
event.at.seconds, event.took.nanos, event.ratio.value = 1769860800, 1000, 0.5
event.place.x = -3
event.place.ways.add().ok = True
event.nothing.SetInParent()

messages = {
    "full": full,
    "bare": bare,
    "invoiced": invoiced,
    "paid": paid,
    "cancel": Cancel(id=3),
    "event": event,
    "reading": reading,
    "lacking": lacking,
}
encoded = {name: one.SerializePartialToString(deterministic=True) for name, one in messages.items()}
# As Confluent's serializer frames them: with the ids of a registry that is none, and the indexes of their types.
registry = SchemaRegistryClient.new_client({"url": "mock://registry"})
value = SerializationContext("orders", MessageField.VALUE)
framed = {"address": Address(street="Main"), "order": paid, "item": Order.Item(sku="s", count=2), "code": Code(n=3)}
for name, one in framed.items():
    serializer = ProtobufSerializer(type(one), registry, {"use.deprecated.format": False})
    encoded["framed_" + name] = serializer(one, value)

with open("protobuf.json", "w", encoding="utf-8") as out:
    json.dump({name: one.hex() for name, one in encoded.items()}, out, indent=1)
    out.write("\n")


# Fields of the messages that the spoilt ones are held against: no maps, whose order is nobody's.
def plain(one):
    """The fields that are read in Rust, as JSON has them there."""

    def nullable(name, value=lambda v: v):
        return value(getattr(one, name)) if one.HasField(name) else None

    def address(a):
        return {
            "street": a.street,
            "zip": a.zip if a.HasField("zip") else None,
            "floors": list(a.floors),
        }

    def item(i):
        return {
            "sku": i.sku,
            "count": i.count,
            "part": {"n": i.part.n} if i.HasField("part") else None,
            "prices": [struct.unpack("<Q", struct.pack("<d", x))[0] for x in i.prices],
            "notes": sorted([k, v] for k, v in i.notes.items()),
        }

    def time(t):
        return [t.seconds, t.nanos]

    return {
        "i32": one.i32,
        "i64": one.i64,
        "u64": str(one.u64),
        "s32": one.s32,
        "f32": one.f32,
        "sf64": one.sf64,
        "ok": one.ok,
        "name": one.name,
        "blob": one.blob.hex(),
        "kind": one.kind,
        "at": nullable("at", time),
        "wi64": nullable("wi64", lambda w: w.value),
        "wname": nullable("wname", lambda w: w.value),
        "maybe": nullable("maybe"),
        "numbers": list(one.numbers),
        "unpacked": list(one.unpacked),
        "tags": list(one.tags),
        "items": [item(i) for i in one.items],
        "counts": sorted([k, v] for k, v in one.counts.items()),
        "home": nullable("home", address),
        "card": nullable("card"),
        "invoice": nullable("invoice", address),
        "cents": nullable("cents"),
    }


# Numbers that their fields cannot hold are cut by Google's parser, and fields of another wire type are unknown to it. To
# tell that, each message is read again with types that cut nothing.
WIDE = {5: 3, 13: 4, 17: 18, 14: 3}


def loose_pool():
    loose = descriptor_pool.DescriptorPool()
    with open("protobuf/shop.binpb", "rb") as file:
        for proto in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
            stack = list(proto.message_type)
            while stack:
                one = stack.pop()
                stack.extend(one.nested_type)
                for field in one.field:
                    if field.type in WIDE:
                        field.type = WIDE[field.type]
                        field.ClearField("type_name")
            loose.Add(proto)
    return message_factory.GetMessageClass(loose.FindMessageTypeByName("shop.Order"))


Loose = loose_pool()


def is_odd(one):
    """Whether a field that is known is among the unknown ones, or a number is beyond its field."""
    known = {field.number for field in one.DESCRIPTOR.fields}
    for unknown in unknown_fields.UnknownFieldSet(one):
        if unknown.field_number in known:
            return True
    for field, value in one.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            values = list(value.values()) if inner else []
        elif field.is_repeated:
            values = list(value)
        else:
            values = [value]
        if any(is_odd(v) for v in values):
            return True
    return False


def in_time(t):
    return 0 <= t.nanos < 10**9 and -(2**63) <= t.seconds * 10**6 + t.nanos // 1000 < 2**63


def in_duration(t):
    signs = t.seconds * t.nanos >= 0 and abs(t.nanos) < 10**9
    return signs and abs(t.seconds) < 2**63 // 10**6


IS_TIME = {"google.protobuf.Timestamp": in_time, "google.protobuf.Duration": in_duration}


def beyond(one):
    """Of a message that was read with wide types: whether the narrow ones do not hold its numbers."""
    narrow = pool.FindMessageTypeByName(one.DESCRIPTOR.full_name)
    limits = {5: (-(2**31), 2**31 - 1), 13: (0, 2**32 - 1), 17: (-(2**31), 2**31 - 1), 14: (-(2**31), 2**31 - 1)}
    for field, value in one.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type is not None:
            is_time = IS_TIME.get(field.message_type.full_name)
            if is_time and not all(is_time(v) for v in values):
                return True
            if field.message_type.GetOptions().map_entry:
                of = narrow.fields_by_name[field.name].message_type
                for k, v in value.items():
                    for part, number in (("key", k), ("value", v)):
                        low, high = limits.get(of.fields_by_name[part].type, (None, None))
                        if low is not None and not low <= number <= high:
                            return True
                    if isinstance(v, message.Message) and beyond(v):
                        return True
            elif any(beyond(v) for v in values):
                return True
        else:
            low, high = limits.get(narrow.fields_by_name[field.name].type, (None, None))
            if low is not None and any(not low <= v <= high for v in values):
                return True
    return False


def varint(one, at):
    value = shift = 0
    while True:
        byte = one[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(one):
    """The fields of a message as they are written."""
    at, found = 0, []
    while at < len(one):
        begin = at
        tag, at = varint(one, at)
        kind = tag & 7
        if kind == 0:
            _, at = varint(one, at)
        elif kind == 2:
            length, at = varint(one, at)
            at += length
        else:
            at += {1: 8, 5: 4}[kind]
        found.append(one[begin:at])
    return found


rng = random.Random(20261123)
seeds = [encoded[name] for name in ["full", "bare", "invoiced", "paid"]]
seeds += [
    Order(i32=5, name="n", home=dict(street="a", zip="z", floors=[1])).SerializeToString(deterministic=True),
    Order(numbers=[1, 2, 3], items=[dict(sku="x", count=1)], card="c").SerializeToString(deterministic=True),
    Order(counts={"one": 3, "two": 4}, maybe=1, wi64=dict(value=8)).SerializeToString(deterministic=True),
]
# What is within `more` is not read in Rust, and so may be anything there.
every = [field for one in seeds for field in fields(one) if varint(field, 0)[0] >> 3 != Order.MORE_FIELD_NUMBER]
# All others say only in what they differ from the first, the empty one.
empty = plain(Order())
refused, spoilt = 0, [{"message": "", "is": empty, "odd": False}]
while len(spoilt) < 900:
    # Fields of several messages in any order are a message, merged.
    parts = [rng.choice(every) for _ in range(rng.randrange(1, 14))]
    if rng.randrange(4):
        at = rng.randrange(len(parts))
        one = bytearray(parts[at])
        kind = rng.randrange(5)
        place = rng.randrange(len(one))
        if kind == 0:
            del one[place:]
        elif kind == 1:
            one[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            one.insert(place, rng.randrange(256))
        elif kind == 3:
            del one[place]
        else:
            one[0:2] = bytes([rng.randrange(256), rng.randrange(4)])
        parts[at] = bytes(one)
    one = b"".join(parts)
    try:
        parsed = Order.FromString(one)
    except message.DecodeError:
        # Most of what is spoilt: a few are enough.
        refused += 1
        if refused % 4 == 0:
            spoilt.append({"message": one.hex(), "is": None})
        continue
    try:
        odd = is_odd(parsed) or beyond(Loose.FromString(one))
    except message.DecodeError:
        odd = True
    differs = {name: value for name, value in plain(parsed).items() if value != empty[name]}
    spoilt.append({"message": one.hex(), "is": differs, "odd": odd})

with open("protobuf_mutated.json", "w", encoding="utf-8") as out:
    out.write("[\n" + ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in spoilt) + "\n]\n")
print(len(spoilt), "of which refused", sum(one["is"] is None for one in spoilt), "and odd", sum(bool(one.get("odd")) for one in spoilt))
