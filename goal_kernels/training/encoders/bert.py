"""The text encoder on a BERT."""

from __future__ import annotations

from typing import Any

from torch import nn

from goal_kernels.training.data import TextBatch
from goal_kernels.training.encoders.base import Encoder, Rows
from goal_kernels.training.options import DataSizes, TextOptions, choose
from goal_kernels.training.pooling import make_pooling
from goal_kernels.training.transformers_models import (
    has_weights,
    load_folder,
    read_config,
    transformers,
)

RANDOM = "random:"  # what names a size instead of a folder
POOLER = ("pooler.",)  # of the published weights: nothing here reads it

# Layers and width of the published BERTs; 64 channels a head, feed-forward of 4 widths.
SIZES = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
HEAD_WIDTH = 64


class BertEncoder(Encoder):
    """Encodes wordpieces: BERT, a linear projection of each piece, pooling over all of them.

    Equals: normalize(pool(linear(bert(tokens, mask)))) with mask = tokens != 0; the special tokens
    are pooled too.
    Source: VSE-infinity's BERT encoder.

    Args:
        options: of the text encoder; `bert` says which one, and `lr_scale` 0 that it is frozen: in
            evaluation mode, without a graph.
        sizes: gives the number of ids.
        embed_dim: width of the joint space.
        pretrained: read the weights; not needed when a checkpoint follows.
    """

    def __init__(
        self, options: TextOptions, sizes: DataSizes, embed_dim: int, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.bert = make_bert(options.bert, sizes.vocabulary_size, pretrained)
        self.linear = nn.Linear(self.bert.config.hidden_size, embed_dim)
        self.pool = make_pooling("model.text.pooling", options.pooling, ordered=True)
        self.normalize = options.normalize
        self.lr_scales = {"bert": options.lr_scale}
        self.frozen = options.lr_scale == 0
        self.bert.requires_grad_(not self.frozen)
        if options.word_vectors is not None:
            raise ValueError(
                "model.text.word_vectors: expected null, a BERT has vectors of its own; "
                "use them with --model.text.kind bigru"
            )

    def train(self, mode: bool = True) -> BertEncoder:
        """Train what is not frozen."""
        super().train(mode)
        if self.frozen:
            self.bert.eval()
        return self

    def rows(self, batch: TextBatch) -> Rows:
        """Encode [B, L] tokens: [B, L, embed_dim].

        Raises: ValueError when captions are longer than the BERT can read.
        """
        longest = self.bert.config.max_position_embeddings
        if batch.tokens.shape[1] > longest:
            raise ValueError(
                f"tokens: expected at most {longest} a caption, which is all this BERT reads, got "
                f"{batch.tokens.shape[1]}; shorten the captions"
            )
        mask = batch.tokens != 0
        states = self.bert(input_ids=batch.tokens, attention_mask=mask.long()).last_hidden_state
        return Rows(self.linear(states), mask)


def make_bert(name: str | None, vocabulary_size: int, pretrained: bool) -> Any:
    """A BertModel without pooler.

    Args:
        name: folder with config.json and weights, or "random:SIZE".
        vocabulary_size: ids that captions may hold.
        pretrained: read the weights of the folder.
    Raises: ValueError, MissingPackageError naming the option and the remedy.
    """
    argument = "model.text.bert"
    if name is None:
        raise ValueError(
            f"{argument}: expected a local folder with config.json and weights, or "
            f"{RANDOM}SIZE with SIZE one of {', '.join(SIZES)}, got none"
        )
    package = transformers(argument)
    if name.startswith(RANDOM):
        layers, width = choose(argument, name.removeprefix(RANDOM), SIZES)
        config = package.BertConfig(
            vocab_size=vocabulary_size,
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=width // HEAD_WIDTH,
            intermediate_size=4 * width,
        )
        return package.BertModel(config, add_pooling_layer=False)
    config = read_config(name, argument)
    if config.model_type != "bert":
        raise ValueError(
            f"{argument}: expected the folder of a BERT, got {name} with a {config.model_type}"
        )
    if vocabulary_size > config.vocab_size:
        raise ValueError(
            f"{argument}: {name} knows {config.vocab_size} token ids and the data has "
            f"{vocabulary_size}; give the tokenizer of the same folder: --data.tokenizer {name}"
        )
    if not pretrained:
        return package.BertModel(config, add_pooling_layer=False)
    if not has_weights(name):
        raise ValueError(
            f"{argument}: expected weights beside {name}/config.json (model.safetensors or "
            f"pytorch_model.bin), found none; for random weights give {RANDOM}SIZE"
        )
    return load_folder(package.BertModel, name, config, argument, POOLER, add_pooling_layer=False)
