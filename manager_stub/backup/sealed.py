"""The file of a backup.

    vsfw backup 1                      the format
    {"schema": "0016", ...}            `Head`, in the clear: what may be asked before the passphrase
    frames                             length (4 bytes), AES-256-GCM of up to FRAME bytes of zstd
    SHA-256 of all that                told apart: a file that is spoilt, and a passphrase that is wrong

The key is made of passphrase and salt by Argon2id (RFC 9106, 4, the second recommended option). Nonces count
the frames, and the last says that it is; each frame vouches for the head. So nothing can be left out, put in
or exchanged by who has not the passphrase.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import zstandard
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manager_stub.clock import now_ms

FRAME: Final = 1024 * 1024
MIN_PASSPHRASE: Final = 12
"""Characters, as of a user's password."""
_MAGIC: Final = b"vsfw backup 1\n"
_MAX_HEAD: Final = 4096
_MAX_RECORD: Final = 256 * 1024 * 1024
_CHECKSUM: Final = hashlib.sha256().digest_size
_TAG: Final = 16


class Damaged(ValueError):
    """The file is no backup, or not the one that was written."""


class Head(msgspec.Struct, frozen=True):
    schema: str
    release: str
    made_ms: int
    authority: str
    """The hash that hosts know the certificate authority by."""
    rows: int
    salt: bytes


def head(schema: str, authority: str, rows: int) -> Head:
    return Head(schema, version("vsfwd"), now_ms(), authority, rows, secrets.token_bytes(16))


def write(file: Path, head: Head, passphrase: str, records: Iterator[bytes]) -> None:
    """Whole or not at all, for its owner alone. Raises ValueError, OSError."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise ValueError(f"the passphrase has less than {MIN_PASSPHRASE} characters")
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        with open(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as out:
            said = _MAGIC + msgspec.json.encode(head) + b"\n"
            out.write(said)
            cipher = _cipher(passphrase, head)
            for number, (last, plain) in enumerate(_frames(records)):
                frame = cipher.encrypt(_nonce(number, last), plain, said)
                out.write(len(frame).to_bytes(4) + frame)
            out.seek(0)
            out.write(hashlib.file_digest(out, "sha256").digest())
            out.flush()
            os.fsync(out.fileno())
        fresh.rename(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def check(file: Path) -> Head:
    """What it says of itself, if it is whole. Raises Damaged, OSError."""
    with file.open("rb") as opened:
        head = _read_head(file, opened)
        size = opened.seek(0, os.SEEK_END) - _CHECKSUM
        opened.seek(0)
        digest = hashlib.sha256()
        while size > 0 and (chunk := opened.read(min(size, FRAME))):
            digest.update(chunk)
            size -= len(chunk)
        if opened.read() != digest.digest():
            raise Damaged(f"{file}: cut off or changed since it was written: its checksum is another")
    return head


def records(file: Path, head: Head, passphrase: str) -> Iterator[bytes]:
    """Of a file that is whole. Raises ValueError where the passphrase is not that of the backup."""
    decompress = zstandard.ZstdDecompressor().decompressobj()
    waiting = b""
    for plain in _plain_frames(file, head, passphrase):
        waiting += decompress.decompress(plain)
        *whole, waiting = waiting.split(b"\n")
        yield from whole
        if len(waiting) > _MAX_RECORD:
            raise Damaged(f"{file}: a record is over the limit")
    if waiting:
        raise Damaged(f"{file}: its last record is cut off")


def _plain_frames(file: Path, head: Head, passphrase: str) -> Iterator[bytes]:
    cipher = _cipher(passphrase, head)
    with file.open("rb") as opened:
        _read_head(file, opened)
        end = os.fstat(opened.fileno()).st_size - _CHECKSUM
        said = _MAGIC + msgspec.json.encode(head) + b"\n"
        number = 0
        while opened.tell() < end:
            length = int.from_bytes(opened.read(4))
            if length > FRAME + _TAG:
                raise Damaged(f"{file}: a frame is over the limit")
            frame = opened.read(length)
            try:
                yield cipher.decrypt(_nonce(number, opened.tell() >= end), frame, said)
            except InvalidTag:
                if number:
                    raise Damaged(f"{file}: not what was written with this passphrase") from None
                raise ValueError(f"{file}: another passphrase than that of the backup") from None
            number += 1


def _frames(records: Iterator[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Whether it is the last, and what is in it."""
    compress, waiting = zstandard.ZstdCompressor().compressobj(), bytearray()
    for record in records:
        waiting += compress.compress(record + b"\n")
        while len(waiting) > FRAME:
            yield False, bytes(waiting[:FRAME])
            del waiting[:FRAME]
    waiting += compress.flush()
    while len(waiting) > FRAME:
        yield False, bytes(waiting[:FRAME])
        del waiting[:FRAME]
    yield True, bytes(waiting)


def _read_head(file: Path, opened: BinaryIO) -> Head:
    if opened.readline(len(_MAGIC)) != _MAGIC:
        raise Damaged(f"{file}: not a backup of vsfw-manager, or one of another format")
    try:
        return msgspec.json.decode(opened.readline(_MAX_HEAD), type=Head)
    except msgspec.MsgspecError as error:
        raise Damaged(f"{file}: its head cannot be read: {error}") from None


def _cipher(passphrase: str, head: Head) -> AESGCM:
    secret = passphrase.encode()
    return AESGCM(
        hash_secret_raw(
            secret, head.salt, time_cost=3, memory_cost=64 * 1024, parallelism=4, hash_len=32, type=Type.ID
        )
    )


def _nonce(number: int, last: bool) -> bytes:
    return bytes([last]) + number.to_bytes(11)
