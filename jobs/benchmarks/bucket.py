"""A real S3 server on this machine (SeaweedFS), and a proxy before it that counts what is asked and can misbehave."""

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
from urllib.parse import urlsplit

KEY, SECRET, READER = "testkey", "testsecret123", "readerkey"
LIMIT_S = 60.0
EXPIRED = 4001
"""A 400 that says that a token has expired."""
_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


def environment(endpoint: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """What a process needs to know of a server, by boto's standard chain."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def served(folder: Path, *buckets: str) -> Iterator[str]:
    """Run a server with empty buckets until the end of the block.

    Args:
        folder: for its files.
        buckets: their names.

    Yields:
        Its endpoint.

    Raises:
        RuntimeError: it does not start.
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
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            if bucket not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"")  # its volumes come a moment later
            client.delete_object(Bucket=bucket, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the S3 server does not start: {error}; {log.read_text()[-2000:]}") from error
            time.sleep(0.2)


def _free_ports() -> Iterator[int]:
    """Ports below 50,000: the server takes 10,000 above each for its own calls."""
    found = 0
    for port in range(20_000 + secrets.randbelow(20_000), 50_000):  # others may look for some at the same time
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
"""What happens to a call (method, path): a status that is answered in the server's place, ``reset`` in mid-body,
``slow``, or nothing."""


@dataclass
class Traffic:
    """What goes through a proxy.

    Args:
        fault: what happens to calls from now on.
        calls: by method; a GET that lists is LIST.
        sent: bytes of bodies that the server sent.
        asked: every call as method and path.
    """

    fault: Fault | None = None
    calls: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Start at nothing."""
        with self.lock:
            self.calls.clear()
            self.asked.clear()
            self.sent = 0


@contextmanager
def counted(endpoint: str, fault: Fault | None = None) -> Iterator[tuple[str, Traffic]]:
    """Put a proxy before a server.

    Args:
        endpoint: the server's.
        fault: what happens to calls at first.

    Yields:
        The proxy's endpoint, and what goes through it.
    """
    traffic, server = Traffic(fault), urlsplit(endpoint)
    local = threading.local()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            lists = self.command == "GET" and "list-type=" in self.path
            with traffic.lock:
                traffic.calls["LIST" if lists else self.command] += 1
                traffic.asked.append((self.command, self.path))
            what = traffic.fault(self.command, self.path) if traffic.fault else None
            if isinstance(what, int):
                self._answer(400 if what == EXPIRED else what, {"Content-Type": "application/xml"}, _error(what))
                return
            if not hasattr(local, "server"):
                local.server = http.client.HTTPConnection(server.hostname or "", server.port, timeout=LIMIT_S)
            local.server.request(self.command, self.path, body, dict(self.headers))
            reply = local.server.getresponse()
            content = reply.read()
            headers = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP}
            if self.command == "HEAD":
                headers["Content-Length"] = reply.getheader("Content-Length") or "0"
            if what == "slow":
                time.sleep(0.5)
            if what == "reset" and len(content) > 1:
                headers["Content-Length"] = str(len(content))
                self._answer(reply.status, headers, content[: len(content) // 2])
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._answer(reply.status, headers, content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            with traffic.lock:
                traffic.sent += len(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 -- http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Proxy(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients that go away are none of its business."""

    proxy = Proxy(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", traffic
    finally:
        proxy.shutdown()
        proxy.server_close()


def _error(status: int) -> bytes:
    region = "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'"
    known = {403: ("AccessDenied", "no"), 503: ("SlowDown", "later"), 400: region, EXPIRED: ("ExpiredToken", "too old")}
    code, said = known.get(status, ("Error", "bad"))
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{said}</Message></Error>'.encode()
