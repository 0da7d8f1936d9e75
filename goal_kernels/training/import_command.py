"""`goal-kernels import-checkpoint`: published models for our own commands."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

DESCRIPTION = """\
Write the model in a checkpoint of VSE-infinity (regions or grids, BiGRU or BERT), or of VSE++ on
precomputed features, as a checkpoint of this program, to be evaluated or to start from.

The file is not run, only its tensors and options are read. Captions are split into words as the
Penn Treebank does and the published code did, unless the vocabulary names another rule; a GRU
model's vocabulary is written beside the checkpoint with the rule in it.

  goal-kernels import-checkpoint model_best.pth model.ckpt --tokenizer bert-base-uncased
  goal-kernels import-checkpoint model_best.pth model.ckpt --vocabulary f30k_precomp_vocab.json
"""
WRITTEN_BY = "2.0.0"  # layout of the checkpoint, by the version of Lightning that introduced it


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("checkpoint", type=Path, help="file that the published code saved")
    parser.add_argument("out", type=Path, help="checkpoint to write; it must not exist")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "--tokenizer", type=Path, help="folder of the BERT it was trained with: vocabulary, config"
    )
    chosen.add_argument("--vocabulary", type=Path, help="vocabulary JSON of a GRU model")


def run_import(options: argparse.Namespace) -> int:
    """Run the command; 0. Raises: ValueError, OSError."""
    import torch

    from goal_kernels.data.files import replacing
    from goal_kernels.data.vocabulary import TREEBANK, Vocabulary
    from goal_kernels.training.published_checkpoints import load_published
    from goal_kernels.training.tokenizers import Tokenizer, WordPieceTokenizer, WordTokenizer

    words = options.out.with_suffix(".vocab.json")
    for path in (options.out, words):
        if path.exists():
            raise FileExistsError(f"out: expected a new file, {path} exists; remove it first")
    bert = str(options.tokenizer) if options.tokenizer is not None else None
    tokenizer: Tokenizer
    if options.tokenizer is not None:
        tokenizer = WordPieceTokenizer(options.tokenizer)
        data = {"tokenizer": str(options.tokenizer.resolve())}
    else:
        tokenizer = WordTokenizer(Vocabulary.load(options.vocabulary, TREEBANK))
        data = {"vocabulary": str(words.resolve())}
    model = load_published(options.checkpoint, tokenizer, bert)
    described = {
        "image": asdict(model.image),
        "text": asdict(model.text),
        "sizes": asdict(model.sizes),
        "embed_dim": model.embed_dim,
    }
    content = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "hyper_parameters": described,
        "datamodule_hyper_parameters": data,
        "record": {"tokenizer": tokenizer.identity},
        "pytorch-lightning_version": WRITTEN_BY,
        "epoch": 0,
        "global_step": 0,
    }
    if isinstance(tokenizer, WordTokenizer):
        tokenizer.vocabulary.save(words)
    with replacing(options.out) as temporary:
        torch.save(content, temporary)
    print(f"model       {model.image.kind} images, {model.text.kind} captions")
    if isinstance(tokenizer, WordTokenizer):
        print(f"vocabulary  {words}, {tokenizer.identity}")
    print(f"checkpoint  {options.out}")
    return 0
