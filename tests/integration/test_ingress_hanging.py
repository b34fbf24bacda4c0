"""A stop works whatever hangs: pipes without a writer simulate a file system that does not respond."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridge.dev.ports import free_port
from bridge.spool.segment import segment_name
from tests.integration.ingress_process import IngressProcess
from tests.integration.service_process import until

# The shortest stop, so that what ends it is not the patience of a test.
HASTY = {"HTTP__DEADLINE_S": "0.5", "SHUTDOWN__GRACE_S": "8"}


@contextmanager
def started(directory: Path, **settings: str) -> Iterator[IngressProcess]:
    with IngressProcess(directory, f"127.0.0.1:{free_port()}", **(HASTY | settings)) as ingress:
        yield ingress


def hang_its_reader(pipe: Path) -> int:
    """Return once a process reads the pipe, which then waits for ever."""

    def opened() -> int:
        with suppress(OSError):  # nobody reads yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    return until(opened, what="a reader")


async def test_a_stop_is_obeyed_while_the_password_of_kafka_hangs_at_the_start(tmp_path: Path) -> None:
    pipe, user = tmp_path / "password", tmp_path / "user"
    os.mkfifo(pipe)
    user.write_text("bridge")
    sasl = {
        "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA__SASL_MECHANISM": "PLAIN",
        "KAFKA__SASL_USERNAME_FILE": str(user),
        "KAFKA__SASL_PASSWORD_FILE": str(pipe),
    }
    with started(tmp_path, **sasl) as ingress:
        writer = await asyncio.to_thread(hang_its_reader, pipe)

        assert await ingress.end(signal.SIGTERM) == 0
        os.close(writer)


async def test_a_stop_is_obeyed_while_the_spool_hangs_at_the_start(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    os.mkfifo(spool / segment_name(1))
    with started(tmp_path, SHUTDOWN__GRACE_S="30") as ingress:  # the spool's own bound is 5 s
        until(lambda: ingress.checks() == {"starting": "starting"}, what="a start that hangs")

        assert await ingress.end(signal.SIGTERM) == 0
