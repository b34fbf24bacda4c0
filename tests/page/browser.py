"""The programs that `make page` installs: Playwright below `build/page`, axe from npm. Chromium is the system's.

`python -m tests.page.browser` installs both; Chromium comes from Debian (`apt-get install chromium`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.node import node_packages

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / "build" / "page"
# Chromium as root has no sandbox; it opens only pages of the project here.
OPTIONS = ["--no-sandbox"] if os.geteuid() == 0 else []


def missing() -> str:
    if shutil.which("chromium") is None:
        return "no chromium on the PATH: apt-get install chromium"
    return "" if (PACKAGES / "playwright").is_dir() else "no Playwright: make page installs it"


def axe() -> str:
    _, home = node_packages(HERE, "page")
    return (home / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def chromium() -> Iterator[Any]:
    sys.path.append(str(PACKAGES))
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - where it was installed

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        yield browser
        browser.close()


if __name__ == "__main__":
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target", str(PACKAGES)]
    if not (PACKAGES / "playwright").is_dir():
        subprocess.run([*pip, "--require-hashes", "--requirement", str(HERE / "requirements.lock")], check=True)  # noqa: S603 - our own command line
    axe()
    if reason := missing():
        print(reason)  # noqa: T201 - for who runs it
