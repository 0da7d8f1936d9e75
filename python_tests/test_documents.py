"""What the README and docs/ tell to type works: Python runs as printed, commands parse."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from goal_kernels import cli, list_elements
from goal_kernels.registry import KINDS, unregister_element

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text()]
SETTINGS = {
    "gpu": torch.cuda.is_available(),
    "lightning": find_spec("pytorch_lightning") is not None,
    "torchrun": True,
}
"""Words behind "python" of blocks that need something, and whether it is here."""

FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


@pytest.fixture
def _one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torchrun tells the only process of a group, and what the pages add taken away again."""
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for kind in KINDS:
        for element in list_elements(kind):
            if not element.built_in:
                unregister_element(kind, element.name)


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_runs_as_printed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page in order, in one namespace and one folder that begin empty."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for info, code in FENCE.findall(page.read_text()):
        language, _, needs = info.partition(" ")
        if language == "python" and (not needs or SETTINGS[needs]):
            exec(compile(code, str(page), "exec"), namespace)
    losses = [value for name, value in namespace.items() if name == "loss"]
    assert all(loss.isfinite() for loss in losses)


def test_few_blocks_need_something() -> None:
    """A block of code says that it is Python, and only these are not run everywhere."""
    infos = [(page.name, *found) for page in PAGES for found in FENCE.findall(page.read_text())]
    needing = [(name, info) for name, info, _ in infos if info.startswith("python ")]
    assert needing == [
        ("backends.md", "python gpu"),
        ("compat.md", "python lightning"),
        ("training.md", "python torchrun"),
        ("own-data.md", "python lightning"),
        ("own-data.md", "python lightning"),
    ]
    untold = [
        code for _, info, code in infos if not info and re.search(r"^import |gk\.", code, re.M)
    ]
    assert untold == []


def commands(text: str) -> list[list[str]]:
    """The arguments of every `goal-kernels` command line in indented or fenced text."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    found = re.findall(
        r"^\s*(?:goal-kernels|torchrun .*? -m goal_kernels) (?!: )(.+)$", joined, re.MULTILINE
    )
    lines = [re.split(r"\s{2,}|\s#|\s>", line)[0].split() for line in found]
    return [line for line in lines if not line[0].endswith(":")]  # not "goal-kernels fit: train"


def written_commands() -> list[list[str]]:
    """Those of the pages' blocks, of `code` within their text, and of `make demo`."""
    dry_run = ["make", "--dry-run", "demo"]
    demo = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = commands(demo.replace(".venv/bin/", ""))
    assert [command[0] for command in found] == ["data", "fit", "report"]
    for page in PAGES:
        text = page.read_text()
        found += [c for info, code in FENCE.findall(text) if not info for c in commands(code)]
        inline = re.findall(r"`(goal-kernels [^`]+)`", FENCE.sub("", text))
        found += commands("\n".join(inline))
    return found


def helps(capsys: pytest.CaptureFixture) -> list[list[str]]:
    words = [*cli.TRAINING_COMMANDS, *(command.words for command in cli.COMMANDS)]
    for arguments in ([], *(word.split() for word in words)):
        if arguments and arguments[0] in cli.TRAINING_COMMANDS:
            cli.main([*arguments, "--help"])
        else:
            with pytest.raises(SystemExit):
                cli.main([*arguments, "--help"])
    return commands(capsys.readouterr().out)


def test_commands_parse(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as that goes without their files: options exist, values have the right type."""
    pytest.importorskip("pytorch_lightning")
    given = [*written_commands(), *helps(capsys)]
    assert len(given) > 100
    monkeypatch.setattr(cli.Command, "run", lambda command, chosen: 0)
    words = (
        {command.words for command in cli.COMMANDS} | set(cli.TRAINING_COMMANDS) | set(cli.GROUPS)
    )
    training = []
    for line in given:
        if " ".join(line) in words | {"COMMAND --help", "--version"}:
            continue  # the name of a command
        if line[0] in cli.TRAINING_COMMANDS:
            training += [line] if line not in training else []
        else:
            assert exit_status(line) == 0, (line, capsys.readouterr().err)
    parse_training(training, monkeypatch)


def exit_status(line: list[str]) -> object:
    try:
        return cli.main(line)
    except SystemExit as stop:
        return stop.code


def parse_training(lines: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """With Lightning's parser, every option of a command's lines once, as if all were one line."""
    from goal_kernels.recipes import resolve_recipes
    from goal_kernels.training import lightning_cli
    from goal_kernels.training.lightning_options import ConfigurationError
    from goal_kernels.training.run_training import run_training
    from goal_kernels.training.step_memory import MemoryCLI

    class Parsed(Exception):
        pass

    def parse(
        self: lightning_cli.RetrievalCLI, parser: lightning_cli.LightningArgumentParser, _: object
    ) -> None:
        [word] = self.subcommands()
        running = "memory" if isinstance(self, MemoryCLI) else word
        told = [["--config", "goalworld"]]
        for given in (given for line in lines if line[0] == running for given in line[1:]):
            if given == "--resume":  # a run brings its configuration, here that of a recipe
                told.append(["--config"])
            elif given.startswith("-"):
                told.append([given])
            else:
                told[-1].append("goalworld" if re.match(r"runs/|latest$|NAME$", given) else given)
        asking = [["--help"], ["--help-all"], ["--print_config"]]
        once = dict.fromkeys(tuple(option) for option in told if option not in asking)
        options = [given for option in once for given in option]
        try:
            parser.parse_args([word, *resolve_recipes(options)])
        except (SystemExit, ConfigurationError) as stop:
            raise AssertionError(f"does not parse: {running} {options}") from stop
        raise Parsed

    for kind in (lightning_cli.RetrievalCLI, MemoryCLI):
        monkeypatch.setattr(kind, "parse_arguments", parse)
    for command in {line[0] for line in lines}:
        with pytest.raises(Parsed):
            run_training(command, ["--config", "goalworld"])
