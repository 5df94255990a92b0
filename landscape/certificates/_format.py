"""The file of a certificate: magic, version, header, payload, checksum (docs/file-format.md). Torch-free."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from landscape._errors import FileError
from landscape.certificates._certificate import Certificate

# As in PNG: a transfer that changes line ends or strips the eighth bit is noticed at once.
MAGIC = b"\x89LSC\r\n\x1a\n"
VERSION = 1

_PREAMBLE = struct.Struct(">8sHI")  # magic, version, length of the header
_LENGTH = struct.Struct(">I")  # of the payload
_DIGEST = hashlib.sha256().digest_size
_TYPES: dict[str, tuple[type, ...]] = {
    "bound": (float, int),
    "wrong": (int,),
    "n": (int,),
    "delta": (float, int),
    "method": (str,),
    "choices": (dict,),
    "classes": (int, type(None)),
    "codec": (dict,),
    "architecture": (dict,),
    "data": (dict,),
    "loss": (str,),
    "versions": (dict,),
}


def to_bytes(certificate: Certificate) -> bytes:
    """Return the bytes of the file.

    Args:
        certificate: The certificate.

    Returns:
        The bytes, the same for equal certificates.
    """
    fields = {name: getattr(certificate, name) for name in _TYPES}
    header = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    body = _PREAMBLE.pack(MAGIC, VERSION, len(header)) + header + _LENGTH.pack(len(certificate.payload))
    body += certificate.payload
    return body + hashlib.sha256(body).digest()


def from_bytes(content: bytes, name: str = "the certificate") -> Certificate:
    """Read a certificate from the bytes of its file.

    Args:
        content: The bytes.
        name: What to call it in an error.

    Returns:
        The certificate as claimed; nothing of the claim has been checked.

    Raises:
        FileError: The bytes are no certificate, of a newer version, cut short, too many, or not those written.
    """
    if content[: len(MAGIC)] != MAGIC[: len(content)]:
        raise FileError(f"{name} is no certificate: it does not begin as one; expected a file of `landscape certify`")
    if len(content) < _PREAMBLE.size:
        _cut_short(name, len(content), _PREAMBLE.size + _LENGTH.size + _DIGEST)
    _, version, length = _PREAMBLE.unpack_from(content)
    if version != VERSION:
        raise FileError(
            f"{name} has version {version}, and this toolkit reads version {VERSION}; if it is not damaged, read it "
            "with the toolkit that wrote it"
        )
    start = _PREAMBLE.size + length
    if len(content) < start + _LENGTH.size:
        _cut_short(name, len(content), start + _LENGTH.size + _DIGEST)
    (size,) = _LENGTH.unpack_from(content, start)
    stop = start + _LENGTH.size + size
    if len(content) < stop + _DIGEST:
        _cut_short(name, len(content), stop + _DIGEST)
    if len(content) > stop + _DIGEST or hashlib.sha256(content[:stop]).digest() != content[stop:]:
        raise FileError(
            f"{name} is damaged: its checksum is not that of its content; get the file anew from where it comes from"
        )
    return _certificate(content[_PREAMBLE.size : start], content[start + _LENGTH.size : stop], name)


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


def write(certificate: Certificate, path: Path) -> None:
    """Write a certificate; a process that is killed meanwhile leaves no half of one.

    Args:
        certificate: The certificate.
        path: Where.

    Raises:
        FileError: It cannot be written there.
    """
    content = to_bytes(certificate)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _certificate(header: bytes, payload: bytes, name: str) -> Certificate:
    """Build it from what is, by the checksum, the header as somebody wrote it: which may still be nonsense."""
    try:
        text = header.decode()
        fields = json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_object)
        json.dumps(fields, ensure_ascii=False).encode()  # half of a surrogate pair is no character
    except ValueError as error:
        raise FileError(f"{name} has a header that is no JSON of a certificate: {str(error)[:200]}") from error
    except RecursionError:
        raise FileError(f"{name} has a header that is nested without end; no certificate has such a one") from None
    problem = _problem(fields)
    if problem:
        raise FileError(f"{name} has a header that is none of a certificate: {problem}")
    return Certificate(payload=payload, **{key: fields[key] for key in _TYPES})


def _problem(fields: Any) -> str:
    if not isinstance(fields, dict):
        return f"it is a {type(fields).__name__}, expected an object"
    for key, types in _TYPES.items():
        if key not in fields:
            return f"it has no {key!r}"
        if not isinstance(fields[key], types) or isinstance(fields[key], bool):
            return f"{key!r} is {_short(fields[key])}"
    if not fields["n"] >= 1:
        return f"n is {_short(fields['n'])}; a bound needs at least one example"
    if not 0 <= fields["wrong"] <= fields["n"]:
        return f"{_short(fields['wrong'])} of {_short(fields['n'])} examples are said to be wrong"
    if not 0 < fields["delta"] < 1:
        return f"delta is {_short(fields['delta'])}; it must lie strictly between 0 and 1"
    if not 0 <= fields["bound"] <= 1:
        return f"bound is {_short(fields['bound'])}; an error rate lies between 0 and 1"
    if not _describes(fields["architecture"], fields["data"], fields["n"]):
        return "its architecture or its data are not described as they should be"
    if not _counts(fields["choices"]):
        return f"choices are {_short(fields['choices'])}; expected whole numbers, 1 at least, by name"
    if fields["classes"] is not None and fields["classes"] < 1:
        return f"classes is {_short(fields['classes'])}"
    return ""


def _counts(choices: Mapping[str, Any]) -> bool:
    return all(isinstance(count, int) and not isinstance(count, bool) and count >= 1 for count in choices.values())


def _describes(architecture: Mapping[str, Any], data: Mapping[str, Any], n: int) -> bool:
    tensors, modules = architecture.get("tensors"), architecture.get("modules")
    rows = isinstance(tensors, list) and all(isinstance(row, list) and len(row) == 4 for row in tensors)
    names = isinstance(modules, list) and all(isinstance(name, str) for name in modules)
    settings = isinstance(architecture.get("settings"), dict) and isinstance(architecture.get("constructed"), str)
    repeated = data.get("repeated")
    counted = isinstance(repeated, int) and not isinstance(repeated, bool) and 0 <= repeated < n
    return rows and names and settings and isinstance(data.get("fingerprint"), str) and counted


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 50 else text[:50] + "..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{_short(text)} is beyond all numbers of 64 bits")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _cut_short(name: str, found: int, expected: int) -> NoReturn:
    raise FileError(
        f"{name} is cut short: it has {found} bytes, expected {expected} or more; get the file anew from where it "
        "comes from"
    )
