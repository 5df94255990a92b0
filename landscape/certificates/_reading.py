"""Certificates out of files, torch-free."""

from __future__ import annotations

from pathlib import Path

from landscape._errors import FileError
from landscape.certificates._certificate import Certificate
from landscape.certificates._format import unpack


def read(path: str | Path) -> Certificate:
    """Read a certificate, without checking what it claims (`verify` does), and without torch.

    Args:
        path: The file.

    Returns:
        The certificate as claimed.

    Raises:
        FileError: There is no such file, or it is damaged, cut short, or no certificate.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    return from_bytes(content, str(path))


def from_bytes(content: bytes, name: str = "the certificate") -> Certificate:
    """Read a certificate from the bytes of its file.

    Args:
        content: The bytes.
        name: What to call it in an error.

    Returns:
        The certificate as claimed; nothing of the claim has been checked.
    """
    fields, payload = unpack(content, name)
    return Certificate(payload=payload, **fields)
