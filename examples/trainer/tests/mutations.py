"""Ways to damage a data file: by chance, or as somebody would who means harm."""

import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np

from examples.trainer.tests.data_files import FORMATS, written

Files = dict[str, bytes]  # path → content
Mutation = Callable[[np.random.Generator, bytes], bytes]

EXTREME = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
HEADER = 160  # bytes at either end within which the formats have their numbers
BOMB = bytes(30_000_000)


def flip_a_bit(rng: np.random.Generator, content: bytes) -> bytes:
    at = rng.integers(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.integers(8)]) + content[at + 1 :]


def scatter_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(len(content), size=rng.integers(2, 20)):
        changed[at] = rng.integers(256)
    return bytes(changed)


def truncate(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: rng.integers(len(content))]


def insert(rng: np.random.Generator, content: bytes) -> bytes:
    at = rng.integers(len(content) + 1)
    return content[:at] + rng.bytes(int(rng.integers(1, 100))) + content[at:]


def delete(rng: np.random.Generator, content: bytes) -> bytes:
    at = rng.integers(len(content))
    return content[:at] + content[at + rng.integers(1, 100) :]


def repeat(rng: np.random.Generator, content: bytes) -> bytes:
    return content * rng.integers(2, 4)


def edit_a_number(rng: np.random.Generator, content: bytes) -> bytes:
    """Of one to eight bytes, at the beginning or near it, or near the end."""
    size = int(rng.choice([1, 2, 4, 8]))
    number = int(rng.choice(np.array(EXTREME, object))) % 256**size
    last = max(1, len(content) - size)
    at = int(rng.integers(min(rng.choice([1, 16, HEADER]), last)))
    at = at if rng.integers(4) else last - 1 - at
    return content[:at] + number.to_bytes(size, str(rng.choice(["big", "little"]))) + content[at + size :]  # pyright: ignore


def edit_digits(rng: np.random.Generator, content: bytes) -> bytes:
    """Of a number that is written out, as in NumPy's header, which keeps its length if there is room."""
    found = list(re.finditer(rb"\d+", content[:HEADER]))
    if not found:
        return edit_a_number(rng, content)
    first, last = found[rng.integers(len(found))].span()
    digits = str(int(rng.choice(np.array([*EXTREME, 10**30], object)))).encode()
    padding = content[last:HEADER].count(b" ") >= len(digits) - (last - first) and rng.integers(2)
    rest = (
        content[last:HEADER].replace(b" " * (len(digits) - (last - first)), b"", 1) if padding else content[last:HEADER]
    )
    return content[:first] + digits + rest + content[HEADER:]


def explode(rng: np.random.Generator, content: bytes) -> bytes:
    """Thirty million zeros behind the right beginning, or behind all of it."""
    return content[: rng.choice([16, HEADER, len(content)])] + BOMB


OUTSIDE: tuple[Mutation, ...] = (
    *(flip_a_bit, scatter_bytes, truncate, insert, delete, repeat),
    *(edit_a_number, edit_a_number, edit_digits),
)
INSIDE: tuple[Mutation, ...] = (*OUTSIDE, explode)


def inside_gzip(mutation: Mutation, rng: np.random.Generator, content: bytes) -> bytes:
    return gzip.compress(mutation(rng, gzip.decompress(content)), 1)


def inside_npz(mutation: Mutation, rng: np.random.Generator, content: bytes) -> bytes:
    """One member is changed, and has its right checksum."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    chosen = rng.integers(len(members))

    def write(file: BytesIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for number, (member, text) in enumerate(members):
                archive.writestr(
                    member.filename, mutation(rng, text) if number == chosen else text, zipfile.ZIP_DEFLATED
                )

    return written(write)


def inside_png(mutation: Mutation, rng: np.random.Generator, content: bytes) -> bytes:
    """One chunk is changed, its pixels as they are before they are compressed, and has its right checksum."""
    chunks, at = [], 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen, result = rng.integers(len(chunks) - 1), content[:8]  # the last is empty
    for number, (name, text) in enumerate(chunks):
        if number == chosen:
            text = zlib.compress(mutation(rng, zlib.decompress(text)), 1) if name == b"IDAT" else mutation(rng, text)
        result += struct.pack(">I", len(text)) + name + text + struct.pack(">I", zlib.crc32(name + text))
    return result


INNER = {".gz": inside_gzip, ".npz": inside_npz, ".png": inside_png}


def swap_two(rng: np.random.Generator, files: Files) -> Files:
    """Two of the files have each other's content; where there is one only, it is not there."""
    if len(files) == 1:
        return {}
    one, other = (sorted(files)[number] for number in rng.choice(len(files), 2, replace=False))
    return files | {one: files[other], other: files[one]}


def take_from_elsewhere(rng: np.random.Generator, files: Files) -> Files:
    """A file has the content of another format's."""
    others = FORMATS[sorted(FORMATS)[rng.integers(len(FORMATS))]].files()
    return files | {choice(rng, files): others[choice(rng, others)]}


def lose(rng: np.random.Generator, files: Files) -> Files:
    lost = choice(rng, files)
    return {name: content for name, content in files.items() if name != lost}


def choice(rng: np.random.Generator, files: Files) -> str:
    return sorted(files)[rng.integers(len(files))]


def mutated(rng: np.random.Generator, files: Files) -> tuple[str, Files]:
    """The files with one of them changed, and how."""
    kind = rng.random()
    if kind < 0.15:
        mutation = (swap_two, take_from_elsewhere, lose)[rng.integers(3)]
        return mutation.__name__, mutation(rng, files)
    name = choice(rng, files)
    wrap = next((wrap for end, wrap in INNER.items() if name.endswith(end)), None)
    if wrap and kind < 0.6:
        mutation = INSIDE[rng.integers(len(INSIDE))]
        return f"{mutation.__name__}, {wrap.__name__}", files | {name: wrap(mutation, rng, files[name])}
    mutation = OUTSIDE[rng.integers(len(OUTSIDE))]
    return mutation.__name__, files | {name: mutation(rng, files[name])}
