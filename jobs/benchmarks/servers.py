"""Servers on this machine for benchmarks and tests: S3 (SeaweedFS), a counting proxy that injects faults, Ray nodes."""

import http.client
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

KEY, SECRET, READER = "testkey", "testsecret123", "readerkey"
BUCKET = "affect"
LIMIT_S = 60.0
EXPIRED = 4001
"""Pseudo status of a fault: a 400 whose body says that the token has expired."""
SLOW_S = 0.5
"""Delay of a ``slow`` request."""
_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


@contextmanager
def ray_cluster(num_nodes: int = 0) -> Iterator["Cluster"]:
    """A Ray cluster on this machine: a head without CPUs, and nodes of one CPU each."""
    from ray.cluster_utils import Cluster  # imported late: machines for the models' benchmarks may lack Ray

    head = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(num_nodes):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def objects(uri: str) -> dict[str, bytes]:
    """Contents of all objects below a folder or prefix by name, without notes (``_``), temporary and hidden files."""
    from affect.storage import files

    names = [name for name, _, _ in files.walk(uri) if name[0] not in "._" and "._tmp." not in name]
    return {name: files.read(files.join(uri, name)) for name in names}


def environment(endpoint: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """Environment variables that make boto's standard credential chain use a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(endpoint: str) -> Any:  # noqa: ANN401 -- boto makes its classes at run time
    """A boto client with write access to a server."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )


@contextmanager
def s3_server(folder: Path, *buckets: str) -> Iterator[str]:
    """Runs an S3 server with empty buckets until the end of the block.

    Args:
        folder: for the server's files.
        buckets: names.

    Yields:
        The server's endpoint.

    Raises:
        RuntimeError: the server does not start.
    """
    rights = [("writer", KEY, ["Admin", "Read", "Write", "List", "Tagging"]), ("reader", READER, ["Read", "List"])]
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": SECRET}], "actions": actions}
        for name, key, actions in rights
    ]
    folder.mkdir(exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = dict(zip(("master.port", "volume.port", "filer.port", "s3.port"), _free_ports(), strict=True))
    flags = {"dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.config": folder / "s3.json", **ports}
    off = {"master.telemetry": "false", "admin.ui": "false", "webdav": "false"}
    zero = {"s3.port.iceberg": 0, "s3.port.lance": 0}
    command = [str(Path(sys.executable).with_name("weed")), "mini"]
    command += [f"-{name}={value}" for name, value in (flags | off | zero).items()]
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    with open(folder / "weed.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        for bucket in buckets:
            _create(endpoint, bucket, server, folder / "weed.log")
        yield endpoint
    finally:
        server.kill()
        server.wait()


def _create(endpoint: str, bucket: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Creates a bucket as soon as the server answers.

    Raises:
        RuntimeError: the server ended, or did not answer within LIMIT_S.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    boto = client(endpoint)
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            if bucket not in [found["Name"] for found in boto.list_buckets()["Buckets"]]:
                boto.create_bucket(Bucket=bucket)
            boto.put_object(Bucket=bucket, Key="ready", Body=b"")  # its volumes come a moment later
            boto.delete_object(Bucket=bucket, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the S3 server does not start: {error}; {log.read_text()[-2000:]}") from error
            time.sleep(0.2)


def _free_ports() -> Iterator[int]:
    """Four ports below 50,000: the server takes 10,000 above each for its internal calls."""
    found = 0
    for port in range(20_000 + secrets.randbelow(20_000), 50_000):  # other processes may search at the same time
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        yield port
        found += 1
        if found == 4:
            return


Fault = Callable[[str, str], int | str | None]
"""Fault of a request, from its method and path: an HTTP status that the proxy answers itself, ``reset`` (the connection
is cut in the middle of the body), ``slow`` (SLOW_S), or None."""


@dataclass
class Traffic:
    """Requests that go through a proxy.

    Args:
        fault: fault of every request from now on.
        calls: number of requests by method; a GET that lists is LIST.
        sent: bytes of the bodies that were sent to clients.
        requests: every request as method and path.
    """

    fault: Fault | None = None
    calls: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Sets all counts to zero."""
        with self.lock:
            self.calls.clear()
            self.requests.clear()
            self.sent = 0

    def count(self, method: str, path: str) -> None:
        """Counts a request."""
        with self.lock:
            self.calls["LIST" if method == "GET" and "list-type=" in path else method] += 1
            self.requests.append((method, path))


@contextmanager
def counting_proxy(endpoint: str, fault: Fault | None = None) -> Iterator[tuple[str, Traffic]]:
    """Runs a proxy in front of a server until the end of the block.

    Args:
        endpoint: the server's.
        fault: fault of every request; can be changed later in the traffic.

    Yields:
        The proxy's endpoint, and its traffic.
    """
    proxy = _Proxy(endpoint, Traffic(fault))
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", proxy.traffic
    finally:
        proxy.shutdown()
        proxy.server_close()


class Bucket(NamedTuple):
    """An S3 server with one bucket, behind a proxy.

    Args:
        uri: of the bucket.
        endpoint: of the proxy.
        direct: endpoint of the server itself.
        traffic: requests through the proxy.
    """

    uri: str
    endpoint: str
    direct: str
    traffic: Traffic

    def upload(self, folder: Path, prefix: str) -> str:
        """Copies a folder's files into the bucket, past the proxy; the copy's URI."""
        boto = client(self.direct)
        for path in (p for p in folder.rglob("*") if p.is_file()):
            boto.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}")
        return f"{self.uri}/{prefix}"


@contextmanager
def counted_bucket(folder: Path) -> Iterator[Bucket]:
    """Runs a server with one empty bucket behind a proxy until the end of the block.

    Args:
        folder: for the server's files.
    """
    with s3_server(folder, BUCKET) as direct, counting_proxy(direct) as (endpoint, traffic):
        yield Bucket(f"s3://{BUCKET}", endpoint, direct, traffic)


class _Proxy(ThreadingHTTPServer):
    """Passes requests on, with a connection to the server in each thread."""

    daemon_threads = True

    def __init__(self, endpoint: str, traffic: Traffic) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.traffic = traffic
        self._server, self._local = urlsplit(endpoint), threading.local()

    def connection(self) -> http.client.HTTPConnection:
        """This thread's connection to the server."""
        if not hasattr(self._local, "connection"):
            host, port = self._server.hostname or "", self._server.port
            self._local.connection = http.client.HTTPConnection(host, port, timeout=LIMIT_S)
        return self._local.connection

    def handle_error(self, *_: object) -> None:
        """Ignores clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def _pass(self) -> None:
        """Counts a request, then answers with its fault or with the server's response."""
        traffic = self.server.traffic
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        traffic.count(self.command, self.path)
        fault = traffic.fault(self.command, self.path) if traffic.fault else None
        if isinstance(fault, int):
            self._answer(400 if fault == EXPIRED else fault, {"Content-Type": "application/xml"}, _error(fault))
            return
        connection = self.server.connection()
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        content = response.read()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = response.getheader("Content-Length") or "0"
        if fault == "slow":
            time.sleep(SLOW_S)
        if fault == "reset" and len(content) > 1:
            headers["Content-Length"] = str(len(content))
            self._answer(response.status, headers, content[: len(content) // 2])
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._answer(response.status, headers, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        with self.server.traffic.lock:
            self.server.traffic.sent += len(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 -- http.server's names

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def _error(status: int) -> bytes:
    """The XML body of an S3 error."""
    region = "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'"
    known = {403: ("AccessDenied", "no"), 503: ("SlowDown", "later"), 400: region, EXPIRED: ("ExpiredToken", "too old")}
    code, message = known.get(status, ("Error", "bad"))
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
