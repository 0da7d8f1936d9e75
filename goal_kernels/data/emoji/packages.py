"""The packages that the drawings and the words come in: pinned, fetched, checked, read."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from goal_kernels.data.files import parse_json, reading
from goal_kernels.data.progress import Progress, no_progress

CLIENT = "npm"
_SCOPE = "@iconify-json/"
_LONGEST = 1 << 26  # bytes read of one member
_LONGEST_REASON = 300  # characters


class Package(NamedTuple):
    """A package of the npm registry at one version, and the SHA-256 of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def draws(self) -> bool:
        """Whether it has drawings, else texts."""
        return self.name.startswith(_SCOPE)

    @property
    def spec(self) -> str:
        """What the client is asked for."""
        return f"{self.name}@{self.version}"

    @property
    def file(self) -> str:
        """What `npm pack` calls the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def _pinned(scope: str, table: str) -> tuple[Package, ...]:
    rows = map(str.split, table.splitlines())
    return tuple(Package(scope + name, version, digest) for name, version, digest in rows)


DRAWINGS = _pinned(
    _SCOPE,
    """\
noto 1.2.9 3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad
twemoji 1.2.5 19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7
fluent-emoji-flat 1.2.6 7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175
emojione 1.2.3 26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e
openmoji 1.2.29 03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5
""",
)
SHARE_ALIKE = DRAWINGS[4:]  # their licence asks derived works to have it too
NAMES, KEYWORDS = _pinned(
    "",
    """\
emojibase-data 17.0.0 d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a
emojilib 4.0.3 7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303
""",
)


def needed_packages(share_alike: bool = False) -> list[Package]:
    """What the dataset is made from: sets of drawings, Noto's first, then names, keywords."""
    return [*(p for p in DRAWINGS if share_alike or p not in SHARE_ALIKE), NAMES, KEYWORDS]


class PackageError(ValueError):
    """A package that could not be fetched, or is not the one that was pinned."""


class Archive(NamedTuple):
    """The bytes of a package's archive. Members are read from them; none is ever unpacked."""

    package: Package
    content: bytes

    def text(self, member: str) -> str:
        """A file of the package, as UTF-8 text. Raises: KeyError when it has no such file."""
        with tarfile.open(fileobj=io.BytesIO(self.content), mode="r:gz") as archive:
            stream = archive.extractfile(f"package/{member}")
            assert stream is not None  # a plain file: the checksum fixes what is in the archive
            return stream.read(_LONGEST).decode()

    def json(self, member: str) -> Any:
        """A JSON file of the package. Raises: ValueError, KeyError."""
        return parse_json(self.text(member), f"{self.package.file}: {member}")


def get_packages(
    packages: Sequence[Package], folder: Path | None = None, progress: Progress = no_progress
) -> dict[str, Archive]:
    """The archives of ``packages`` by name, each equal to its checksum.

    Args: folder: has the archives; None fetches them with the user's own package client, whose
        configuration says from where.
    Raises: PackageError, FileNotFoundError; both say what to do.
    """
    if folder is not None:
        missing = [package for package in packages if not (folder / package.file).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: expected {', '.join(package.file for package in missing)} there, found "
                f"no such files; `{pack_command(missing)}` in that folder makes them"
            )
        return {package.name: _load(package, folder) for package in packages}
    client = shutil.which(CLIENT)
    if client is None:
        raise FileNotFoundError(
            f"{CLIENT}: expected this package client, found none; install it, or give --packages "
            f"FOLDER with the archives that `{pack_command(packages)}` makes on another machine"
        )
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for done, package in enumerate(packages, 1):
            _pack(client, package, Path(temporary))
            found[package.name] = _load(package, Path(temporary))
            progress("packages", done, len(packages))
    return found


def pack_command(packages: Sequence[Package]) -> str:
    """What fetches the archives of ``packages`` into the current folder."""
    return " ".join([CLIENT, "pack", *(package.spec for package in packages)])


def _pack(client: str, package: Package, folder: Path) -> None:
    """Fetch the archive of a package into ``folder``."""
    done = subprocess.run(
        [client, "pack", "--ignore-scripts", package.spec],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())[:_LONGEST_REASON] or "without a message"
        raise PackageError(
            f"`{pack_command([package])}` failed, exit status {done.returncode}: {reason}; see to "
            f"the network and the registry that {CLIENT} is configured for, or give --packages "
            "FOLDER with the archive"
        )


def _load(package: Package, folder: Path) -> Archive:
    """The archive of a package in ``folder``, checked."""
    with reading(folder / package.file) as stream:
        content = stream.read()
    found = sha256(content).hexdigest()
    if found != package.sha256:
        raise PackageError(
            f"{package.file}: expected SHA-256 {package.sha256}, found {found}; this is not "
            f"{package.spec} as it was published, fetch it again with `{pack_command([package])}`"
        )
    return Archive(package, content)
