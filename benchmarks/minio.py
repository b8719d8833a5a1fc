"""A MinIO of the benchmark's own: on loopback, with random credentials, on the disk of the facts, gone afterwards.

    python minio.py download ENDPOINT BUCKET PREFIX THREADS

reads every object below a prefix and drops the bytes: what the server itself can give. Credentials are those of the
environment.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyarrow import fs

TOOL = Path(__file__).parent.parent / "tools" / "minio.sh"
BUCKET = "bench"


class Server:
    """A running server, and its environment for those who use it."""

    def __init__(self, endpoint: str, environment: dict[str, str]):
        self.endpoint = endpoint
        self.environment = environment

    def files(self) -> fs.S3FileSystem:
        return files(self.endpoint, self.environment)

    def upload(self, folder: Path, prefix: str) -> str:
        """Puts the files below a folder into the bucket; returns where, as a location."""
        sources = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        target = self.files()
        with ThreadPoolExecutor(4) as pool:
            put = lambda file: fs.copy_files(  # noqa: E731
                str(file), f"{BUCKET}/{prefix}/{file.relative_to(folder)}", None, target, use_threads=False
            )
            list(pool.map(put, sources))
        return f"s3://{BUCKET}/{prefix}"

    def copy_back(self, prefix: str, folder: Path) -> None:
        """Copies what is below a prefix into a local folder."""
        fs.copy_files(f"{BUCKET}/{prefix}", str(folder), self.files(), None)

    def remove(self, prefix: str) -> None:
        if self.files().get_file_info(f"{BUCKET}/{prefix}").type == fs.FileType.Directory:
            self.files().delete_dir(f"{BUCKET}/{prefix}")


@contextlib.contextmanager
def server(work: Path) -> Iterator[Server]:
    """Starts MinIO over a folder in `work`, and ends it."""
    binary = subprocess.run([str(TOOL)], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    folder = work / "minio"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / BUCKET).mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    key, secret = secrets.token_hex(8), secrets.token_hex(16)
    told = {"MINIO_ROOT_USER": key, "MINIO_ROOT_PASSWORD": secret, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
    command = [binary, "server", "--quiet", "--address", address, str(folder)]
    running = subprocess.Popen(
        command, env={**os.environ, **told, "MINIO_CI_CD": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait(f"http://{address}/minio/health/live", running)
        yield Server(
            f"http://{address}",
            {
                "AWS_ENDPOINT": f"http://{address}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": key,
                "AWS_SECRET_ACCESS_KEY": secret,
            },
        )
    finally:
        running.terminate()
        running.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait(health: str, running: subprocess.Popen) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(health) as answer:
            if answer.status == 200:
                return
        if running.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("MinIO does not answer")


def files(endpoint: str, environment: dict[str, str]) -> fs.S3FileSystem:
    scheme, _, address = endpoint.partition("://")
    return fs.S3FileSystem(
        endpoint_override=address,
        scheme=scheme,
        region="us-east-1",
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def download(endpoint: str, bucket: str, prefix: str, threads: str) -> None:
    store = files(endpoint, dict(os.environ))
    found = store.get_file_info(fs.FileSelector(f"{bucket}/{prefix}", recursive=True))

    def read(path: str) -> int:
        with store.open_input_file(path) as file:
            return len(file.read_buffer())

    with ThreadPoolExecutor(int(threads)) as pool:
        total = sum(pool.map(read, [f.path for f in found if f.type == fs.FileType.File]))
    print(total)


if __name__ == "__main__":
    assert sys.argv[1] == "download", __doc__
    download(*sys.argv[2:])
