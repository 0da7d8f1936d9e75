"""The Lightning shell: seeding, resuming, collapse warning, learning rate, evaluation."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

pl = pytest.importorskip("pytorch_lightning")

from lightning_cases import make_module, make_trainer, parameters  # noqa: E402

from goal_kernels import functional, notices  # noqa: E402
from goal_kernels.data import TruthRelation, load_split, write_split  # noqa: E402
from goal_kernels.distributed import gather_pairs  # noqa: E402
from goal_kernels.training.data_module import RetrievalDataModule  # noqa: E402
from goal_kernels.training.evaluation import evaluate, read_oracle  # noqa: E402
from goal_kernels.training.options import ImageOptions, TextOptions  # noqa: E402

NO_DROPOUT = ImageOptions(drop_probability=0.0)
NO_WORD_DROPOUT = TextOptions(word_dim=8, drop_probability=0.0)


@pytest.fixture
def data(folder: Path) -> RetrievalDataModule:
    return RetrievalDataModule(str(folder), batch_size=12)


def test_same_seed_same_run(data: RetrievalDataModule) -> None:
    results = []
    for _ in range(2):
        module = make_module(data, warmup_steps=2)
        make_trainer(2).fit(module, datamodule=data)
        results.append(parameters(module))
    assert torch.equal(*results)


def test_a_resumed_run_equals_an_uninterrupted_one(
    data: RetrievalDataModule, tmp_path: Path
) -> None:
    class Interruption(pl.Callback):
        def on_train_epoch_end(self, trainer, _) -> None:
            trainer.save_checkpoint(tmp_path / "half.ckpt")
            trainer.should_stop = True

    options = {"warmup_steps": 6, "lr_drop_at": 0.5}
    whole = make_module(data, **options)
    make_trainer(3).fit(whole, datamodule=data)

    first = make_module(data, **options)
    make_trainer(3, callbacks=[Interruption()]).fit(first, datamodule=data)
    assert not torch.equal(parameters(whole), parameters(first))
    torch.rand(17)  # the state of the global generator must not matter
    second = make_module(data, **options)
    make_trainer(3).fit(second, datamodule=data, ckpt_path=str(tmp_path / "half.ckpt"))
    assert torch.equal(parameters(whole), parameters(second))


def test_rows_that_are_long_on_purpose_are_no_news(data: RetrievalDataModule, monkeypatch) -> None:
    """The driver has no `normalize=True` to advise who turned its `normalize` off (VSE0)."""

    def heard(**options) -> list[str]:
        monkeypatch.setattr(notices, "_given", set())
        monkeypatch.setattr(functional, "similarity_watch", notices.SimilarityWatch())
        module = make_module(data, **options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            module.loss(gather_pairs(*torch.full((2, 4, 3), 9.0)), 0)
        return [str(w.message) for w in caught if "unit length" in str(w.message)]

    assert len(heard()) == 1
    assert not heard(image=ImageOptions(normalize=False))
    assert not heard(text=TextOptions(word_dim=8, normalize=False))


class Constant(nn.Module):
    """A model whose embeddings are all equal, whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.tensor([0.6, 0.8]))

    def augment(self, batch, generator):
        return batch

    def parameter_groups(self, lr, weight_decay):
        return [{"params": [self.vector], "lr": lr, "weight_decay": weight_decay}]

    def forward(self, batch):
        rows = self.vector.expand(len(batch.image_ids), -1)
        return rows, rows


def test_collapse_is_reported_once_an_epoch(
    data: RetrievalDataModule, recwarn: pytest.WarningsRecorder
) -> None:
    module = make_module(data)
    module.model = Constant()
    make_trainer(2, limit_val_batches=0).fit(module, datamodule=data)
    messages = [str(w.message) for w in recwarn if "COLLAPSED" in str(w.message)]
    assert len(messages) == 2
    assert "in 4 of 4 steps of epoch 1" in messages[0]
    assert "--model.warmup_steps" in messages[0]


def test_a_healthy_run_does_not_warn(
    data: RetrievalDataModule, recwarn: pytest.WarningsRecorder
) -> None:
    make_trainer(2).fit(make_module(data, warmup_steps=8), datamodule=data)
    assert not [w for w in recwarn if "COLLAPSED" in str(w.message)]


def test_learning_rate_drops_once_at_the_given_fraction(data: RetrievalDataModule) -> None:
    seen: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, *_) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = make_module(data, lr_drop_at=0.5)
    make_trainer(2, callbacks=[Watch()], limit_val_batches=0).fit(module, datamodule=data)
    assert seen == pytest.approx([0.01] * 4 + [0.001] * 4)


@pytest.mark.parametrize(("mask", "loss"), [(True, 0.0), (False, 2 * 12 * 0.2)])
def test_masking_of_same_image_captions(data: RetrievalDataModule, mask: bool, loss: float) -> None:
    ids = torch.arange(12) // 2
    batch = next(iter(data.train_dataloader()))._replace(image_ids=ids)
    module = make_module(data, mask_same_image=mask, image=NO_DROPOUT, text=NO_WORD_DROPOUT)
    # Both captions of an image have its very embedding: unmasked, each is the other's negative.
    same = torch.eye(6)[ids].requires_grad_()
    module.model.forward = lambda _: (same, same)
    trainer = make_trainer(1, limit_val_batches=0)
    trainer.fit(module, train_dataloaders=DataLoader([batch], batch_size=None))
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss)


def test_evaluation_of_a_truncated_set_keeps_what_belongs_together() -> None:
    images = torch.eye(4)[:3]
    rows = torch.tensor([0, 0, 1, 3])  # image 2 has no caption here, image 3 was not encoded
    evaluation = evaluate(images, torch.eye(4)[rows], rows)
    assert len(evaluation.image_embeddings) == 2
    assert evaluation.image_of_caption.tolist() == [0, 0, 1]
    assert evaluation.metrics["rsum"] == pytest.approx(600)


def test_oracle_is_optional(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_split(tmp_path, name, np.eye(2), ["a", "b"])
    train, test = (load_split(tmp_path, name) for name in ("train", "test"))
    assert read_oracle(test) is None
    (tmp_path / "oracle.json").write_text('{"test": {"rsum": 400.0}}')
    assert read_oracle(test) == {"rsum": 400.0}
    assert read_oracle(train) is None


def test_oracle_counts_groups_as_evaluation_does(tmp_path: Path) -> None:
    """The record beside the data does not know them; without truth there is no ceiling."""
    (tmp_path / "oracle.json").write_text('{"test": {"rsum": 400.0}}')
    facts = tmp_path, "test", np.eye(4), list("abcd")
    write_split(*facts, groups=[7, 8, 7, 8])
    assert read_oracle(load_split(tmp_path, "test")) is None
    truth = TruthRelation.from_rows([np.arange(4)] * 4, 4)
    write_split(*facts, groups=[7, 8, 7, 8], truth=truth)
    assert read_oracle(load_split(tmp_path, "test"))["t2i"]["R@1"] == 50


def test_word_vectors_are_there_before_the_first_step(
    data: RetrievalDataModule, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "vectors.txt").write_text("red 7 7 7 7 7 7 7 7\nblue 8 8 8 8 8 8 8 8\n")
    text = TextOptions(word_dim=8, word_vectors=str(tmp_path / "vectors.txt"))
    module = make_module(data, text=text)
    seen: list[torch.Tensor] = []

    class Watch(pl.Callback):
        def on_train_start(self, *_) -> None:
            seen.append(module.model.text_encoder.embedding.weight.detach().clone())

    make_trainer(1, callbacks=[Watch()], limit_val_batches=0).fit(module, datamodule=data)
    red = data.vocabulary.words.index("red")
    assert (seen[0][red] == 7).all()
    assert f"word vectors: 2 of {len(data.vocabulary) - 4} words found" in capsys.readouterr().out
