"""What a type checker has to make of the public calls; read by mypy, see test_typing.py."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import assert_type

import goal_kernels as gk
from goal_kernels.distributed import DistributedGOALLoss, distributed_goal_loss

Both = tuple[Tensor, gk.MiningStatistics]


def losses(x: Tensor, flag: bool) -> None:
    assert_type(gk.goal_loss(x, x, "nca/linear", image_ids=[0, 1], normalize=True), Tensor)
    assert_type(gk.goal_loss(x, x, "hinge/constant", margin=0.3, return_stats=True), Both)
    assert_type(gk.goal_loss(x, x, "nca/linear", return_stats=flag), Tensor | Both)
    assert_type(gk.goal_loss_from_similarity(x, "nca/linear", tau=1.0), Tensor)
    assert_type(gk.goal_loss_from_similarity(x, "nca/linear", return_stats=True), Both)
    assert_type(distributed_goal_loss(x, x, "nca/linear"), Tensor)
    gk.goal_loss(x, x, "nca/linear").backward()


def criteria(x: Tensor, flag: bool, given: gk.GOALLoss) -> None:
    assert_type(gk.GOALLoss("hinge/constant", margin=0.3)(x, x, text_ids=[0, 1]), Tensor)
    assert_type(gk.GOALLoss("nca/linear", return_stats=True)(x, x), Both)
    assert_type(gk.GOALLoss("nca/linear", return_stats=flag)(x, x), Tensor | Both)
    assert_type(DistributedGOALLoss("nca/linear")(x, x), Tensor)
    assert_type(given(x, x), Tensor)
    assert_type(gk.graphed_loss("nca/linear", x, x)(x, x), Tensor)


def mistakes(x: Tensor) -> None:
    gk.goal_loss(x, x, "nca/linear", normalize="yes")  # type: ignore[call-overload]
    gk.goal_loss(x, x, "nca/linear", return_stats=True).backward()  # type: ignore[attr-defined]
    gk.GOALLoss("nca/linear")(x)  # type: ignore[call-arg]
