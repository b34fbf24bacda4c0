"""Keep what no process of ours uses out of every start: import it first.

structlog imports rich, where it is installed, for tracebacks that are never printed: 0.1 s of CPU and 4 MiB.
"""

import sys

if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails, which structlog expects
    import structlog

    del sys.modules["rich"], structlog
