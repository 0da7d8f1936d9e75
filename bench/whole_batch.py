"""Losses over all negatives, forward and backward: the library, eager, compiled, a product.

    export PYTHONPATH=python_tests                 the judge of the contest is that of the tests
    python -m bench.whole_batch                    B = 4096 and 8192, D = 512 and 1024, two threads
    python -m bench.whole_batch --batch 1024 --width 64 --output FILE      smaller
    python -m bench.whole_batch --loss siglip --output PART.json           a part, and all of them:
    python -m bench.whole_batch --merge PART.json PART.json --output FILE

Every method is checked first: its value and gradients against float64. Then the methods of a case
take turns. Peak memory is that of a step in a process of its own, beyond inputs and gradients. The
figures are kept in bench/results/<processor>/whole_batch.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import goal_kernels as gk
from bench import command_parser
from bench.cases import FORWARD, MINE, NO_OBJECTIVE, Case, Effort, make_inputs
from bench.contest import ContestResult, Lane, Tell, contest_among, quiet
from bench.lineup import GEMM
from bench.machine import device_name, keep_records, results_folder
from bench.memory import peak_cpu, run_apart
from bench.methods import Runnable
from goal_kernels.data.files import write_text
from goal_kernels.whole_batch.blocks import BLOCK

EAGER, COMPILED, OURS = "eager", "compiled", "goal_kernels"
METHODS = (GEMM, EAGER, COMPILED, OURS)
MEMEFF, SIGLIP_KERNEL, INF_CL = "memeff", "siglip-kernel", "inf-cl"
RIVALS = {"info_nce": (MEMEFF, INF_CL), "siglip": (SIGLIP_KERNEL,), "sum_of_hinges": ()}
"""Packages with Triton kernels of a loss, for GPUs."""
BATCHES, WIDTHS, DTYPES = (4096, 8192), (512, 1024), ("float32", "bfloat16")
EFFORT = Effort(10.0, 3, 7)
SCALE = 20.0

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Of values, and of gradients over their largest element; bfloat16 rounds similarities in eager."""

Loss = Callable[[Tensor, Tensor], Tensor]


class WholeBatchCase(NamedTuple):
    """A loss of B pairs of width D, unit rows of a half-trained model."""

    loss: str
    batch: int
    width: int
    dtype: str
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.loss}-{self.batch}x{self.width}-{self.dtype}"


def eager_hinges(image: Tensor, text: Tensor, margin: float = 0.2) -> Tensor:
    score = image @ text.T
    positive = score.diagonal()
    both = (margin + score - positive[:, None]).relu() + (margin + score - positive).relu()
    return both.fill_diagonal_(0).sum(dtype=wide(image))


def eager_info_nce(image: Tensor, text: Tensor) -> Tensor:
    logits = SCALE * (image @ text.T).to(wide(image))
    places = torch.arange(len(image), device=image.device)
    return F.cross_entropy(logits, places, reduction="sum") + F.cross_entropy(
        logits.T, places, reduction="sum"
    )


def eager_siglip(image: Tensor, text: Tensor) -> Tensor:
    logits = (10 * (image @ text.T) - 10).to(wide(image))
    labels = 2 * torch.eye(len(image), dtype=logits.dtype, device=image.device) - 1
    return -F.logsigmoid(labels * logits).sum()


def wide(matrix: Tensor) -> torch.dtype:
    """What losses are computed in, as under autocast."""
    return torch.float64 if matrix.dtype == torch.float64 else torch.float32


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "sum_of_hinges": (eager_hinges, gk.sum_of_hinges_loss),
    "info_nce": (eager_info_nce, lambda x, y: gk.info_nce_loss(x, y, scale=SCALE)),
    "siglip": (eager_siglip, gk.siglip_loss),
}
"""By name: as a good user writes it in torch, and the library's."""

ACTIVE = {"sum_of_hinges_1_percent": 0.01, "sum_of_hinges_0.1_percent": 0.001}
"""Sums of hinges whose margin leaves a weight to this share of the pairs, by name."""

GRID = 2.0**-12
"""Entries of their rows are multiples of it, so that float32 holds all similarities exactly. Else a
pair on the margin would have a gradient by one method's rounding and none by another's."""


def rival(name: str) -> Loss:
    """The loss of another package, as a sum over pairs and directions. Raises: ImportError."""
    package = import_module(module_of(name))
    if name == SIGLIP_KERNEL:
        siglip = package.fused_siglip_loss

        def siglip_sum(image: Tensor, text: Tensor) -> Tensor:
            scale, bias = (image.new_tensor(x, dtype=torch.float32) for x in (10.0, -10.0))
            return len(image) * siglip(image, text, scale.log(), bias)

        return siglip_sum
    if name == MEMEFF:
        clip = package.MemoryEfficientCLIPLoss(1 / SCALE, normalized_inputs=True, stable=False)
        return lambda image, text: 2 * len(image) * clip(image, text)

    def both_ways(image: Tensor, text: Tensor) -> Tensor:
        one, other = (
            package.cal_flash_loss(*way, scale=SCALE).sum()
            for way in ((image, text), (text, image))
        )
        return one + other

    return both_ways


def module_of(name: str) -> str:
    """The module of a package in `RIVALS`."""
    return name.replace("-", "_")


@dataclass
class Step(Runnable):
    """One method, ready to run: forward and backward of fresh leaves, or a product."""

    loss: Loss | None
    image: Tensor
    text: Tensor

    def run(self) -> tuple[Tensor, ...]:
        """Value and gradients."""
        if self.loss is None:
            return (self.image @ self.text.T,)
        image, text = (x.detach().requires_grad_() for x in (self.image, self.text))
        loss = self.loss(image, text)
        loss.backward()
        assert image.grad is not None
        assert text.grad is not None
        return loss.detach(), image.grad, text.grad


def make_step(name: str, case: WholeBatchCase) -> Step:
    """A method of a case with its inputs."""
    size = case.batch, case.width, case.dtype
    inputs = make_inputs(Case(MINE, FORWARD, NO_OBJECTIVE, *size, device=case.device))
    image, text = inputs.image.detach(), inputs.text.detach()
    if case.loss in ACTIVE:
        image, text = ((x / GRID).round() * GRID for x in (image, text))
        margin = margin_for(image, text, ACTIVE[case.loss])
        eager, ours = (partial(loss, margin=margin) for loss in LOSSES["sum_of_hinges"])
    else:
        eager, ours = LOSSES[case.loss]
    losses = {GEMM: None, EAGER: eager, OURS: ours}
    if name in losses:
        loss = losses[name]
    else:
        loss = torch.compile(eager) if name == COMPILED else rival(name)
    return Step(loss, image, text)


def margin_for(image: Tensor, text: Tensor, share: float) -> float:
    """The margin that leaves a weight to a share of the pairs, a similarity of the grid."""
    few = slice(BLOCK)
    positive = (image * text).sum(dim=1)
    gap = image[few] @ text.T - positive[few, None].minimum(positive)
    gap.fill_diagonal_(-torch.inf)
    return max(0.0, -float(gap.flatten().topk(round(share * gap.numel())).values[-1]))


def check(case: WholeBatchCase, answer: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> None:
    """Raises AssertionError unless value and gradients are those of float64."""
    for name, found, right in zip(("value", "images", "texts"), answer, truth, strict=True):
        error = (found.double() - right).abs().max() / right.abs().max()
        assert error <= TOLERANCE[case.dtype], f"{name}: {error:.2g} from float64, relatively"


def hold_contest(
    case: WholeBatchCase, effort: Effort, names: Sequence[str], tell: Tell = quiet
) -> ContestResult:
    """All methods of a case in turns, after their answers were checked."""
    exact = make_step(EAGER, case)
    truth = Step(exact.loss, exact.image.double(), exact.text.double()).run()

    def make(name: str) -> Lane:
        step = make_step(name, case)
        answer = step.run()
        if name != GEMM:
            check(case, answer, truth)
        return Lane(name, [step])

    return contest_among(names, make, effort, case.device, tell)


def peak_mib(name: str, case: WholeBatchCase) -> float:
    """Peak MiB of the first step beyond inputs and gradients, in a process of its own."""
    arguments = ["bench.whole_batch", "--peak", name, json.dumps(case)]
    return float(run_apart(arguments, torch.get_num_threads()))


def print_peak(name: str, case: WholeBatchCase) -> None:
    """What `peak_mib` reads."""
    make_step(name, case._replace(batch=64)).run()
    step = make_step(name, case)
    gradients = 0 if step.loss is None else 2 * step.image.numel() * step.image.element_size()
    print(max(0, peak_cpu(step) - gradients) / 2**20)


def as_record(
    case: WholeBatchCase, result: ContestResult, names: Sequence[str]
) -> dict[str, object]:
    """Seconds, ratios of medians and memory of a contest, for a file."""
    return {
        **case._asdict(),
        "methods": {
            name: {
                "median_seconds": lane.median,
                "rounds": len(lane.wall),
                "to_gemm": result.ratio(name, GEMM),
                "to_eager": result.ratio(name, EAGER),
                "peak_mib": peak_mib(name, case) if name != COMPILED else None,
            }
            for name, lane in result.lanes.items()
            if name in names
        },
        "failures": {**result.failures, **result.refused, **result.oom},
    }


def merge(files: Sequence[Path], output: Path) -> None:
    """Write the cases of several runs as those of one. Raises: ValueError where they are not."""
    runs = [json.loads(file.read_text()) for file in files]
    cases: dict[tuple[object, ...], object] = {}
    for file, run in zip(files, runs, strict=True):
        for key in runs[0].keys() - {"command", "date", "cases"}:
            if run[key] != runs[0][key]:
                raise ValueError(
                    f"{file}: expected {key} {runs[0][key]!r} as in {files[0]}, got {run[key]!r}; "
                    "run it again on the same commit and machine."
                )
        for case in run["cases"]:
            key = tuple(case[field] for field in WholeBatchCase._fields)
            if key in cases:
                raise ValueError(f"{file}: expected other cases than before, got {key} again.")
            cases[key] = case
    commands = "; ".join(run["command"] for run in runs)
    kept = {**runs[-1], "command": commands, "cases": list(cases.values())}
    write_text(output, json.dumps(kept, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep; 0, or 1 when the library's answer was wrong."""
    parser = command_parser("bench.whole_batch", __doc__)
    names = (*LOSSES, *ACTIVE)
    parser.add_argument("--loss", choices=names, action="append", default=[])
    parser.add_argument("--batch", type=int, action="append", default=[])
    parser.add_argument("--width", type=int, action="append", default=[])
    parser.add_argument("--dtype", choices=DTYPES, action="append", default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output", type=Path, help="default: by processor, of a complete run")
    parser.add_argument("--merge", nargs="+", type=Path, metavar="FILE", help="join runs of parts")
    parser.add_argument("--peak", nargs=2, metavar=("METHOD", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak is not None:
        print_peak(options.peak[0], WholeBatchCase(*json.loads(options.peak[1])))
        return 0
    if options.merge is not None:
        if options.output is None:
            parser.error("--merge: expected --output FILE beside it.")
        merge(options.merge, options.output)
        return 0
    torch.set_num_threads(options.threads)
    cases = [
        WholeBatchCase(loss, batch, width, dtype)
        for loss in options.loss or names
        for batch in options.batch or BATCHES
        for width in options.width or WIDTHS
        for dtype in options.dtype or (DTYPES[:1] if loss in ACTIVE else DTYPES)
    ]
    records, failed = [], False
    for case in cases:
        result = hold_contest(case, EFFORT, options.methods)
        records.append(as_record(case, result, options.methods))
        print(case)
        for name, lane in result.lanes.items():
            ratios = [result.ratio(name, to) for to in (GEMM, EAGER)]
            shown = [f"{x:6.2f}" if x else " " * 6 for x in ratios]
            print(f"  {name:12} {lane.median:8.3f} s  to gemm {shown[0]}  to eager {shown[1]}")
        for name, message in {**result.failures, **result.refused, **result.oom}.items():
            failed = failed or name == OURS
            print(f"  {name:12} no time: {message}")
    chosen = (options.loss, options.batch, options.width, options.dtype)
    complete = not any(chosen) and options.methods == list(METHODS)
    default = results_folder(device_name("cpu")) / "whole_batch.json"
    output = options.output or (default if complete else None)
    if output is not None:
        keep_records(output, "bench.whole_batch", arguments, cases=records)
        print(output)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
