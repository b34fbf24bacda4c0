from __future__ import annotations

import socket
import ssl

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bridge.errors import ConfigError, DecodeError, PermanentError, TransientError
from consumers.postgres.errors import NoLockError
from consumers.runtime.failure import Failure, classify
from consumers.runtime.settling import HandlerTimeoutError

REQUEST = aiohttp.RequestInfo(URL("http://there/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://there/"))


@pytest.mark.parametrize(
    ("exc", "failure"),
    [
        (TransientError("http_503", systemic=True), Failure("systemic", "http_503")),
        (TransientError("deadlock"), Failure("transient", "deadlock")),
        (NoLockError(), Failure("transient", "lock_timeout", blameless=True)),
        (TransientError("lock_timeout"), Failure("transient", "lock_timeout")),
        (HandlerTimeoutError(), Failure("systemic", "handler_timeout")),
        (TimeoutError(), Failure("systemic", "timeout")),
        (ConnectionRefusedError(), Failure("systemic", "connection_refused")),
        (ConnectionResetError(), Failure("systemic", "connection_lost")),
        (ssl.SSLError(), Failure("systemic", "tls")),
        (socket.gaierror("Mary Smith"), Failure("systemic", "os_error")),
        (aiohttp.ServerDisconnectedError(), Failure("systemic", "unreachable")),
        (aiohttp.ServerTimeoutError(), Failure("systemic", "timeout")),
        (aiohttp.ClientResponseError(REQUEST, (), status=503), Failure("systemic", "http_503")),
        (PermanentError("http_422"), Failure("permanent", "http_422")),
        (DecodeError("malformed"), Failure("poison", "malformed")),
        (ConfigError("Mary Smith"), Failure("bug", "config")),
        (ValueError("Mary Smith"), Failure("bug", "unexpected")),
    ],
)
def test_each_exception_has_one_class_and_a_code_without_a_value(exc: Exception, failure: Failure) -> None:
    assert classify(exc) == failure
