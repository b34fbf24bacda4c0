"""The project's image, built by its Dockerfile, once on its base and once on one that has no shell."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import BuildError

BASE_VARIABLE = "DRX_TEST_IMAGE_BASE"
"""Names the base where the one of the Dockerfile cannot be pulled."""
ROOT = Path(__file__).parents[2]
_REPOSITORY = "drx-bridge-test"
# The last thing that its shell does is to remove itself.
_WITHOUT_SHELL = (
    "ARG BASE\nFROM ${BASE}\nRUN rm -f /bin/sh /bin/dash /bin/bash /usr/bin/sh /usr/bin/dash /usr/bin/bash\n"
)


@dataclass(frozen=True, slots=True)
class OwnImage:
    """What was built.

    Attributes:
        client: A `docker.DockerClient`.
        base: Image that both stages stand on.
        name: The image.
        without_shell: The same on a base that has no shell any more.
    """

    client: Any
    base: str
    name: str
    without_shell: str


@contextmanager
def built_own_image() -> Iterator[OwnImage]:
    """Build both; they are gone afterwards."""
    with closing(docker.from_env(timeout=600)) as client:
        named = os.environ.get(BASE_VARIABLE)
        base = named or _default_base()
        common = {"BASE": base}
        bare, name, without_shell = (f"{_REPOSITORY}:{tag}" for tag in ("bare", "own", "without-shell"))
        try:
            _build(client, name, path=str(ROOT), buildargs=common)
            _build(client, bare, fileobj=io.BytesIO(_WITHOUT_SHELL.encode()), buildargs={"BASE": base})
            _build(client, without_shell, path=str(ROOT), buildargs={**common, "RUNTIME": bare})
            yield OwnImage(client, base, name, without_shell)
        finally:
            for each in (without_shell, name, bare):
                for image in client.images.list(name=each):
                    client.images.remove(image.id, force=True)
            # The first stage has no name, and stands in the way of removing the base.
            client.images.prune(filters={"dangling": True, "label": "drx-bridge.stage=build"})


def _default_base() -> str:
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _build(client: Any, tag: str, **how: Any) -> None:
    try:
        client.images.build(tag=tag, rm=True, **how)
    except BuildError as exc:
        log = "".join(line.get("stream", "") for line in exc.build_log)
        msg = f"{tag} does not build:\n{log}"
        raise RuntimeError(msg) from exc
