"""Make consumers of the tests known to `drx-consumer` as an installed package would: by entry points on the path."""

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUP = "drx_bridge.consumers"


def install(directory: Path, consumers: Mapping[str, str]) -> dict[str, str]:
    """Create a package of consumers (name to `module:object`); return the environment to find it."""
    home = directory / "drx_test_consumers-0.dist-info"
    home.mkdir(parents=True)
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: drx-test-consumers\nVersion: 0\n")
    lines = [f"{name} = {where}" for name, where in consumers.items()]
    (home / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(directory), str(ROOT), os.environ.get("PYTHONPATH", "")]))}
