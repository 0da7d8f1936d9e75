"""What the processes of the tests run; each function is also run in a single process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from goal_kernels import Objective
from goal_kernels.distributed import (
    DistributedGOALLoss,
    SynchronizedBatchNorm1d,
    distributed_goal_loss,
    gather_rows,
    rows_per_rank,
    synchronize_batch_norm,
)
from goal_kernels.distributed.gather import rank, world_size
from goal_kernels.training.accumulation import backward_in_chunks
from goal_kernels.training.data import Batch
from goal_kernels.training.joint_loss import joint_loss
from goal_kernels.training.model import VSE, build_model
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions
from goal_kernels.training.parallel_steps import BatchShare, augment_share, split_batch
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule

REGIONS, REGION_DIM, WORDS = 5, 6, 40


def own_rows(rows: list[int]) -> slice:
    """The rows of this process when process r has `rows[r]`; all of them in a single process."""
    if world_size() == 1:
        return slice(None)
    first = sum(rows[: rank()])
    return slice(first, first + rows[rank()])


def gathered(rows: list[int]) -> Tensor:
    """Rows numbered across processes, as every process sees them."""
    numbers = torch.arange(sum(rows))[own_rows(rows), None].expand(-1, 2)
    assert rows_per_rank(len(numbers)) == rows
    return gather_rows(numbers)


def wrong_rows() -> str:
    """What is said when the numbers given are not those of the tensors."""
    try:
        gather_rows(torch.zeros(3, 1), rows=[4, 4])
    except ValueError as error:
        return str(error)
    return ""


def loss_and_gradients(
    rows: list[int],
    options: dict[str, Any],
    averaged: bool = True,
    objective: str = "nca/sigmoid_ms",
) -> Any:
    """Loss, gradient of the own rows [2, b, D], hardest texts, of `distributed_goal_loss`."""
    torch.manual_seed(3)
    pairs = F.normalize(torch.randn(2, sum(rows), 8, dtype=torch.float64), dim=2)
    own = pairs[:, own_rows(rows)].clone().requires_grad_()
    ids = (torch.arange(sum(rows)) // 2)[own_rows(rows)]
    loss, statistics = distributed_goal_loss(
        *own,
        objective,
        image_ids=ids,
        averaged_gradients=averaged,
        return_stats=True,
        **options,
    )
    loss.backward()
    return loss.item(), own.grad, statistics.hardest_text


def captioned(rows: list[int], text_rows: list[int], options: dict[str, Any]) -> Any:
    """Loss, gradients of the own images and texts, hardest texts: several texts an image.

    The texts of a process belong to its own images or to none.
    """
    torch.manual_seed(3)
    image = F.normalize(torch.randn(sum(rows), 8, dtype=torch.float64), dim=1)
    text = F.normalize(torch.randn(sum(text_rows), 8, dtype=torch.float64), dim=1)
    firsts = [sum(rows[:r]) for r in range(len(rows))]
    owners = [
        first + torch.arange(texts) % (images + 1) if images else torch.full((texts,), -1)
        for first, images, texts in zip(firsts, rows, text_rows, strict=True)
    ]
    owners = [
        torch.where(owner < first + images, owner, -1)
        for owner, first, images in zip(owners, firsts, rows, strict=True)
    ]
    owner = torch.cat(owners)
    own, own_texts = own_rows(rows), own_rows(text_rows)
    owner = owner[own_texts]
    if world_size() > 1:
        owner = torch.where(owner >= 0, owner - firsts[rank()], -1)
    x, y = image[own].clone().requires_grad_(), text[own_texts].clone().requires_grad_()
    ids = (torch.arange(len(image)) // 2)[own]
    loss, statistics = distributed_goal_loss(
        x, y, "nca/sigmoid_ms", text_to_image=owner, image_ids=ids, return_stats=True,
        averaged_gradients=False, **options,
    )  # fmt: skip
    loss.backward()
    return loss.item(), x.grad, y.grad, statistics.hardest_text


def transformed(rows: list[int]) -> tuple[Tensor, str]:
    """Gradient of the own rows by torch.func.grad, and what is said of a forward-mode one."""
    torch.manual_seed(3)
    pairs = F.normalize(torch.randn(2, sum(rows), 8, dtype=torch.float64), dim=2)
    own = pairs[:, own_rows(rows)]

    def loss(both: Tensor) -> Tensor:
        return distributed_goal_loss(*both, "nca/sigmoid", backend="reference")

    try:
        torch.func.jvp(loss, (own,), (own,))
    except RuntimeError as error:
        return torch.func.grad(loss)(own), str(error)
    return own, "no error"


def normalized(rows: list[int], shape: tuple[int, ...], options: dict[str, Any]) -> Any:
    """Output, gradient of the input, gradients of weight and bias, running statistics."""
    torch.manual_seed(5)
    norm = SynchronizedBatchNorm1d(shape[0], **options)
    features = 100 + torch.randn(sum(rows), *shape)
    pull = torch.randn(sum(rows), *shape)
    results: list[Any] = []
    with torch.no_grad():
        norm.weight.copy_(torch.rand(shape[0]) + 0.5)
    for step in range(2):
        own = (features[own_rows(rows)] * (step + 1)).requires_grad_()
        norm.zero_grad()
        output = norm(own)
        (output * pull[own_rows(rows)]).sum().backward()
        results.append((output.detach(), own.grad, norm.weight.grad, norm.bias.grad))
    return results, {name: value.clone() for name, value in norm.named_buffers()}


def make_model(batch_norm: bool = True, dtype: torch.dtype = torch.float64) -> VSE:
    """A small model, the same in every process."""
    torch.manual_seed(1)
    model = build_model(
        ImageOptions(), TextOptions(word_dim=6), DataSizes(REGION_DIM, WORDS), embed_dim=8
    )
    for part in [] if batch_norm else list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm1d):
                setattr(part, name, nn.Identity())
    return model.to(dtype)


def make_batch(pairs: int, step: int, dtype: torch.dtype = torch.float64) -> Batch:
    """Images with some missing regions, captions of 3 to 9 tokens, two captions an image."""
    generator = torch.Generator().manual_seed(100 + step)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    width = 9
    lengths = integers(3, width + 1, pairs)
    inside = torch.arange(width) < lengths[:, None]
    tokens = integers(4, WORDS, pairs, width).masked_fill(~inside, 0)
    position = torch.arange(width).expand(pairs, -1)
    ordinary = inside & (position > 0) & (position < lengths[:, None] - 1)
    words = torch.where(ordinary, position - 1, -1)
    mask = torch.rand(pairs, REGIONS, generator=generator) < 0.8
    mask[:, 0] = True
    images = torch.randn(pairs, REGIONS, REGION_DIM, generator=generator, dtype=dtype)
    return Batch(images, mask, tokens, lengths, words, torch.arange(pairs) // 2)


def make_captioned(images: int, step: int, dtype: torch.dtype = torch.float64) -> Batch:
    """Images with one, three or two captions each, in turn; a multiple of three of them."""
    batch = make_batch(2 * images, step, dtype)
    counts = torch.tensor([1, 3, 2]).repeat(images // 3)
    owner = torch.arange(images).repeat_interleave(counts)
    return Batch(*(part[:images] for part in batch[:2]), *batch[2:5], owner, owner)


def make_chosen(images: int, step: int, dtype: torch.dtype = torch.float64) -> Batch:
    """`make_captioned` where the last of three captions is another image's, a chosen negative.

    Images come in groups, images i and i + 4 in one, to which other processes belong too.
    """
    batch = make_captioned(images, step, dtype)
    rows = batch.image_ids.clone()
    rows[3::6] = (rows[3::6] + 2) % images
    return batch._replace(image_ids=rows, group_ids=rows % 4)


def own_batch(batch: Batch, rows: list[int]) -> Batch:
    """This process's rows, their captions cut to the longest among them as collation does."""
    images = texts = own_rows(rows)
    owner = batch.text_to_image
    if owner is not None and world_size() > 1:
        texts = slice(
            *torch.searchsorted(owner, torch.tensor([images.start, images.stop])).tolist()
        )
        owner = owner[texts] - images.start
    own = Batch(*(p[images] for p in batch[:2]), *(p[texts] for p in batch[2:6]), owner)
    if batch.group_ids is not None:
        own = own._replace(group_ids=batch.group_ids[texts])
    width = int(own.lengths.max())
    return own._replace(tokens=own.tokens[:, :width], words=own.words[:, :width])


def augmented(rows: list[int], make: Any = make_batch) -> Any:
    """Own mask, tokens and lengths after augmentation."""
    batch = own_batch(make(sum(rows), 0), rows)
    generator = torch.Generator().manual_seed(7)
    kept = augment_share(make_model(), batch, BatchShare.of(batch), generator)
    return kept.image_mask, kept.tokens, kept.lengths, kept.images


def trained(
    rows: list[int], objective: str, dtype: torch.dtype, make: Any = make_batch, memory: int = 0
) -> Any:
    """Losses, gradients before clipping, parameters and buffers of a few steps of training.

    A memory of 10 rows stores others than the embeddings.
    """
    model = synchronize_batch_norm(make_model(dtype=dtype))
    alone = world_size() == 1
    parallel = model if alone else DistributedDataParallel(model, broadcast_buffers=False)
    # A bias before BatchNorm has no gradient but rounding, which AdamW would make a full step of.
    kind = torch.optim.AdamW if dtype == torch.float64 else torch.optim.SGD
    optimizer = kind(model.parameter_groups(0.01, 1e-4))
    triplet, pair = objective.split("/")
    loss_of = WarmedLoss(Objective(triplet, pair), WarmupSchedule(2, 1), "reference", None, memory)
    losses, gradients = [], []
    for step in range(5):
        batch = own_batch(make(sum(rows), step, dtype), rows)
        share = BatchShare.of(batch)
        batch = augment_share(model, batch, share, torch.Generator().manual_seed(step))
        embeddings = parallel(batch)
        stored = [side.detach().flip(1) for side in embeddings] if memory == 10 else None
        relation = batch.relation(True)
        loss, *_ = joint_loss(loss_of, None, None, embeddings, share, step, 0, relation, stored)
        optimizer.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        losses.append(loss.item())
    parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
    statistics = {n: b for n, b in model.named_buffers() if "running" in n}
    return torch.tensor(losses), torch.stack(gradients), parameters, statistics


def accumulated(rows: list[int], chunks: int) -> Any:
    """Loss and gradient of a batch, encoded in chunks where there are more than one."""
    model = make_model(batch_norm=False)
    alone = world_size() == 1
    parallel = model if alone else DistributedDataParallel(model, broadcast_buffers=False)
    loss_of = DistributedGOALLoss("nca/sigmoid_ms", backend="reference")
    batch = own_batch(make_batch(sum(rows), 0), rows)
    value = backward_in_chunks(
        parallel,
        split_batch(batch, chunks),
        lambda images, texts: loss_of(images, texts, batch.image_ids),
        **({} if alone else {"no_sync": parallel.no_sync}),
    )
    return value.item(), torch.cat([p.grad.flatten() for p in model.parameters()])
