"""Write a file atomically; read the small files of a directory of secrets."""

import os
import stat
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file atomically: a temporary one beside it, with a dot in front of its name, fsync, rename.

    What root writes belongs to the owner of the directory, as whom the bridge runs. After an `OSError` the former file
    is untouched.
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
    """Return the names of its files in their order; dot files are those of editors and of Kubernetes (`..data`)."""
    return sorted(each.name for each in directory.iterdir() if not each.name.startswith(".") and not each.is_dir())


def read_secret(path: Path, most: int) -> tuple[bytes, int]:
    """Return at most so many bytes of a regular file, through symbolic links, and its mode; `OSError` for any other."""
    # Opening a pipe would wait for a writer, and with it all later readings.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError
        return file.read(most), mode
