import sys
from collections.abc import Iterator

import pytest

from tests.kubernetes.site import Kubernetes, Site, open_kubernetes, open_site

# Only if named, by `make cluster`: it takes a cluster.
collect_ignore_glob = [] if any("tests/kubernetes" in each for each in sys.argv) else ["test_*"]


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Kubernetes]:
    try:
        with open_kubernetes() as found:
            yield found
    except SystemExit as exc:  # what it lacks, once and not for each test
        pytest.exit(str(exc), returncode=1)


@pytest.fixture(scope="session")
def site(kubernetes: Kubernetes) -> Iterator[Site]:
    with open_site(kubernetes) as found:
        yield found
