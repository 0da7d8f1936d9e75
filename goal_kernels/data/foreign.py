"""What a file is when it is not what its name says: pointers, web pages, archives, other text."""

from __future__ import annotations

# How it begins, what it is, what to do.
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer in place of the file; `git lfs pull` fetches the file itself",
    ),
    (b"\xff\xfe\0\0", "UTF-32 text; convert it, for instance with `iconv -f utf-32 -t utf-8`"),
    (b"\x1f\x8b", "a gzip archive; unpack it with gunzip"),
    (b"PK\x03\x04", "a zip archive, an Excel workbook for instance; unpack or export it"),
    (b"BZh", "a bzip2 archive; unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it with unzstd"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x93NUMPY", "a NumPy array; give it a name that ends in .npy"),
    (b"\x89HDF", "an HDF5 file; save its arrays with numpy.save"),
    (b"PAR1", "a Parquet file; export it as CSV"),
    (b"%PDF", "a PDF document; give the data itself"),
    *(
        (
            bytes((0x80, protocol)),
            "a pickle, which could run any code and is not opened; save the data alone, as text, "
            "JSON or numpy.save of numbers",
        )
        for protocol in range(2, 6)
    ),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
_UTF_16 = "UTF-16 text; convert it, for instance with `iconv -f utf-16 -t utf-8`"
_UTF_8_MARK = b"\xef\xbb\xbf"


def mistaken_for(head: bytes) -> str | None:
    """What a file that begins with ``head`` is, and what to do; None when nothing is known of it.

    ``head`` is the first hundred bytes or more. The answer goes on from "found": "a gzip archive;
    unpack it with gunzip".
    """
    if not head:
        return "an empty file; copy or download it again"
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head.removeprefix(_UTF_8_MARK).lstrip().lower().startswith(_PAGES):
        return (
            "a web page, often a download that was refused; look at it in a browser and download "
            "the file again"
        )
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _every_other_is_zero(head[:64]):
        return _UTF_16
    return None


def _every_other_is_zero(head: bytes) -> bool:
    """Whether bytes at even or at odd places alone are zero, as in UTF-16 without a mark."""
    even, odd = head[0:-1:2], head[1::2]
    return len(odd) > 1 and any(not any(a) and all(b) for a, b in ((even, odd), (odd, even)))
