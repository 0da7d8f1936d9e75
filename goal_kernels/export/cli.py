"""The command line of `goal-kernels export`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goal_kernels.extras import importing, require

if TYPE_CHECKING:
    from goal_kernels.evaluate.checkpoints import OpenRun

DESCRIPTION = """\
Write a trained model as files that torch alone can run, without goal_kernels.

  images.pt2  texts.pt2    the encoders as torch.export programs, for batches of any size
  weights.safetensors      the weights by the names of the checkpoint, for other frameworks
  model.json               shapes, words and their numbers, how pictures become tensors
  goal_encoder.py  goal_words.py    the loader: `from goal_encoder import load`

Of a model that scores pairs the dual encoder is written. What was written is read back and compared
with the model on images and captions of the test split.
"""

EPILOG = """\
Examples
  goal-kernels export runs/goalworld --output exported
  goal-kernels export runs/f30k --output exported --data.folder data/f30k
"""

COMPARED = 16  # images and captions
CLOSE = 1e-4  # of components of embeddings; padding is computed too, so sums are rounded otherwise
SHORTEST = 32  # token ids that captions can have at least


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options and the help of `export`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder or checkpoint")
    parser.add_argument("--output", type=Path, metavar="DIR", required=True, help="a new folder")
    parser.add_argument(
        "--data.folder", dest="folder", metavar="DIR", help="other data than the run's"
    )


def run_export(args: argparse.Namespace) -> int:
    """Write the files, compare, say what there is; 0.

    Raises: FileNotFoundError, FileExistsError, ValueError, CheckpointError.
    """
    if args.output.exists():
        raise FileExistsError(f"--output: {args.output} is there already; give a new folder")
    require("export", "train", "safetensors")
    with importing():
        from goal_kernels.evaluate.checkpoints import open_run
    given = {} if args.folder is None else {"folder": args.folder}
    run = open_run(args.run, given, "cpu")
    partial = args.output.with_name(f".{args.output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        worst = _write(run, partial)
        partial.rename(args.output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"exported {args.output}: embeddings differ from the run's by {worst:.1e} at most")
    model = run.module.model
    if model.scorer is not None or model.fusion is not None:
        print("the model scores pairs; what is exported is its dual encoder alone")
    print(f"use it   import sys; sys.path.insert(0, {str(args.output)!r})")
    print(f"         from goal_encoder import load; model = load({str(args.output)!r})")
    return 0


def _write(run: OpenRun, folder: Path) -> float:
    """Write all files; the largest difference of what they compute. Raises: ValueError."""
    import torch
    from safetensors.torch import save_file

    from goal_kernels.export import traceable

    model, facts = run.module.model, _facts(run)
    shape, longest = facts["images"]["shape"], facts["tokenizer"]["longest"]
    programs = {
        "images": traceable.export_images(model, shape),
        "texts": traceable.export_texts(model, longest),
    }
    for side, program in programs.items():
        torch.export.save(program, folder / f"{side}.pt2")
    # The format has no tensors that share memory, and no strides.
    weights = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    save_file(weights, folder / "weights.safetensors", metadata={"format": "pt"})
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")
    if facts["tokenizer"]["kind"] == "wordpieces":
        tokenizer: Any = run.data.tokenizer
        tokenizer._tokenizer.save(str(folder / "tokenizer.json"))
    own = Path(__file__).parent
    shutil.copy(own / "goal_encoder.py", folder)
    shutil.copy(own.parent / "data" / "words.py", folder / "goal_words.py")
    return _difference(run, folder, longest)


def _facts(run: OpenRun) -> dict[str, Any]:
    """What the loader must know."""
    from goal_kernels import __version__
    from goal_kernels.data.split import PrecomputedSplit
    from goal_kernels.training.data import TextDataset
    from goal_kernels.training.images import NORMALIZATIONS, evaluation_centre
    from goal_kernels.training.tokenizers import LONGEST, WordTokenizer

    data, split = run.data, run.data.split("train")
    images: dict[str, Any]
    if isinstance(split, PrecomputedSplit):
        images = {"kind": "regions", "shape": list(split.features.shape[1:])}
    else:
        side, kind = data.pictures.side, NORMALIZATIONS[data.pictures.normalization]
        centre = evaluation_centre(data.pictures)
        images = {"kind": "pictures", "shape": [3, side, side], "centre": centre, **kind._asdict()}
    captions = [
        TextDataset(data.split(name), data.tokenizer) for name in ("train", data.test_split)
    ]
    found = max(int((texts.ends[1:] - texts.ends[:-1]).max()) for texts in captions)
    tokenizer: dict[str, Any] = {
        "kind": "wordpieces",
        "longest": min(LONGEST, max(found, SHORTEST)),
    }
    if isinstance(data.tokenizer, WordTokenizer):
        words = data.tokenizer.vocabulary
        ids = {word: number for number, word in enumerate(words.words)}
        most = min(data.tokenizer.max_words + 2, max(found, SHORTEST))
        tokenizer = {"kind": "words", "rule": words.rule, "ids": ids, "longest": most}
    return {
        "written_by": f"goal_kernels {__version__}",
        "embed_dim": run.module.model.embed_dim,
        "objective": run.module.objective.name,
        "images": images,
        "tokenizer": tokenizer,
    }


def _difference(run: OpenRun, folder: Path, longest: int) -> float:
    """The largest difference between embeddings of the files and of the run's model.

    Raises: ValueError when it is more than rounding.
    """
    import torch

    from goal_kernels.training.scoring import lengthened

    model, worst = run.module.model, 0.0
    images, texts = (next(iter(loader)) for loader in run.data.test_dataloader())
    images = type(images)(*(None if part is None else part[:COMPARED] for part in images))
    texts = texts.rows(torch.arange(min(COMPARED, len(texts.lengths)), device="cpu"))
    mask = images.image_mask
    if mask is None:
        mask = torch.ones(images.images.shape[:2], dtype=torch.bool, device="cpu")
    tokens = lengthened(texts.tokens[:, :, None], longest)[:, :, 0]
    with torch.no_grad():
        for side, given, wanted in (
            ("images", (images.images, mask), model.encode_images(images)),
            ("texts", (tokens, texts.lengths), model.encode_texts(texts)),
        ):
            made = torch.export.load(folder / f"{side}.pt2").module()(*given)
            worst = max(worst, float((made - wanted).abs().max()))
    if not worst <= CLOSE:
        raise ValueError(
            f"the exported model computes other embeddings, {worst:.1e} apart; nothing was written"
        )
    return worst
