"""Every kind of negatives: how far each backend is from literal loops, and the memory of a step.

    export PYTHONPATH=python_tests      the loops are the oracle of the tests
    python -m bench.negatives           both tables, into docs/mining.md; minutes on one core

Parity: indices and gradients of every kind, shape of batch, ids or none, dtype and backend against
`oracle.py`, which shares no code with the package. Memory: a step on 32,768 images with five
captions each, in a process of its own, beyond inputs and gradients. The figures are kept in
bench/results/<processor>/negatives.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import oracle
import torch
from cases import DTYPES, paired_batch
from test_negative_kinds import KINDS, near_positives, run
from torch import Tensor

import goal_kernels as gk
from bench import command_parser
from bench.machine import ROOT, device_name, keep_records, results_folder
from bench.memory import peak_cpu, run_apart
from bench.methods import Runnable
from bench.report import update_readme
from goal_kernels.negatives import named_negatives
from goal_kernels.terminal import markdown_table

PART = "negatives"
PAGE = ROOT / "docs" / "mining.md"
OBJECTIVES = ("hinge/constant", "nca/linear_ms", "circle/sigmoid_ms")
SHAPES = ((3, 2), (19, 8), (67, 24))
ALL_KINDS = {"hardest": (oracle.Kind(), {}), **KINDS}
BATCHES = ("pairs", "pairs, ids", "captions", "captions, ids")

IMAGES, CAPTIONS, WIDTH = 32_768, 5, 64
STEPS = (
    ("hinge/constant", "hardest"),
    ("nca/sigmoid_ms", "hardest"),
    ("hinge/constant", "semi_hard"),
    ("hinge/constant", "top:4"),
)
MIB = 2**20


def backends() -> dict[str, str]:
    """Those that are compared, and the device of each."""
    found = dict.fromkeys(("reference", "chunked", "cpu"), "cpu")
    if torch.cuda.is_available():
        found |= dict.fromkeys(set(gk.available_backends()) & {"triton", "cuda"}, "cuda")
    return found


class Batch(NamedTuple):
    """Embeddings [N, D] and [M, D], the image of each text [M] and ids of both sides, or None."""

    image: Tensor
    text: Tensor
    owner: Tensor | None
    ids: tuple[Tensor, Tensor] | None

    def options(self, device: str) -> dict[str, Any]:
        """As `goal_loss` takes them."""
        given: dict[str, Tensor] = {}
        if self.owner is not None:
            given["text_to_image"] = self.owner
        if self.ids is not None:
            given |= {"image_ids": self.ids[0], "text_ids": self.ids[1]}
        return {name: value.to(device) for name, value in given.items()}


def make_batch(form: str, shape: tuple[int, int], dtype: torch.dtype) -> Batch:
    """Some wrong texts score higher than the right ones; images share ids in threes."""
    if form.startswith("pairs"):
        image, text = paired_batch(*shape)
        text, owner = (text + 0.6 * text.roll(1, 0)) / 1.4, None
    else:
        image, text, owner = near_positives(*shape)
    of_texts = torch.arange(len(text)) if owner is None else owner
    ids = torch.arange(shape[0]) // 3, torch.where(of_texts < 0, -1, of_texts // 3)
    return Batch(image.to(dtype), text.to(dtype), owner, ids if "ids" in form else None)


class Parity(NamedTuple):
    """indices: how many were compared. wrong: how many differ, counts of what was skipped among
    them. error: largest of a gradient, over the largest gradient where that is above 1."""

    indices: int = 0
    wrong: int = 0
    error: float = 0.0


def compare(kind: str, batch: Batch, backend: str, objective: str, known: oracle.Outcome) -> Parity:
    """One call against the outcome of the loops."""
    device = backends()[backend]
    _, stats, *grads = run(
        *(batch.image.to(device), batch.text.to(device), objective),
        **{**ALL_KINDS[kind][1], **batch.options(device), "backend": backend},
    )
    of_images = known.hardest_text
    if batch.owner is not None:
        of_images = [-1 if i < 0 else of_images[i] for i in batch.owner.tolist()]
    expected = [*of_images, *known.hardest_image]
    found = [*stats.hardest_text.tolist(), *stats.hardest_image.tolist()]
    if stats.skipped_text is not None:
        expected += [*known.skipped_text, *known.skipped_image]
        found += [*stats.skipped_text.tolist(), *stats.skipped_image.tolist()]
    errors = []
    for grad, loop in zip(grads, (known.grad_image, known.grad_text), strict=True):
        truth = torch.from_numpy(loop)
        scale = max(1.0, truth.abs().max().item())
        errors.append((grad.cpu().double() - truth).abs().max().item() / scale)
    wrong = sum(a != b for a, b in zip(found, expected, strict=True))
    return Parity(len(expected), wrong, max(errors))


def parity(
    kind: str,
    form: str,
    dtype: torch.dtype,
    names: Sequence[str],
    shapes: Sequence[tuple[int, int]],
) -> dict[str, Parity]:
    """The worst of all shapes and objectives, by backend. The loops see the rounded rows."""
    worst = dict.fromkeys(names, Parity())
    for shape in shapes:
        batch = make_batch(form, shape, dtype)
        ids = (None, None) if batch.ids is None else [side.tolist() for side in batch.ids]
        for objective in OBJECTIVES:
            known = oracle.run(
                *(batch.image.double().numpy(), batch.text.double().numpy()),
                *objective.split("/"),
                image_ids=ids[0],
                text_ids=ids[1],
                text_to_image=None if batch.owner is None else batch.owner.tolist(),
                kind=ALL_KINDS[kind][0],
            )
            for name in names:
                one, so_far = compare(kind, batch, name, objective, known), worst[name]
                worst[name] = Parity(
                    so_far.indices + one.indices,
                    so_far.wrong + one.wrong,
                    max(so_far.error, one.error),
                )
    return worst


def parity_records(tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """One record for each kind and form of batch, with all dtypes and backends."""
    names = list(backends())
    for kind in ALL_KINDS:
        for form in BATCHES:
            tell(f"{kind}, {form}")
            by_dtype = {dtype: parity(kind, form, dtype, names, SHAPES) for dtype in DTYPES}
            yield {
                "kind": kind,
                "batch": form,
                "backends": {
                    name: {str(d)[6:]: by_dtype[d][name]._asdict() for d in DTYPES}
                    for name in names
                },
            }


class Step(Runnable):
    """A loss and its backward on images with several captions each, inputs made."""

    def __init__(self, objective: str, negatives: str, images: int, captions: int, width: int):
        generator = torch.Generator().manual_seed(0)
        rows = torch.nn.functional.normalize(torch.randn(images, width, generator=generator), dim=1)
        noise = torch.randn(images * captions, width, generator=generator)
        self.owner = torch.arange(images).repeat_interleave(captions)
        texts = torch.nn.functional.normalize(noise.mul_(width**-0.5).add_(rows[self.owner]), dim=1)
        self.image, self.text = rows.requires_grad_(), texts.requires_grad_()
        self.criterion = gk.GOALLoss(objective, negatives=named_negatives(negatives))

    def run(self) -> None:
        """What is measured."""
        self.criterion(self.image, self.text, text_to_image=self.owner).backward()


def measure(objective: str, negatives: str, images: int, captions: int, width: int) -> dict:
    """MiB of a first step beyond inputs and gradients, and its seconds of processor time."""
    Step(objective, negatives, 64, captions, width).run()
    step, start = Step(objective, negatives, images, captions, width), time.process_time()
    peak = peak_cpu(step)
    gradients = 4 * (step.image.numel() + step.text.numel())
    seconds = time.process_time() - start
    return {"extra_mib": max(0, peak - gradients) / MIB, "processor_seconds": seconds}


def measure_apart(case: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """`measure` in a process of its own. Raises: as `run_apart`."""
    printed = run_apart(["bench.negatives", "--case", json.dumps(case)], threads, timeout=None)
    return {**case, **json.loads(printed)}


def tables(record: Mapping[str, Any]) -> str:
    """The generated part of the page."""
    parity, memory = record["parity"], record["memory"]
    names = list(parity[0]["backends"])
    dtypes = ", ".join(next(iter(parity[0]["backends"].values())))
    rows = []
    for row in parity:
        cells = [row["kind"], str(row["batch"])]
        for name in names:
            found = row["backends"][name].values()
            wrong, indices = (sum(each[n] for each in found) for n in ("wrong", "indices"))
            cells.append(
                f"{wrong} of {indices:,}; " + ", ".join(f"{e['error']:.0e}" for e in found)
            )
        rows.append(cells)
    lines = [
        "Indices that differ from the loops, of those compared, and the largest error of a "
        f"gradient in {dtypes}:",
        "",
        markdown_table(["negatives", "batch", *names], rows, 2 + len(names)),
    ]
    images, captions, width = (memory[0][name] for name in ("images", "captions", "width"))
    sides, matrix = images * (1 + captions), images**2 * captions
    rows = [
        [
            row["objective"],
            row["negatives"],
            f"{row['extra_mib']:.1f}",
            f"{row['processor_seconds']:.0f}",
        ]
        for row in memory
    ]
    lines += [
        "",
        f"A step, forward and backward, on {images:,} images with {captions} captions each, D = "
        f"{width}, float32, {record['threads']} thread: memory beyond inputs and gradients "
        f"({4 * width * sides / MIB:,.0f} MiB each). One matrix of all similarities would take "
        f"{4 * matrix / MIB:,.0f} MiB.",
        "",
        markdown_table(["objective", "negatives", "memory, MiB", "processor time, s"], rows, 2),
        "",
        f"`{record['command']}`, {record['date']}, commit {record['commit']}, {record['device']} "
        f"({record['isa']}), torch {record['torch']}. The machine did other work beside it, which "
        "moves the times and not the memory.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, measure, keep, write the page; 0, or 1 when an index is wrong."""
    parser = command_parser("bench.negatives", __doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=IMAGES, help="of the measured step")
    parser.add_argument("--output", type=Path, help="default: by processor")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose generated part is replaced")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.case is not None:
        print(json.dumps(measure(**options.case)))
        return 0
    sizes = {"images": options.images, "captions": CAPTIONS, "width": WIDTH}
    record = keep_records(
        options.output or results_folder(device_name("cpu")) / "negatives.json",
        "bench.negatives",
        arguments,
        parity=list(parity_records(lambda what: print(what, flush=True))),
        memory=[
            measure_apart(
                {"objective": objective, "negatives": negatives, **sizes}, options.threads
            )
            for objective, negatives in STEPS
        ],
    )
    update_readme(options.page, tables(record), PART)
    wrong = [
        each["wrong"]
        for row in record["parity"]
        for found in row["backends"].values()
        for each in found.values()
    ]
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
