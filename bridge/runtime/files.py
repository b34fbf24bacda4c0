"""Write a file atomically; read the small files of a directory of secrets."""

import os
import stat
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file atomically: temporary file (with a dot before the name), fsync, rename.

    Files written as root are given to the directory's owner, the user the bridge runs as. After an `OSError` the former
    file is unchanged.
    """
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(handle, owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def file_names(directory: Path) -> list[str]:
    """Return the sorted names of its files, without dot files of editors and Kubernetes (`..data`)."""
    return sorted(each.name for each in directory.iterdir() if not each.name.startswith(".") and not each.is_dir())


def read_secret(path: Path, most: int) -> tuple[bytes, int]:
    """Return at most `most` bytes of a regular file, following symbolic links, and its mode; else `OSError`."""
    # Opening a pipe would wait for a writer, and block all later reads.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError
        return file.read(most), mode
