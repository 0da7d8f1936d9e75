"""`NegativeMemory`: earlier batches as extra negatives."""

from __future__ import annotations

import pytest
import torch
from cases import paired_batch

import goal_kernels as gk
from goal_kernels.constants import NO_ID


def batches(count: int, pairs: int = 6):
    """Pairs, and the ids of their images; the first batch comes again as the last."""
    whole = paired_batch(pairs * (count - 1), 5)
    parts = [[x[pairs * k : pairs * (k + 1)] for x in whole] for k in range(count - 1)]
    ids = [torch.arange(pairs) + pairs * k for k in range(count - 1)]
    return [*zip(parts, ids, strict=True), (parts[0], ids[0])]


def test_a_call_equals_extra_texts_and_images() -> None:
    criterion = gk.GOALLoss("nca/sigmoid_ms", return_stats=True)
    memory = gk.NegativeMemory(9)
    images, texts, kept = [], [], []
    for (image, text), ids in batches(4):
        x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
        loss, stats = memory(criterion, x, y, ids)
        loss.backward()
        old = [torch.cat(rows)[-9:] if rows else image[:0] for rows in (images, texts)]
        old_ids = torch.cat(kept)[-9:] if kept else ids[:0]
        a, b = image.clone().requires_grad_(), text.clone().requires_grad_()
        expected, seen = gk.goal_loss(
            torch.cat([a, old[0]]),
            torch.cat([b, old[1]]),
            "nca/sigmoid_ms",
            text_to_image=[*range(6), *[-1] * len(old_ids)],
            image_ids=torch.cat([ids, old_ids]),
            text_ids=torch.cat([ids, old_ids]),
            return_stats=True,
        )
        expected.backward()
        assert loss.item() == expected.item()
        assert torch.equal(x.grad, a.grad)
        assert torch.equal(y.grad, b.grad)
        assert torch.equal(stats.hardest_text, seen.hardest_text)
        images.append(image), texts.append(text), kept.append(ids)
    assert len(memory) == 9
    assert stats.hardest_text[:6].max() >= 6  # stored texts are mined


def test_a_stored_image_is_no_negative_of_itself() -> None:
    """The same batch twice: with ids the stored copies change nothing."""
    (image, text), ids = batches(2)[0]
    memory, criterion = gk.NegativeMemory(100), gk.GOALLoss("hinge/constant")
    first = memory(criterion, image, text, ids)
    assert memory(criterion, image, text, ids) == first
    without = gk.NegativeMemory(100)
    without(criterion, image, text)
    assert without(criterion, image, text) > first


def test_several_texts_an_image() -> None:
    (image, text), _ = batches(2)[0]
    memory, criterion = gk.NegativeMemory(4), gk.GOALLoss("nca/linear")
    owner = torch.tensor([0, 0, 1, 1, -1, 2])
    for _ in range(2):
        memory(criterion, image[:3], text, [0, 1, 2], text_to_image=owner)
    state = memory.state_dict()["_extra_state"]
    assert {name: len(rows) for name, rows in state.items()} == {
        "image": 4, "text": 4, "image_ids": 4, "text_ids": 4,
    }  # fmt: skip
    assert state["text_ids"].tolist() == [1, 1, NO_ID, 2]


def test_exempt_texts_are_those_of_the_batch() -> None:
    """Chosen negatives keep their place beside a limit of false negatives; stored ones do not."""
    (image, text), _ = batches(2)[0]
    text = torch.cat([text, image])  # the last six texts are their image's very copy
    owner = torch.tensor([*range(6), *[-1] * 6])
    criterion = gk.GOALLoss("nca/linear", return_stats=True, false_negative_margin=0.0)
    for exempt in (None, owner < 0):
        memory = gk.NegativeMemory(20)
        for call in range(2):
            _, stats = memory(criterion, image, text, text_to_image=owner, exempt_texts=exempt)
            hardest = stats.hardest_text[:6]
            assert (hardest < len(text)).all() or (exempt is None and call == 1)
            assert torch.equal(hardest, torch.arange(6, 12)) is (exempt is not None)


def test_a_saved_memory_goes_on(tmp_path) -> None:
    criterion = gk.GOALLoss("nca/sigmoid")
    whole, first = gk.NegativeMemory(8), gk.NegativeMemory(8)
    losses = [whole(criterion, *pair, ids) for pair, ids in batches(4)]
    for pair, ids in batches(4)[:2]:
        first(criterion, *pair, ids)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = gk.NegativeMemory(8)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [second(criterion, *pair, ids) for pair, ids in batches(4)[2:]] == losses[2:]


def test_stored_rows_keep_no_graph_and_no_larger_tensor() -> None:
    memory = gk.NegativeMemory(3)
    image, text = (x.requires_grad_() for x in paired_batch(50, 4))
    memory(gk.GOALLoss("nca/linear"), image, text)
    for rows in memory.get_extra_state().values():
        assert not rows.requires_grad
        assert rows.untyped_storage().nbytes() == rows.numel() * rows.element_size()


def test_mistakes_are_named() -> None:
    criterion = gk.GOALLoss("nca/linear")
    for size, error in ((0, ValueError), (-1, ValueError), (True, TypeError), (2.5, TypeError)):
        with pytest.raises(error, match="size: expected"):
            gk.NegativeMemory(size)
    memory = gk.NegativeMemory(5)
    memory(criterion, *paired_batch(4, 6))
    with pytest.raises(ValueError, match="image_ids: expected no ids as in the calls before"):
        memory(criterion, *paired_batch(4, 6), torch.arange(4))
    with pytest.raises(ValueError, match="image_embeddings: expected width 6 as what is stored"):
        memory(criterion, *paired_batch(4, 3))
    memory.clear()
    memory(criterion, *paired_batch(4, 3), torch.arange(4))
    assert "size=5, stored=4" in repr(memory)


def test_other_rows_are_stored_than_those_of_the_batch() -> None:
    image, text = paired_batch(6, 4, torch.float64)
    slow = -image.float(), 2 * text.float()
    memory = gk.NegativeMemory(6)
    criterion = gk.GOALLoss("constant/constant")
    memory(criterion, image.requires_grad_(), text, stored=slow)
    state = memory.get_extra_state()
    assert torch.equal(state["image"], slow[0].double())
    assert torch.equal(state["text"], slow[1].double())
    with pytest.raises(ValueError, match=r"stored: expected the shapes .* got \[5, 4\]"):
        memory(criterion, image, text, stored=(slow[0][:5], slow[1]))
