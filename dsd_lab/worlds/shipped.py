"""Data files that come with the package: read whole and compared with the checksums beside them."""

import hashlib
from pathlib import Path


def checksum(content: bytes, name: str) -> str:
    """A file's line among checksums, as sha256sum writes it, without the line's end."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}"


def read_shipped(file: Path, checksums: Path, rebuild: str) -> bytes:
    """The bytes of `file`, whose line stands in the file `checksums`.

    rebuild: the command that makes the file anew, for the message. Raises ValueError for a file
    that is missing or does not match.
    """
    remedy = f"reinstall dsd_lab, or rebuild the file with `{rebuild}`"
    try:
        content = file.read_bytes()
        lines = checksums.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is missing or cannot be read; {remedy}") from error
    if checksum(content, file.name) not in lines:
        raise ValueError(f"{file} does not match its checksum; {remedy}")
    return content
