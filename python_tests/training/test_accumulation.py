"""Two passes over chunks against one pass over the batch, and what each pass may keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from goal_kernels import GOALLoss
from goal_kernels.training.accumulation import ChunkedEncoding, backward_in_chunks

PAIRS, WIDTH = 12, 6


class Towers(nn.Module):
    """Two small encoders, with dropout or BatchNorm where asked for."""

    def __init__(self, dropout: float = 0.0, batch_norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
        self.image = nn.Sequential(
            nn.Linear(5, 8), norm, nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, WIDTH)
        )
        self.text = nn.Sequential(nn.Linear(4, WIDTH), nn.Dropout(dropout))

    def forward(self, chunk: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.image(chunk[0]), self.text(chunk[1])


def make_pairs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(PAIRS, n, generator=generator, dtype=dtype) for n in (5, 4))


def cut(pairs: tuple[Tensor, Tensor], chunks: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(side.tensor_split(chunks) for side in pairs), strict=True))


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


LOSS = GOALLoss("nca/sigmoid_ms", normalize=True, backend="reference")


@pytest.mark.parametrize("chunks", [1, 2, 5, PAIRS])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_gradient_is_that_of_the_whole_batch(chunks: int, dtype: torch.dtype, bound: float) -> None:
    pairs = make_pairs(dtype)
    whole, chunked = Towers().to(dtype), Towers().to(dtype)
    expected = LOSS(*whole(pairs))
    expected.backward()
    value = backward_in_chunks(chunked, cut(pairs, chunks), LOSS)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected.detach(), rtol=bound, atol=bound)
    torch.testing.assert_close(gradient(chunked), gradient(whole), rtol=bound, atol=bound)


def test_small_batches_without_the_common_pool_differ() -> None:
    pairs = make_pairs(torch.float64)
    whole, accumulated = Towers().double(), Towers().double()
    backward_in_chunks(whole, cut(pairs, 3), LOSS)
    for chunk in cut(pairs, 3):
        LOSS(*accumulated(chunk)).backward()
    assert not torch.allclose(gradient(whole), gradient(accumulated), rtol=0.1)


def test_both_passes_draw_the_same_dropout_and_leave_the_generator_where_one_pass_would() -> None:
    pairs, seen = make_pairs(torch.float64), []
    model = Towers(dropout=0.5).double()

    def encode(chunk):
        embeddings = model(chunk)
        seen.append(torch.cat(embeddings).detach())
        return embeddings

    torch.manual_seed(5)
    encoding = ChunkedEncoding(encode, cut(pairs, 3), model)
    LOSS(*encoding.embed()).backward()
    after_first_pass = torch.get_rng_state()
    torch.rand(17)  # what happens in between does not matter
    moved = torch.get_rng_state()
    encoding.backward()
    assert torch.equal(torch.stack(seen[:3]), torch.stack(seen[3:]))
    assert not torch.equal(seen[0] == 0, seen[1] == 0)
    assert torch.equal(torch.get_rng_state(), moved)

    torch.manual_seed(5)
    for chunk in cut(pairs, 3):
        model(chunk)
    assert torch.equal(torch.get_rng_state(), after_first_pass)


def test_batch_norm_is_by_chunk_and_enters_the_running_statistics_once() -> None:
    pairs = make_pairs(torch.float64)
    chunked, plain = Towers(batch_norm=True).double(), Towers(batch_norm=True).double()
    backward_in_chunks(chunked, cut(pairs, 3), LOSS, module=chunked)
    embeddings = [plain(chunk) for chunk in cut(pairs, 3)]
    LOSS(*(torch.cat(side) for side in zip(*embeddings, strict=True))).backward()
    torch.testing.assert_close(gradient(chunked), gradient(plain))
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(chunked.named_buffers())[name], buffer)
    assert chunked.image[1].track_running_stats


def test_activations_of_one_chunk_exist_at_a_time() -> None:
    pairs = make_pairs(torch.float32)

    def most_saved(chunks: int) -> int:
        """Largest number of elements that graphs of the encoders hold at once."""
        model, held, most = Towers(), 0, 0

        class Saved:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal held, most
                self.tensor = tensor
                held += tensor.numel()
                most = max(most, held)

            def __del__(self) -> None:
                nonlocal held
                held -= self.tensor.numel()

        def encode(chunk):
            with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
                return model(chunk)

        backward_in_chunks(encode, cut(pairs, chunks), LOSS)
        assert held == 0
        return most

    weights = 8 * WIDTH  # saved for the input's gradient, whatever the chunk
    assert most_saved(4) - weights <= (most_saved(1) - weights) / 4


def test_a_scale_is_honoured_to_the_last_bit() -> None:
    pairs = make_pairs(torch.float32)
    scaled, plain = Towers(), Towers()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (scaled, plain)]
    value = backward_in_chunks(scaled, cut(pairs, 3), LOSS, scale=scaler.scale)
    expected = backward_in_chunks(plain, cut(pairs, 3), LOSS)
    assert value == expected
    # A power of two only shifts exponents.
    assert torch.equal(gradient(scaled), 1024 * gradient(plain))
    scaler.step(optimizers[0])
    scaler.update()
    optimizers[1].step()
    for one, other in zip(scaled.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_frozen_tower_is_left_alone() -> None:
    pairs = make_pairs(torch.float32)
    model = Towers()
    model.text.requires_grad_(False)
    backward_in_chunks(model, cut(pairs, 3), LOSS)
    assert model.text[0].weight.grad is None
    assert model.image[0].weight.grad.abs().sum() > 0


def test_misuse_is_explained() -> None:
    with pytest.raises(ValueError, match="chunks: expected at least one"):
        ChunkedEncoding(Towers(), [])
    with pytest.raises(RuntimeError, match="embed"):
        ChunkedEncoding(Towers(), [make_pairs(torch.float32)]).backward()
