"""Who may import whom. An arrow that is not in this table is a design decision: make it here."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TypeGuard

PACKAGE = Path(__file__).parent.parent / "goal_kernels"

LAYERS = (
    {
        "constants",
        "operators",
        "backends",
        "backends.scores",
        "backends.answers",
        "extras",
        "terminal",
    },
    {"backends.base", "native", "backends.gumbel"},
    {"registry", "pairs", "normalization", "notices", "backends.arguments"},
    {"elements", "reference", "backends.candidates", "backends.reference_rank"},
    {"objective", "backends.torch_top_k", "backends.cpu", "backends.selection"},
    {"backends.reference"},
    {"backends.chunked", "backends.gpu*"},
    {"backends.choice", "weights", "statistics", "checks"},
    {"ops", "selection_ops", "negatives", "pairing_checks", "backends.explain", "retrieval.scores"},
    {
        *("rectangular", "whole_batch", "whole_batch.kinds", "whole_batch.shares", "directions"),
        "whole_batch.products",
    },
    {"whole_batch.blocks"},
    {"whole_batch.sparse", "whole_batch.fused", "whole_batch.log_sums"},
    {"whole_batch.relative"},
    {"whole_batch.pointwise"},
    {"whole_batch.exponential"},
    {"whole_batch.operators"},
    {"whole_batch.call"},
    {"whole_batch.functional"},
    {"whole_batch.modules"},
    {"functional", "retrieval.ranks"},
    {"similarity_loss"},
    {"modules", "mining", "top_k", "retrieval.metrics"},
    {"graphs", "memory", "retrieval.relevance", "retrieval.folds"},
    {"retrieval"},
    {"goal_kernels"},
    {"distributed.gather"},
    {"distributed.shares", "distributed.batch_norm"},
    {"distributed.loss"},
    {"distributed"},
    {"compat", "compat.vse", "compat.open_clip", "compat.sentence_transformers"},
    {"compat.metric_learning", "compat.evaluate"},
    {"parser", "failures", "recipes"},
    # Analysis of losses. What draws it comes with the command line, below.
    {"analysis.numerics", "analysis.losses"},
    {"analysis.functions", "analysis.catalogue"},
    {"analysis.landscape", "analysis.dissection"},
    {"analysis.nearest"},
    {"analysis"},
    # Data: numpy and, for pictures, Pillow.
    {"data.files", "data.layout", "data.progress", "data.row_file", "data.feature_rows"},
    {"data.arrays", "data.part_folder", "data.picture_files", "data.words", "data.sources.rows"},
    {"data.truth_relation", "data.vocabulary"},
    {"data.split"},
    {"data.precomputed", "data.sources.base", "data.conversion.features"},
    {"data.sources.pictures", "data.sources.precomputed", "data.inspection.findings"},
    {"data.sources.karpathy", "data.sources.lists", "data.sources.table"},
    {"data.sources"},
    {"data", "data.conversion", "data.inspection.checks", "data.inspection.plan"},
    {"data.inspection"},
    {"data.goalworld.world", "data.goalworld.lexicon", "data.goalworld.statements"},
    {"data.goalworld.scenes", "data.goalworld.grammar", "data.goalworld.backdrops"},
    {"data.goalworld.config"},
    {"data.goalworld.truth", "data.goalworld.features", "data.goalworld.rendering"},
    {"data.goalworld.describing", "data.goalworld.oracle"},
    {"data.goalworld.captions"},
    {"data.goalworld.blocks", "data.goalworld.manifest"},
    {"data.goalworld.dataset"},
    {"data.goalworld"},
    {"data.emoji", "data.emoji.packages"},
    {"data.emoji.things"},
    {"data.emoji.dataset"},
    {"data.commands", "data.goalworld.cli", "data.emoji.cli"},
    # Training: what a run is made of, the model, then the runs.
    {"training", "training.options", "training.accumulation", "training.distinct_images"},
    {"training.explicit_negatives"},
    {"training.pooling", "training.sampler", "training.optimisation", "training.images"},
    {
        "training.history",
        "training.density",
        "training.run_folder",
        "training.stopping",
        "training.resume_loop",
    },
    {"training.loggers"},
    {"training.environment", "training.lightning_options", "training.callbacks"},
    {"training.local_weights", "training.transformers_models", "training.tokenizers"},
    {"training.checkpoints", "training.backbones.base"},
    {"training.backbones.from*", "training.resume"},
    {"training.backbones", "training.data"},
    {"training.augmentation", "training.encoders.base", "training.encoders.reasoning"},
    {"training.data_module"},
    {"training.finite", "training.encoders.recurrent", "training.encoders.bert"},
    {"training.encoders.convolution"},
    {"training.best_checkpoint", "training.encoders.region"},
    {"training.resume_points", "training.encoders.grid"},
    {"training.encoders"},
    {"training.scoring"},
    {"training.fusion"},
    {"training.rankings"},
    {"training.model"},
    {"training.published_checkpoints", "training.parallel_steps"},
    {"training.objectives", "training.evaluation", "training.import_command"},
    {"training.ridge", "training.pooled_features"},
    {"training.warmup", "training.outcome", "training.hardest_examples"},
    {"training.matching_loss", "training.slow_encoders"},
    {"training.joint_loss"},
    {"training.lightning_module"},
    {"training.report", "training.report.style", "training.report.charts"},
    {"training.report.settings", "training.report.curves", "training.report.gallery"},
    {"training.report.mined", "training.report.beside"},
    {"training.report.page"},
    {"analysis.drawing"},
    {"analysis.page"},
    {"analysis.cli"},
    {"training.finish"},
    {"training.lightning_cli"},
    {"training.allocations"},
    {"training.step_memory"},
    {"training.run_training"},
    {"training.study", "training.study.tuning", "training.study.workers", "training.study.mined"},
    {"training.study.recipe"},
    {"training.study.training"},
    {"training.study.results", "training.compare", "training.compare.statistics"},
    {"training.study.jobs", "training.compare.runs"},
    {"training.compare.contestants"},
    {"training.compare.differences", "training.compare.picture", "training.compare.table"},
    {"training.compare.cli", "training.study.gathered"},
    {"training.study.findings", "training.study.tuned"},
    {"training.study.ranked"},
    {"training.study.plots"},
    {"training.study.page"},
    {"training.study.cli"},
    # Evaluation of what was trained, or only saved.
    {"evaluate", "evaluate.protocols", "evaluate.alignment", "evaluate.truth_files"},
    {"evaluate.arguments", "evaluate.inputs"},
    {"evaluate.checkpoints"},
    {"evaluate.results", "evaluate.pair_rankings", "evaluate.report"},
    {"evaluate.tables"},
    {"evaluate.cli"},
    {"export", "export.goal_encoder", "export.traceable"},
    {"export.cli"},
    {"explore", "explore.collection"},
    {"explore.pages"},
    {"explore.server"},
    {"explore.cli"},
    {"dataset_mining", "dataset_mining.arguments", "dataset_mining.inputs"},
    {"dataset_mining.parts"},
    {"dataset_mining.outputs"},
    {"dataset_mining.cli"},
    {"cli"},
    {"completion", "__main__"},
)
"""From the bottom up: a module imports from strictly lower layers only."""

FREE = "backends.gpu"
"""A family whose members may import each other."""


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or "goal_kernels"] = path
    return found


@cache
def parsed(module: str) -> tuple[ast.AST, ...]:
    """Every node of a module."""
    return tuple(ast.walk(ast.parse(modules()[module].read_text())))


@cache
def layer(module: str) -> int:
    for level, names in enumerate(LAYERS):
        for name in names:
            if module == name or (name.endswith("*") and module.startswith(name[:-1])):
                return level
    raise AssertionError(f"{module} is in no layer: add it to LAYERS")


def test_every_row_names_a_module() -> None:
    for name in set().union(*LAYERS):
        found = name in modules()
        if name.endswith("*"):
            found = any(module.startswith(name[:-1]) for module in modules())
        assert found, f"{name} is in LAYERS and not in the package"


def imports(module: str) -> set[str]:
    """Modules of the package that a module imports, at any depth of its code.

    A package is imported before what is in it, so it counts too, unless the module is in it itself.
    """
    known, found = modules(), set()
    for node in parsed(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("goal_kernels"):
            base = (node.module or "").removeprefix("goal_kernels").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in known else base or "goal_kernels")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("goal_kernels"):
                    found.add(alias.name.removeprefix("goal_kernels").lstrip(".") or "goal_kernels")
    return {name for name in found | packages(found) - packages({f"{module}."}) if name in known}


def packages(names: set[str]) -> set[str]:
    """The packages that modules are in."""
    parts = [name.split(".")[:-1] for name in names]
    return {".".join(path[: n + 1]) for path in parts for n in range(len(path))}


def test_imports_point_down() -> None:
    wrong = [
        f"{module} must not import {imported}"
        for module in modules()
        for imported in imports(module)
        if layer(imported) >= layer(module)
        and not (module.startswith(FREE) and imported.startswith(FREE))
    ]
    assert wrong == []


def test_sizes_stay_small() -> None:
    """Files of at most 350 lines, bodies of at most 80: longer ones hide an unnamed idea.

    A kernel stands in one file with the functions it calls, and its launch.
    """
    wrong = []
    for module, path in modules().items():
        lines = path.read_text().count("\n")
        if lines > (600 if module.startswith("backends.gpu.kernels.") else 350):
            wrong.append(f"{module} has {lines} lines")
        for node in parsed(module):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                size = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if size > 80:
                    wrong.append(f"{module}.{node.name} has {size} lines")
    assert wrong == []


FACTORIES = {"empty", "zeros", "ones", "full", "arange", "tensor", "as_tensor", "linspace", "eye"}
INTEGERS_BY_DEFAULT = {"arange", "tensor", "as_tensor"}


def is_factory(node: ast.AST) -> TypeGuard[ast.Call]:
    """Whether a node makes a tensor, as `torch.empty(...)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in FACTORIES
    )


def test_no_allocation_follows_a_global_default() -> None:
    """`torch.set_default_device` and `set_default_dtype` belong to the user's own code."""
    wrong = []
    for module in modules():
        if module.startswith("training"):
            continue
        for call in filter(is_factory, parsed(module)):
            named = {keyword.arg for keyword in call.keywords}
            typed = call.func.attr in INTEGERS_BY_DEFAULT or named & {"dtype", "out"}
            if "device" not in named or not typed:
                wrong.append(f"{module}, line {call.lineno}: no device= or no dtype=")
    assert wrong == []
