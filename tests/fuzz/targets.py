"""The fuzz targets and their corpus."""

import base64
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, cast

CORPUS = Path(__file__).parent / "corpus"


class Target(NamedTuple):
    """A property of any bytes.

    Its module has the function that raises if the property fails, and `WORDS`, strings for the fuzzer's dictionary.
    `share` is its part of all executions; slow targets get fewer.
    """

    name: str
    module: str
    function: str
    share: int
    max_bytes: int

    def check(self) -> Callable[[bytes], None]:
        return cast("Callable[[bytes], None]", getattr(self._module(), self.function))

    def words(self) -> Sequence[bytes]:
        return cast("Sequence[bytes]", self._module().WORDS)

    @property
    def corpus(self) -> Path:
        return CORPUS / f"{self.name}.txt"

    def _module(self) -> ModuleType:
        return import_module(f"tests.fuzz.{self.module}")


# A strict JSON body of 2 KiB holds every kind of trouble; choices are used up by some hundred bytes.
TARGETS = (
    Target("strict_json", "strict_json", "check", 32, 2048),
    Target("fast_path", "fast_paths", "check", 18, 400),
    Target("codec", "codec", "check", 18, 1024),
    Target("signatures", "signatures", "check", 8, 400),
    Target("schemes", "schemes", "check", 6, 400),
    Target("mapping", "mapping", "check", 6, 200),
    Target("batches", "batches", "check", 10, 260),
)


def read_corpus(path: Path) -> list[bytes]:
    """Return the inputs of a file that has one a line, in base64."""
    return [base64.b64decode(line, validate=True) for line in path.read_bytes().splitlines()] if path.exists() else []


def write_corpus(path: Path, inputs: Iterable[bytes]) -> None:
    """Write each input once, the short ones first, so that a change of the file can be read."""
    lines = sorted({base64.b64encode(each) for each in inputs}, key=lambda line: (len(line), line))
    path.write_bytes(b"".join(line + b"\n" for line in lines))
