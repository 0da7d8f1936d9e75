"""Where the files of the precomputed-feature layout lie, in either style of folders.

``{root}/{name}_precomp/`` with ``{root}/vocab/`` is the style of VSE++ and SCAN;
``{root}/{name}/precomp/`` the one of VSE-infinity, where ``id_mapping.json`` and the pictures stand
beside ``precomp/``.
"""

from __future__ import annotations

from pathlib import Path

FEATURES = "_ims.npy"
INDEX = "_image_of_caption.npy"
GROUPS = "_groups.txt"
VOCABULARY = "vocab.json"


def feature_folders(folder: Path) -> list[Path]:
    """The folders with feature files that ``folder`` stands for: itself, or some just below it."""
    if split_names(folder):
        return [folder]
    below = [folder / "precomp", *sorted(folder.glob("*_precomp")), *folder.glob("*/precomp")]
    return [path for path in below if split_names(path)]


def find_features(folder: Path, split: str | None = None) -> Path:
    """The one folder that holds the feature files, and ``split`` if one is named.

    Raises:
        FileNotFoundError: there is none; the message lists the splits that are present.
        ValueError: there are several.
    """
    found = feature_folders(folder)
    if len(found) > 1:
        raise ValueError(
            f"{folder}: expected one folder of precomputed features, found "
            f"{', '.join(str(path) for path in found)}; give the one you mean"
        )
    wanted = f"{split or '{split}'}{FEATURES}"
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected {wanted} there, in its precomp/ or in a *_precomp/ folder; "
            f"it has no *{FEATURES} at all"
        )
    present = split_names(found[0])
    if split is not None and split not in present:
        raise FileNotFoundError(f"{found[0]}: expected {wanted} there; it has the splits {present}")
    return found[0]


def split_names(folder: Path) -> list[str]:
    """The splits of which ``folder`` holds features, in alphabetical order."""
    return sorted(path.name.removesuffix(FEATURES) for path in folder.glob(f"*{FEATURES}"))


def vocabulary_files(folder: Path) -> list[Path]:
    """The vocabulary files that belong to a folder of features, the nearest first.

    They are looked for in the folder, beside it and in ``vocab/`` there, under the names of both
    styles: ``vocab.json`` and ``{name}_precomp_vocab.json``, with ``.pkl`` (of VSE++, never read)
    so that a caller can say why it is not used.
    """
    folder = folder.resolve()
    name = folder.parent.name if folder.name == "precomp" else folder.name.removesuffix("_precomp")
    places = [folder, folder / "vocab"]
    for above in (folder.parent, folder.parent.parent):
        places += [above / "vocab", above]
    stems = (f"{name}_precomp_vocab", f"{name}_vocab")
    names = [VOCABULARY, *(stem + end for end in (".json", ".pkl") for stem in stems)]
    # A plain vocab.json two levels up may belong to any dataset there.
    candidates = [
        place / file
        for place in places
        for file in names
        if file != VOCABULARY or place in (folder, folder.parent)
    ]
    return [path for path in candidates if path.is_file()]
