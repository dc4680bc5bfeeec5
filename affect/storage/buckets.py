"""Buckets: connection options, and errors of the client library as messages that say what to change."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OPTIONS: dict[str, Any] = {
    "config_kwargs": {
        # 5xx, throttling and resets are retried with back-off and jitter; denied access is not
        "retries": {"mode": "standard", "max_attempts": 8},
        "connect_timeout": 5,
        "read_timeout": 60,
        "max_pool_connections": 64,
    }
}
"""Options of an ``s3://`` file system. Endpoint, region and credentials come from boto's standard chain."""
CHECK_OPTIONS = {"config_kwargs": OPTIONS["config_kwargs"] | {"retries": {"mode": "standard", "max_attempts": 2}}}
"""Options for checks before a job starts: fewer retries, so that a mistyped endpoint is reported early."""


@contextmanager
def explain_errors(uri: str) -> Iterator[None]:
    """Turns errors of a bucket's client into ``OSError`` with a message that says what to change.

    Errors of local paths and of missing objects are not changed.

    Args:
        uri: path or URI for the message.

    Raises:
        FileNotFoundError: there is no such bucket, or no such object.
        PermissionError: access is denied, or the credentials have expired.
        OSError: there are no credentials, the bucket cannot be reached, or it is in another region.
    """
    if "://" not in uri:
        yield
        return
    try:
        yield
    except FileNotFoundError as error:
        if error_code(error) == "NoSuchBucket":
            raise FileNotFoundError(f"{uri}: there is no such bucket") from error
        raise
    except PermissionError as error:
        denied = f"access is denied ({' '.join(str(error).split())})"
        raise PermissionError(f"{uri}: {denied}; the key, its secret or their rights do not fit") from error
    except OSError as error:
        if error_code(error) == "400":  # answer to HEAD, which has no body with an error code
            advice = "credentials that have expired, or a bucket in another region"
            raise PermissionError(f"{uri}: access is denied ({' '.join(str(error).split())}: {advice})") from error
        if error_code(error) not in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
            raise
        raise OSError(f"{uri}: the bucket is in another region ({error}); set AWS_DEFAULT_REGION") from error
    except _client_errors() as error:
        missing = "credential" in str(error).lower()
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"
        raise OSError(f"{uri}: {advice if missing else 'cannot be reached'} ({error})") from error


def error_code(error: OSError) -> str:
    """Error code in a bucket's answer, e.g. ``NoSuchBucket``; empty if there is none."""
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")


def _client_errors() -> tuple[type[Exception], ...]:
    """Error types of the client library; none if it was not imported, because no bucket was used."""
    found = sys.modules.get("botocore.exceptions")
    return (found.BotoCoreError,) if found else ()
