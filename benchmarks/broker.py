"""A Kafka of the benchmark's own: one node, on loopback, on the disk of the facts, gone afterwards; and what fills topics.

Messages are written by `writer messages` (`writer/src/messages.rs`): JSON of 200 bytes, in batches compressed with LZ4.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import measure

TOOL = Path(__file__).parent.parent / "tools" / "kafka.sh"
PARTITIONS = 4

# As in the tests' broker, with more memory, and the compiler that a broker has in production.
JAVA = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-Dlog4j2.level=WARN")
# What a broker is given besides `tools/kafka.properties`.
PROPERTIES = """
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
log.cleaner.enable=false
"""


class Broker:
    """A running broker."""

    def __init__(self, address: str, writer: Path):
        self.address = address
        self.writer = writer

    def url(self, topic: str) -> str:
        """What a source's `tail` is."""
        return f"kafka://{self.address}/{topic}"

    def command(self, topic: str, count: int, **flags: int) -> list[str]:
        """What writes so many messages into a topic, with flags of `writer messages`; `create=True` makes it first."""
        command = [str(self.writer), "messages", topic, "--brokers", self.address]
        command += ["--partitions", str(PARTITIONS), "--count", str(count)]
        for name, value in ((name.replace("_", "-"), value) for name, value in flags.items()):
            command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return command

    def create(self, topic: str, **flags: bool) -> None:
        measure.run(self.command(topic, 0, create=True, **flags))

    def arrivals(self, topic: str) -> list[tuple[float, dict]]:
        """What the topic has: when the broker took each message, and the message."""
        _, said = measure.run([str(self.writer), "arrivals", topic, "--brokers", self.address])
        lines = (line.split(" ", 1) for line in said.splitlines())
        return [(int(at) / 1e3, json.loads(payload)) for at, payload in lines]

    def fill(self, topic: str, count: int, **flags: int) -> str:
        """Writes messages as fast as can be, and says how fast that was."""
        took, said = measure.run(self.command(topic, count, **flags))
        told = json.loads(said)
        rate = told["messages"] / told["seconds"]
        said = f"{count:,} messages of {told['bytes'] / told['messages']:.0f} bytes in {PARTITIONS} partitions"
        print(f"  {said}, written at {rate:,.0f} a second ({took.cpu / count * 1e6:.2f} µs of CPU each)", flush=True)
        return said


@contextlib.contextmanager
def broker(work: Path, writer: Path) -> Iterator[Broker]:
    """Starts Kafka over a folder in `work`, and ends it."""
    jars = subprocess.run([str(TOOL)], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    folder = work / "kafka"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    port, controller = free_ports(2)
    properties = folder / "server.properties"
    common = TOOL.with_suffix(".properties").read_text()
    properties.write_text(common + PROPERTIES.format(port=port, controller=controller, data=folder / "data"))
    java = ["java", *JAVA, f"-Djava.io.tmpdir={folder / 'tmp'}", "-cp", f"{jars}/*"]
    with open(folder / "log", "w") as log:
        format_it = ["kafka.tools.StorageTool", "format", "--cluster-id", "d2F0ZXJzaGVkLWJlbmNoIQ", "--config"]
        subprocess.run([*java, *format_it, str(properties)], stdout=log, stderr=log, check=True)
        running = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log)
    try:
        wait(port, running, folder / "log")
        yield Broker(f"127.0.0.1:{port}", writer)
    finally:
        running.kill()  # nothing of it is wanted any more
        running.wait()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait(port: int, running: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if running.poll() is not None:
            break
        time.sleep(0.1)
    raise measure.Failed(f"Kafka does not answer: {log.read_text()[-2000:]}")
