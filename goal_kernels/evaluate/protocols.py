"""The field's evaluation protocols: how many images are ranked together, over how many folds."""

from __future__ import annotations

from dataclasses import dataclass

CAPTIONS_PER_IMAGE = 5  # of Flickr30K and COCO


@dataclass(frozen=True)
class Protocol:
    """One way to evaluate a set.

    Attributes:
        name: on the command line.
        folds: of the images; every metric is averaged over them.
        images: of the published test set; None where there is no such thing.
        meaning: for people.
    """

    name: str
    folds: int
    images: int | None
    meaning: str


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("plain", 1, None, "all images and captions at once"),
        Protocol("f30k", 1, 1000, "Flickr30K test: 1,000 images and 5,000 captions at once"),
        Protocol("coco-1k", 5, 5000, "COCO test: mean of five folds of 1,000 images"),
        Protocol("coco-5k", 1, 5000, "COCO test: 5,000 images and 25,000 captions at once"),
    )
}
ALL = "all"


def choose_protocols(name: str, folds: int | None, images: int) -> list[Protocol]:
    """The protocols to run on a set of `images` images.

    "all" takes those whose published test set has this size; if there is none, everything at once
    and, where five divides the images, five folds.

    Args: name: of PROTOCOLS, or "all". folds: replaces the folds of "plain".
    Raises: ValueError when the images do not divide into the folds.
    """
    if name == ALL:
        fitting = [protocol for protocol in PROTOCOLS.values() if protocol.images == images]
        names = ["plain"] if images % 5 else ["plain", "coco-1k"]
        return fitting or [PROTOCOLS[name] for name in names]
    protocol = PROTOCOLS[name]
    if folds is not None:
        if name != "plain":
            raise ValueError(f"--folds: {name} has {protocol.folds}; use it with --protocol plain")
        protocol = Protocol(f"{folds} folds", folds, None, f"mean of {folds} folds of the images")
    if protocol.folds < 1 or images % protocol.folds:
        raise ValueError(
            f"--protocol {name}: {images:,} images do not divide into {protocol.folds} equal "
            "folds; use --protocol plain, or --folds with a divisor"
        )
    return [protocol]


def protocol_notes(protocol: Protocol, images: int, texts: int) -> list[str]:
    """What keeps the figures from comparing with published ones; a sentence each."""
    if protocol.images is None:
        return []
    expected = (protocol.images, CAPTIONS_PER_IMAGE * protocol.images)
    if (images, texts) == expected:
        return []
    return [
        f"{protocol.name} is published on {expected[0]:,} images and {expected[1]:,} captions; "
        f"this set has {images:,} and {texts:,}, so these figures do not compare with those"
    ]
