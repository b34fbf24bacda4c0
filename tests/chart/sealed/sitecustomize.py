"""Makes the file system read-only for one Python process, but for some folders: as a container's root is.

Python imports this by its name at the start (module `site`). An audit hook sees every file that Python opens, makes,
renames or removes, whichever library asks; it does not see what C code does behind Python's back.
"""

import errno
import os
import sys

WRITABLE = (*filter(None, os.environ.get("SEALED_BUT_FOR", "").split(os.pathsep)), "/dev", "/proc")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event to the positions of the paths that it changes (docs.python.org, "Audit events table").
_CHANGES = {
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (1,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.utime": (0,),
}


def _is_sealed(path: object) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False  # a descriptor: what it stands for was judged when it was opened
    real = os.path.realpath(os.fsdecode(path))
    return not any(real == place or real.startswith(f"{place}/") for place in WRITABLE)


def _judge(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and _is_sealed(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    elif event in _CHANGES:
        for position in _CHANGES[event]:
            if _is_sealed(arguments[position]):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), arguments[position])


sys.addaudithook(_judge)
