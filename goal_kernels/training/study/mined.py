"""How many of the mined negatives are true, where a dataset knows what is true of what."""

from __future__ import annotations

import numpy as np
import torch

from goal_kernels.training.data import TextDataset, collate_images, collate_texts, images_of
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.lightning_module import RetrievalModule

BATCHES = 32  # of training pairs, the same ones for every run


@torch.no_grad()
def mined_truth(module: RetrievalModule, data: RetrievalDataModule) -> dict[str, float] | None:
    """What a model mines in batches of training pairs, by its options, without augmentation.

    Returns: None where the training split has no truth, and where scores or a matching head have
        negatives of their own, else
        `pairs`: how many were looked at;
        `true_candidates`: share of all other pairs of a batch whose caption is true of the image;
        `false_negatives`: share of the mined negatives that are true, of both directions, and
            `false_negatives_i2t`, `false_negatives_t2i` of one; 0 where none is mined;
        `without`: share of anchors for which no negative is left;
        `skipped`: share of all other pairs that semi_hard and limits of false negatives leave out.
    """
    split = data.split("train")
    if split.truth is None or module.score_loss or module.matching_loss:
        return None
    texts, images = TextDataset(split, data.tokenizer), images_of(split, data.pictures, data.seed)
    size = data.batch_size
    order = np.random.default_rng(0).permutation(len(texts))
    numbers = order[: min(BATCHES, len(order) // size) * size].reshape(-1, size)
    off = ~torch.eye(size, dtype=torch.bool)
    found, skipped, candidates = [], 0, 0
    module.eval()
    for captions in numbers:
        text = collate_texts([texts[int(caption)] for caption in captions])
        image = collate_images([images[row] for row in text.image_ids.tolist()])
        image, text = (module.transfer_batch_to_device(x, module.device, 0) for x in (image, text))
        things = torch.from_numpy(split.group_of_caption[captions]).to(module.device)
        ids = things if module.mask_same_image else None
        embeddings = module.model.encode_images(image), module.model.encode_texts(text)
        _, mined = module.loss.objective_loss(*embeddings, ids)
        true = torch.from_numpy(split.truth.among(captions, text.image_ids.cpu().numpy()))
        candidates += int(true[off].sum())
        skipped += int(mined.skipped_negatives)
        for place, table in ((mined.hardest_text, true.T), (mined.hardest_image, true)):
            place = place.cpu()
            chosen = table.gather(1, place.clamp(min=0)[:, None])[:, 0]
            found.append(torch.stack([place >= 0, (place >= 0) & chosen]))
    exists, false = torch.stack(found).sum(dim=2).unflatten(0, (-1, 2)).sum(dim=0).T.double()
    anchors = 2 * numbers.size
    return {
        "pairs": numbers.size,
        "true_candidates": candidates / (numbers.size * (size - 1)),
        "false_negatives": float(false.sum() / exists.sum().clamp(min=1)),
        "false_negatives_i2t": float(false[0] / exists[0].clamp(min=1)),
        "false_negatives_t2i": float(false[1] / exists[1].clamp(min=1)),
        "without": 1 - float(exists.sum()) / anchors,
        "skipped": skipped / (anchors * (size - 1)),
    }
