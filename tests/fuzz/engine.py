"""Fuzz one target, guided by the coverage of `bridge`: `python -m tests.fuzz.engine TARGET [option of libFuzzer]...`.

A process of its own, since libFuzzer ends the one that it runs in.
"""

from __future__ import annotations

import shlex
import sys

import atheris
import structlog

from tests.fuzz.targets import TARGETS


def main() -> None:
    # The spool says of every damage that it found some.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda _logger, _name, _said: ""])
    (target,) = [target for target in TARGETS if target.name == sys.argv[1]]
    with atheris.instrument_imports(include=["bridge"]):
        check = target.check()
    # libFuzzer starts itself again, by a shell, where it judges inputs that may end the process.
    itself = shlex.join([sys.executable, "-m", "tests.fuzz.engine", target.name])
    atheris.Setup([itself, *sys.argv[2:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
