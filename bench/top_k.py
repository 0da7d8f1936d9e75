"""The k best of N candidates for each of N queries: the backends, faiss, and torch.topk in blocks.

    export PYTHONPATH=python_tests         the judge's bounds are those of the tests
    python -m bench.top_k                  N = 100,000, D = 512, k = 10 and 100, on two threads
    python -m bench.top_k --rows 16384     smaller; nothing is written unless --output says where

Every method is checked first: the scores of its candidates, in float64, have to be those of faiss,
place by place, and for some queries those of the float64 truth. Then they take turns. The figures
are kept in bench/results/<processor>/top_k.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench import command_parser
from bench.cases import FORWARD, MINE, NO_OBJECTIVE, Case, Effort, make_inputs
from bench.contest import ContestResult, Lane, contest_among
from bench.lineup import GEMM
from bench.machine import describe_machine, installed_version, keep_records, results_folder
from bench.methods import Runnable
from goal_kernels import mine_top_k

FAISS, TORCH, CPU, CHUNKED = "faiss", "torch", "cpu", "chunked"
BLOCK = 1024
"""Queries of a block of the torch methods."""

TRUTH_ROWS = 256
ROWS, WIDTH, PLACES = 100_000, 512, (10, 100)
EFFORT = Effort(60.0, 3, 11)


class TopKCase(NamedTuple):
    """N queries against N candidates of width D, unit rows of a half-trained model."""

    rows: int
    width: int
    k: int

    def __str__(self) -> str:
        return f"top_k-{self.rows}x{self.width}-k{self.k}"


def _faiss(queries: Tensor, corpus: Tensor, k: int) -> Callable[[], Tensor]:
    """`IndexFlatIP`, its vectors added before the clock runs."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(corpus.shape[1])
    index.add(corpus.numpy())
    return lambda: torch.from_numpy(index.search(queries.numpy(), k)[1])


def _torch(queries: Tensor, corpus: Tensor, k: int) -> Callable[[], Tensor]:
    """One block of rows of the product at a time, into one buffer, and topk."""
    score = queries.new_empty(BLOCK, len(corpus))

    def search() -> Tensor:
        found = []
        for block in queries.split(BLOCK):
            torch.mm(block, corpus.T, out=score[: len(block)])
            found.append(score[: len(block)].topk(k, dim=1).indices)
        return torch.cat(found)

    return search


def _gemm(queries: Tensor, corpus: Tensor, k: int) -> Callable[[], Tensor]:
    """The same products and nothing else."""
    score = queries.new_empty(BLOCK, len(corpus))

    def multiply() -> Tensor:
        for block in queries.split(BLOCK):
            torch.mm(block, corpus.T, out=score[: len(block)])
        return score

    return multiply


def _ours(backend: str) -> Callable[[Tensor, Tensor, int], Callable[[], Tensor]]:
    def prepare(queries: Tensor, corpus: Tensor, k: int) -> Callable[[], Tensor]:
        return lambda: mine_top_k(queries, corpus, k, backend=backend).indices

    return prepare


METHODS = {
    GEMM: _gemm,
    FAISS: _faiss,
    TORCH: _torch,
    CPU: _ours(CPU),
    CHUNKED: _ours(CHUNKED),
}


@dataclass
class Searcher(Runnable):
    """One method, ready to run."""

    search: Callable[[], Tensor]

    def run(self) -> Tensor:
        return self.search()


class TopKJudge:
    """Raises AssertionError unless indices are right up to what float32 cannot tell apart."""

    def __init__(self, queries: Tensor, corpus: Tensor, k: int) -> None:
        self.queries, self.corpus = queries, corpus
        step = max(1, len(queries) // TRUTH_ROWS)
        self.rows = torch.arange(0, len(queries), step)
        self.truth = (queries[self.rows].double() @ corpus.double().T).topk(k, dim=1).values
        # Any order of D additions, once for each of the two that may have changed places.
        self.error = 2 * (queries.shape[1] + 2) * 2.0**-24
        self.first: Tensor | None = None

    def check(self, indices: Tensor) -> None:
        """indices [N, k], by descending score."""
        ordered = indices.sort(dim=1).values
        assert (ordered[:, 1:] != ordered[:, :-1]).all(), "a candidate was found twice"
        score = torch.cat(
            [
                torch.einsum("nd,nkd->nk", self.queries[part].double(), self.corpus[own].double())
                for part, own in zip(
                    torch.arange(len(indices)).split(64), indices.split(64), strict=True
                )
            ]
        )
        worst = (score[self.rows] - self.truth).abs().max().item()
        assert worst <= self.error, f"scores are {worst:.3g} from the float64 truth"
        if self.first is None:
            self.first = score
        worst = (score - self.first).abs().max().item()
        assert worst <= self.error, f"scores are {worst:.3g} from those of the first method"


def hold_top_k_contest(case: TopKCase, effort: Effort, names: Sequence[str]) -> ContestResult:
    """The methods of a case in turns, after their answers were checked."""
    inputs = make_inputs(Case(MINE, FORWARD, NO_OBJECTIVE, case.rows, case.width, "float32"))
    queries, corpus = inputs.image.detach(), inputs.text.detach()
    judge = TopKJudge(queries, corpus, case.k)

    def make(name: str) -> Lane:
        searcher = Searcher(METHODS[name](queries, corpus, case.k))
        answer = searcher.run()
        if name != GEMM:
            judge.check(answer)
        return Lane(name, [searcher])

    return contest_among(names, make, effort)


def as_record(case: TopKCase, result: ContestResult) -> dict[str, object]:
    """Seconds and ratios of medians of a contest, for a file."""
    return {
        **case._asdict(),
        "methods": {
            name: {
                "median_seconds": lane.median,
                "processor_seconds": sorted(lane.busy)[len(lane.busy) // 2],
                "rounds": len(lane.wall),
                "to_faiss": result.ratio(name, FAISS),
                "to_gemm": result.ratio(name, GEMM),
            }
            for name, lane in result.lanes.items()
        },
        "failures": {**result.failures, **result.refused, **result.oom},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep; 0, or 1 when a method was wrong."""
    parser = command_parser("bench.top_k", __doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("-k", type=int, action="append", default=[], help="10 and 100 unless given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output", type=Path, help="default: by processor, of a complete run")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine("cpu")
    records, failed = [], False
    for k in options.k or PLACES:
        case = TopKCase(options.rows, options.width, k)
        result = hold_top_k_contest(case, EFFORT, options.methods)
        record = as_record(case, result)
        records.append(record)
        failed |= bool(record["failures"])
        print(case)
        for name, lane in result.lanes.items():
            to_faiss, to_gemm = (result.ratio(name, to) for to in (FAISS, GEMM))
            ratios = [f"{x:8.3f}" if x else " " * 8 for x in (to_faiss, to_gemm)]
            print(f"  {name:8} {lane.median:9.3f} s   to faiss {ratios[0]}   to gemm {ratios[1]}")
        for name, message in {**result.failures, **result.refused, **result.oom}.items():
            print(f"  {name:8} no time: {message}")
    complete = (options.rows, options.width, options.k) == (ROWS, WIDTH, [])
    complete = complete and options.methods == list(METHODS) and not failed
    default = results_folder(machine["device"]) / "top_k.json"
    output = options.output or (default if complete else None)
    if output is not None:
        faiss = installed_version("faiss-cpu")
        keep_records(output, "bench.top_k", arguments, faiss=faiss, cases=records)
        print(output)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
