"""The extension around its kernels: loading, refusals, threads, forks, memory."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fresh_process import run_fresh

from goal_kernels import native
from goal_kernels.backends.base import Call, Pairing, SearchQuery
from goal_kernels.backends.cpu import CpuBackend

QUERY = SearchQuery("exponential", 0.1, 10.0, False, "highest")


def random_pair(rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    pair = torch.randn(2, rows, width, generator=generator) / width**0.5
    return pair[0], pair[1]


def test_build_info(fastest) -> None:
    info = native.build_info()
    assert info["isa"] == info["usable_isas"][-1]
    assert info["usable_isas"][0] == "baseline"
    assert info["compiler"]
    assert isinstance(info["openmp"], bool)
    assert info["cuda"]["devices"] or info["cuda"]["reason"]
    if info["cuda"]["built"]:
        assert info["cuda"]["runtime_version"] >= 12000


@pytest.fixture
def missing_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    native._attempt.cache_clear()
    monkeypatch.setattr(native, "MODULE", "goal_kernels._native_that_was_never_built")
    yield
    native._attempt.cache_clear()


@pytest.mark.usefixtures("missing_module")
def test_a_missing_extension_says_why_and_what_to_do(monkeypatch) -> None:
    ok, reason = native.status()
    assert not ok
    assert "_native_that_was_never_built" in reason
    assert "pip install" in reason
    assert CpuBackend().availability() == (False, reason)
    monkeypatch.undo()
    with pytest.raises(ImportError, match="_native_that_was_never_built"):
        native.load()  # the first failure is remembered


def test_available_and_supports(fastest) -> None:
    assert fastest.availability() == (True, "")
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        assert fastest.supports(Call("cpu", dtype, "medium")).ok
    refused = fastest.supports(Call("cuda", torch.float32))
    assert not refused.ok
    assert "cuda" in refused.reason
    refused = fastest.supports(Call("cpu", torch.int32))
    assert not refused.ok
    assert "int32" in refused.reason


def call(**changes) -> None:
    """Mines 3 x 4 with some arguments replaced."""
    arguments = {"image": torch.ones(3, 2), "text": torch.ones(4, 2), "target": None, "ids": None}
    arguments |= {"query": QUERY, "text_ids": None, "isa": "auto"} | changes
    pairing = Pairing(arguments["target"], arguments["ids"], arguments["text_ids"])
    CpuBackend(arguments["isa"]).search(
        arguments["image"], arguments["text"], pairing, arguments["query"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": torch.ones(3)}, r"image: expected a CPU matrix.*\(3,\)"),
        ({"image": torch.ones(3, 2, dtype=torch.int64)}, "image: expected a CPU matrix.*int64"),
        ({"image": torch.ones(3, 2, device="meta")}, "image: expected a CPU matrix.*on meta"),
        ({"text": torch.ones(4, 3)}, "text: expected torch.float32 and width 2"),
        ({"text": torch.ones(4, 2).double()}, "text: expected torch.float32 and width 2"),
        ({"text": torch.ones(0, 2)}, "1 to [0-9]+ rows and columns, got 0"),
        ({"target": torch.zeros(2, dtype=torch.int64)}, "target: expected 3 contiguous"),
        ({"target": torch.zeros(3, dtype=torch.int32)}, "target: .*int64.*got.*int32"),
        ({"target": torch.zeros(6, dtype=torch.int64)[::2]}, "target: .*contiguous"),
        ({"ids": torch.zeros(3, dtype=torch.int64)}, "image_ids, text_ids: expected both or none"),
        ({"query": QUERY._replace(relative="cubic")}, "relative: .*cubic"),
        ({"isa": "avx1024"}, "isa: expected one that this machine can run.*got 'avx1024'"),
    ],
)
def test_wrong_arguments_are_refused(fastest, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(**changes)


def test_concurrent_callers_get_the_same_answer(fastest) -> None:
    """The kernels run without the interpreter lock and share nothing."""
    image, text = random_pair(200, 40)
    alone = fastest.search(image, text, Pairing(), QUERY)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(fastest.search, image, text, Pairing(), QUERY) for _ in range(8)]
        for job in jobs:
            assert all(map(torch.equal, alone, job.result()))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_hardest_alone_are_those_of_a_search(fastest, dtype, normalize) -> None:
    image, text = (x.to(dtype) for x in random_pair(40, 24))
    ids = torch.arange(40) // 2
    pairing = Pairing(torch.arange(40) - 3, ids, ids[:31].contiguous())
    query = SearchQuery("none", 0.1, 10.0, normalize, "highest")
    found = fastest.search(image, text[:31], pairing, query)
    assert all(map(torch.equal, fastest.hardest(image, text[:31], pairing, query), found.hardest))


def _mine_in_child(connection) -> None:
    torch.set_num_threads(1)  # as data-loading workers do
    image, text = random_pair(200, 40)
    found = CpuBackend().search(image, text, Pairing(), QUERY)
    connection.send(found.indices.tolist())


def test_a_forked_child_does_not_hang(fastest, set_threads) -> None:
    set_threads(2)
    image, text = random_pair(200, 40)
    expected = fastest.search(image, text, Pairing(), QUERY).indices.tolist()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_mine_in_child, args=(sender,))
    child.start()
    answered = receiver.poll(30)
    if not answered:
        child.kill()
    child.join()
    assert answered, "the child did not answer"
    assert receiver.recv() == expected


MEMORY_SCRIPT = """
import torch
from goal_kernels.backends.base import Pairing, SearchQuery
from goal_kernels.backends.cpu import CpuBackend


def kilobytes(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


torch.set_num_threads(2)
image, text = torch.randn(2, {batch}, {width})
ids = torch.arange({batch})
query = SearchQuery("exponential", 0.1, 10.0, False, "highest")
backend = CpuBackend()
backend.search(image[:300], text[:300], Pairing(), query)
grads = torch.ones(2, {batch}, {width})  # what the gradients will occupy
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before = kilobytes("VmRSS")
del grads
found = backend.search(image, text, Pairing(None, ids, ids), query)
hardest = found.indices.view(2, {batch})
vectors = torch.ones(6, {batch})
grads = backend.backward(torch.tensor(1.0), image, text, vectors, hardest, (True, True))
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_extra_memory_is_linear_in_the_batch(fastest) -> None:
    """At 16384 x 64 the matrix alone would be 1 GiB."""
    batch, width = 16384, 64
    script = MEMORY_SCRIPT.format(batch=batch, width=width)
    done = run_fresh(script)
    assert done.returncode == 0, done.stderr
    extra = int(done.stdout) << 10
    assert extra < (16 << 20) + 400 * batch, f"{extra / 2**20:.1f} MiB"
