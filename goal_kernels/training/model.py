"""The dual encoder: two encoders, one embedding space; scores and matching of pairs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels import notices
from goal_kernels.training.augmentation import word_dropout
from goal_kernels.training.data import Batch, ImageBatch, TextBatch
from goal_kernels.training.encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from goal_kernels.training.encoders.base import Encoder, rows_by_length
from goal_kernels.training.encoders.recurrent import Coverage, RecurrentEncoder
from goal_kernels.training.fusion import Fusion
from goal_kernels.training.options import (
    DataSizes,
    FusionOptions,
    ImageOptions,
    ScoreOptions,
    TextOptions,
    choose,
)
from goal_kernels.training.rankings import PairScores
from goal_kernels.training.scoring import Scorer, TokenHead, TokenSet, lengthened


class VSE(nn.Module):
    """Visual-semantic embedding of images and captions, plain torch.

    Args:
        image: options of the image encoder.
        text: options of the text encoder.
        sizes: what must be known of the data.
        embed_dim: width of the joint space.
        pretrained: read the weights that the options name; False when a checkpoint's follow.
        scores: scores of regions and words beside the embeddings; None: there are none.
        fusion: layers and a head that match pairs; None: there are none.
    Raises: ValueError naming the option, such as `model.image.kind`, that cannot be had.

    Attributes:
        scorer: None without scores.
        fusion: None without fusion.
    """

    def __init__(
        self,
        image: ImageOptions,
        text: TextOptions,
        sizes: DataSizes,
        embed_dim: int,
        pretrained: bool = True,
        scores: ScoreOptions | None = None,
        fusion: FusionOptions | None = None,
    ) -> None:
        super().__init__()
        if embed_dim < 1:
            raise ValueError(f"model.embed_dim: expected at least 1, got {embed_dim}")
        self.image, self.text, self.sizes, self.embed_dim = image, text, sizes, embed_dim
        make_image = choose("model.image.kind", image.kind, IMAGE_ENCODERS)
        make_text = choose("model.text.kind", text.kind, TEXT_ENCODERS)
        self.image_encoder = make_image(image, sizes, embed_dim, pretrained)
        self.text_encoder = make_text(text, sizes, embed_dim, pretrained)
        self.scorer: Scorer | None = None
        if scores is not None and scores.kind is not None:
            self.scorer = Scorer(scores)
            self.image_head = TokenHead(embed_dim, scores, "regions")
            self.text_head = TokenHead(embed_dim, scores, "words")
        self.fusion: Fusion | None = None
        if fusion is not None and fusion.layers:
            self.fusion = Fusion(embed_dim, fusion, self.scorer)

    def augment(self, batch: Batch, generator: torch.Generator, images: int | None = None) -> Batch:
        """The batch with parts of images and words dropped at random; images and ids untouched.

        Args: images: how many masks are drawn for, the batch's own when None; of the images only
            the sizes are read.
        """
        if self.text.drop_probability > 0:
            texts = word_dropout(batch.text_part, self.sizes, self.text.drop_probability, generator)
            batch = batch._replace(**texts._asdict())
        rows = len(batch.images) if images is None else images
        masked = self.image_encoder.augment(batch.image_part, rows, generator)
        if masked.image_mask is not batch.image_mask:
            batch = batch._replace(image_mask=masked.image_mask)
        return batch

    def encode_images(self, batch: ImageBatch) -> Tensor:
        """Embed images: [B, embed_dim] float32, unit rows unless `normalize` is off."""
        return self.image_side(batch)[0]

    def encode_texts(self, batch: TextBatch) -> Tensor:
        """Embed captions: [B, embed_dim] float32, unit rows unless `normalize` is off."""
        return self.text_side(batch)[0]

    def image_side(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """Embeddings [B, embed_dim] of images; then values and weights of the `TokenSet` that is
        scored, if any, and of the one that is fused, if any."""
        return self._side(self.image_encoder, batch, "regions")

    def text_side(self, batch: TextBatch) -> tuple[Tensor, ...]:
        """Of captions what `image_side` gives of images.

        Captions of very different lengths pass through the encoder in groups.
        """
        groups = rows_by_length(batch.lengths)
        if len(groups) == 1:
            return self._side(self.text_encoder, batch, "words")
        parts = [self._side(self.text_encoder, batch.rows(rows), "words") for rows in groups]
        order, longest = torch.cat(groups).argsort(), batch.tokens.shape[1]
        embeddings, *tokens = zip(*parts, strict=True)
        padded = [torch.cat([lengthened(part, longest) for part in side]) for side in tokens]
        return tuple(side[order] for side in (torch.cat(embeddings), *padded))

    def _side(
        self, encoder: Encoder, batch: ImageBatch | TextBatch, side: str
    ) -> tuple[Tensor, ...]:
        if self.scorer is None and self.fusion is None:
            return (encoder(batch),)
        rows = encoder.rows(batch)
        tokens: tuple[Tensor, ...] = ()
        if self.scorer is not None:
            tokens = (self.image_head if side == "regions" else self.text_head)(rows)
        fused = () if self.fusion is None else self.fusion.tokens(side, rows, tokens)
        return encoder.pooled(rows), *tokens, *fused

    def pair_scores(
        self, images: Sequence[Tensor], texts: Sequence[Tensor]
    ) -> dict[str, PairScores]:
        """What ranks pairs of an encoded set, "scores" and "matching"; empty for a dual encoder.

        Args: images, texts: of all of the set, as `image_side` and `text_side` give them.
        """
        scorers = {"scores": self.scorer, "matching": self.fusion}
        own = {name: scorer for name, scorer in scorers.items() if scorer is not None}
        return {
            name: PairScores(scorer, TokenSet(*images[at:][:2]), TokenSet(*texts[at:][:2]))
            for at, (name, scorer) in zip((1, 3), own.items(), strict=False)
        }

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """Embed a batch.

        Returns: image_embeddings and text_embeddings, [N, embed_dim] and [M, embed_dim] float32,
            unit rows unless `normalize` is off; with scores, values and weights of the images'
            `TokenSet` and of the captions' behind them; then the same of a fusion.
        """
        images, *image_tokens = self.image_side(batch.image_part)
        texts, *text_tokens = self.text_side(batch.text_part)
        kinds = (slice(0, 2), slice(2, 4))
        tokens = [side[kind] for kind in kinds for side in (image_tokens, text_tokens)]
        return images, texts, *(token for pair in tokens for token in pair)

    def set_trainable(self, fixed_blocks: int) -> None:
        """Freeze the first blocks of the image backbone, and let all others train.

        Args:
            fixed_blocks: 0 (all train) to 4 (none does).
        Raises: ValueError when it is out of range or the image encoder has no backbone.
        """
        self.image_encoder.set_fixed_blocks(fixed_blocks)

    def load_word_vectors(self, words: Sequence[str]) -> Coverage | None:
        """Start word vectors from the file `model.text.word_vectors`; call it before training.

        Args:
            words: the word of each token id, `Vocabulary.words`.
        Returns: how many words the file has; None when the options name no file.
        """
        if isinstance(self.text_encoder, RecurrentEncoder):
            return self.text_encoder.load_word_vectors(words)
        return None

    def parameter_groups(
        self, lr: float, weight_decay: float, no_decay_on_norm_and_bias: bool = False
    ) -> list[dict[str, Any]]:
        """Groups of all parameters for an optimiser, frozen ones included.

        Args:
            lr: learning rate; a backbone's and a BERT's are scaled by their `lr_scale`.
            weight_decay: of every group.
            no_decay_on_norm_and_bias: leave out vectors and numbers, which published code decays.
        Returns: dicts with "params", "lr" and "weight_decay", and "name" when there are several.
        """
        scales = {
            f"{side}.{part}": scale
            for side in ("image_encoder", "text_encoder")
            for part, scale in getattr(self, side).lr_scales.items()
        }
        groups: dict[tuple[str, bool], dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            part = next((part for part in scales if name.startswith(part + ".")), "rest")
            decays = not (no_decay_on_norm_and_bias and parameter.ndim < 2)
            group = groups.setdefault(
                (part, decays),
                {
                    "params": [],
                    "lr": lr * scales.get(part, 1.0),
                    "weight_decay": weight_decay if decays else 0.0,
                    "name": part if decays else f"{part}, no decay",
                },
            )
            group["params"].append(parameter)
        if len(groups) == 1:  # without a name monitors call it by the optimiser's
            del group["name"]
        return list(groups.values())


def build_model(
    image: ImageOptions,
    text: TextOptions,
    sizes: DataSizes,
    embed_dim: int,
    pretrained: bool = True,
    scores: ScoreOptions | None = None,
    fusion: FusionOptions | None = None,
) -> VSE:
    """The model that the options describe; arguments and errors are those of `VSE`."""
    model = VSE(image, text, sizes, embed_dim, pretrained, scores, fusion)
    if model.scorer is not None or not (image.normalize and text.normalize):
        notices.expect("length")  # as in VSE0; scores are no cosines
    return model
