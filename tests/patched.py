"""Runs a program with other constants: `python -m tests.patched bridge.app:HEARTBEAT_S=0.2 bridge serve`."""

import runpy
import sys
from importlib import import_module


def patched(program: str, *arguments: str, **constants: float) -> list[str]:
    """Return the command line of a program, such as `bridge`, with constants of the module `<program>.app`."""
    given = [f"{program}.app:{name}={value}" for name, value in constants.items()]
    return [sys.executable, "-m", "tests.patched", *given, program, *arguments]


def main() -> None:
    while "=" in sys.argv[1]:
        where, _, value = sys.argv.pop(1).partition("=")
        module, name = where.split(":")
        assert hasattr(import_module(module), name)
        setattr(import_module(module), name, float(value))
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
