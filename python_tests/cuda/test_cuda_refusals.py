"""What the CUDA backend refuses and says, and that its module needs no driver."""

from __future__ import annotations

import pytest
import torch
from cuda_truth import engine

import goal_kernels as gk
from goal_kernels import native
from goal_kernels.backends.base import Call, Pairing, SearchQuery
from goal_kernels.backends.choice import BACKENDS, find_backend
from goal_kernels.backends.gpu import CudaBackend, backend

QUERY = SearchQuery("none", 0.1, 1.0, False, "high")
REFUSALS = (
    (Call("cuda", torch.bfloat16, automatic=True), "not been verified on a GPU"),
    (Call("cuda", torch.float64), "float64"),
    (Call("cpu", torch.bfloat16), "serves cuda tensors"),
    (Call("cuda", torch.float32, "highest"), "precision='high'"),
)


@pytest.mark.parametrize(("call", "reason"), REFUSALS)
def test_refusals_give_their_reason(call, reason) -> None:
    verdict = CudaBackend().supports(call)
    assert not verdict.ok
    assert reason in verdict.reason


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_is_served(dtype) -> None:
    assert CudaBackend().supports(Call("cuda", dtype, "high")).ok
    assert CudaBackend().supports(Call("cuda", dtype, "medium")).ok


def test_emulation_is_never_registered() -> None:
    registered = find_backend("cuda")
    assert isinstance(registered, CudaBackend)
    assert not registered.emulated
    assert sum(isinstance(backend, CudaBackend) for backend in BACKENDS) == 1


def test_a_name_never_falls_back() -> None:
    image, text = torch.randn(2, 4, 8)
    with pytest.raises(gk.BackendUnavailableError, match=r"backend 'cuda' cannot serve this call"):
        gk.goal_loss(image, text, "nca/linear", backend="cuda")


def test_arguments_are_checked() -> None:
    backend = engine("cpu")
    image, text = torch.randn(2, 4, 8).half()
    ids = torch.zeros(4, dtype=torch.int64)
    for pairing, words in (
        (Pairing(image_ids=ids), "both or none"),
        (Pairing(target=ids[:3]), "target: expected 4"),
        (Pairing(image_ids=ids.int(), text_ids=ids), "image_ids: expected 4"),
    ):
        with pytest.raises(ValueError, match=words):
            backend.search(image, text, pairing, QUERY)
    with pytest.raises(ValueError, match=r"text: expected torch\.float16 and width 8"):
        backend.search(image, text[:, :7], Pairing(), QUERY)
    state = torch.zeros(5, 4), torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="vectors: expected 6 or 8 rows"):
        backend.backward(torch.ones(()), image, text, *state, (True, True))


def test_the_module_loads_without_a_driver_and_errors_have_names() -> None:
    """Where there is no device, a launch says so in CUDA's words; nothing else needs one."""
    info = native.build_info()["cuda"]
    if not info["built"] or info["devices"]:
        pytest.skip("needs a build with CUDA on a machine without a device")
    assert info["architecture"] == "90a"
    kernels = native.load().cuda
    for stage in ("mine", "score", "rank"):
        arguments = getattr(kernels, stage.capitalize())()
        arguments.image = arguments.text = (0, 1, 8)
        arguments.width = 8
        with pytest.raises(RuntimeError, match=r"cudaError\w+, "):
            getattr(kernels, stage)(arguments, 0)


def test_fields_are_checked() -> None:
    arguments = native.load().cuda.Rank()
    with pytest.raises(AttributeError, match="Rank has no field breadth"):
        arguments.breadth = 8
    with pytest.raises(TypeError, match=r"Rank\.width: a value of another type"):
        arguments.width = "wide"
    with pytest.raises(ValueError, match="operand: expected one of bfloat16, float16, got float64"):
        arguments.operand = "float64"


@pytest.mark.parametrize(
    ("driver", "ok"), [(12080, False), (13000, True), (13020, True), (14000, True)]
)
def test_a_driver_that_is_too_old_is_named(monkeypatch, driver: int, ok: bool) -> None:
    info = {"built": True, "runtime_version": 13010, "driver_version": driver}
    monkeypatch.setattr(native, "build_info", lambda: {"cuda": info})
    verdict = backend._built.__wrapped__(False)
    assert verdict.ok == ok
    assert ok or "the driver knows CUDA 12 at most; update the driver" in verdict.reason
