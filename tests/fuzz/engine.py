"""Fuzz one target, guided by the coverage of `bridge`: `python -m tests.fuzz.engine TARGET [option of libFuzzer]...`.

A separate process, since libFuzzer ends the process that it runs in.
"""

import shlex
import sys

import atheris

from tests.fuzz.targets import TARGETS


def main() -> None:
    (target,) = [target for target in TARGETS if target.name == sys.argv[1]]
    with atheris.instrument_imports(include=["bridge"]):
        check = target.check()
    # libFuzzer starts itself again, by a shell, where it judges inputs that may end the process.
    atheris.Setup([shlex.join([sys.executable, "-m", "tests.fuzz.engine", target.name]), *sys.argv[2:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
