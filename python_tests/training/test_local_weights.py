"""Weights from files that other programs wrote: found under any prefix, never run."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from goal_kernels.training.local_weights import fill, load_weights, named_by_order, read_state


def small_network() -> nn.Module:
    layer3 = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6))
    return nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 6, 1), layer3=layer3))


WRAPPED = {
    "bare": lambda state: state,
    "checkpoint": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "deep": lambda state: {"model": {f"backbone.body.{n}": v for n, v in state.items()}},
    "with a head": lambda state: state | {"fc.weight": torch.zeros(3)},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_weights_are_found_under_any_prefix(tmp_path: Path, wrap: str) -> None:
    torch.manual_seed(1)
    source = small_network().state_dict()
    torch.save(WRAPPED[wrap](source), tmp_path / "weights.pt")
    body = small_network()
    fill(body, str(tmp_path / "weights.pt"), pretrained=True)
    assert all(torch.equal(value, source[name]) for name, value in body.state_dict().items())


def test_other_names_for_the_same_tensors_in_order() -> None:
    own = small_network().state_dict()
    foreign = {f"_{n}": value + 1 for n, value in enumerate(own.values())} | {"_fc": torch.ones(3)}
    with pytest.warns(UserWarning, match=r"has other names, such as _0; .* all 9 shapes agree"):
        renamed = named_by_order(own, foreign)
    assert list(renamed) == list(own)
    assert all(torch.equal(renamed[name], own[name] + 1) for name in own)
    known = {f"module.{name}": value for name, value in own.items()}
    turned = dict(reversed(list(foreign.items())[:-1]))
    few = dict(list(foreign.items())[:3])
    for state in (known, turned, few):
        assert named_by_order(own, state) is state


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    torch.manual_seed(1)
    source = small_network().state_dict()
    safetensors.save_file(source, str(tmp_path / "weights.safetensors"))
    assert torch.equal(
        read_state(str(tmp_path / "weights.safetensors"))["stem.weight"], source["stem.weight"]
    )


class Surprise:
    """What a file must not be able to make us run."""

    def __reduce__(self) -> tuple:
        return print, ("ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {}}, "found no tensors"),
        ([1, 2], "found no tensors"),
        (Surprise(), "no file of tensors that can be read safely"),
    ],
)
def test_files_without_a_state(
    tmp_path: Path, content: object, words: str, capsys: pytest.CaptureFixture
) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=f"model.image.weights: .*{words}"):
        read_state(str(tmp_path / "weights.pt"))
    assert capsys.readouterr().out == ""


def test_torn_and_missing_files(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    torch.save(small_network().state_dict(), tmp_path / "weights.pt")
    whole = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="can be read safely"):
        read_state(str(tmp_path / "weights.pt"))
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="can be read safely"):
        read_state(str(tmp_path / "weights.pt"))
    (tmp_path / "weights.safetensors").write_bytes(whole[:100])
    with pytest.raises(ValueError, match="can be read safely"):
        read_state(str(tmp_path / "weights.safetensors"))
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        read_state(str(tmp_path / "none.pt"))


def test_weights_of_another_network_are_explained() -> None:
    state = small_network().state_dict()
    lacking = {name: value for name, value in state.items() if "layer3" not in name}
    with pytest.raises(
        ValueError, match=r"of its 9 tensors 6 are missing, such as layer3.0.weight"
    ):
        load_weights(small_network(), lacking)
    wrong = state | {"stem.weight": torch.zeros(6, 4, 1, 1)}
    with pytest.raises(ValueError, match=r"stem.weight: expected \[6, 3, 1, 1\], got \[6, 4, 1, 1"):
        load_weights(small_network(), wrong)
    old = {name: value for name, value in state.items() if "num_batches" not in name}
    load_weights(small_network(), old)


def test_random_weights_are_said_and_expected_ones_are_not() -> None:
    with pytest.warns(UserWarning, match="starts from random weights"):
        fill(small_network(), None, pretrained=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill(small_network(), "is never read", pretrained=False)
