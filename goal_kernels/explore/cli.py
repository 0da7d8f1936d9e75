"""The command line of `goal-kernels explore`."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from goal_kernels.extras import importing

PORT = 8765

DESCRIPTION = """\
Look at what a trained model finds, in a web browser on this machine.

Type a caption to see the images it finds; choose an image to see the captions it finds, its own
captions with their hardest negatives, and its own hardest negatives. RUN is a run folder, whose
best checkpoint is taken, or a checkpoint. Images that are files are shown, scenes of GoalWorld are
drawn; of features without pictures the captions and names are shown.
"""

EPILOG = """\
Nothing leaves this machine: the page is served to it alone, and only until Ctrl-C. On a machine
that you reach by ssh, forward the port: ssh -L 8765:localhost:8765 MACHINE

Examples
  goal-kernels explore runs/goalworld
  goal-kernels explore runs/goalworld --split dev --port 0 --open
  goal-kernels explore runs/f30k --data.folder data/f30k
"""


def add_explore_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options and the help of `explore`."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--split", metavar="NAME", help="default: the test split of the run's data")
    parser.add_argument(
        "--data.folder", dest="folder", metavar="DIR", help="other data than the run's"
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"0: one that is free (default {PORT})"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def run_explore(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; 0. Raises: FileNotFoundError, ValueError, CheckpointError."""
    if not 0 <= args.port < 1 << 16:
        raise ValueError(f"--port: expected 0 to 65535, got {args.port}")
    with importing():
        from goal_kernels.evaluate.checkpoints import open_run
        from goal_kernels.explore.collection import Collection
        from goal_kernels.explore.pages import Pages
        from goal_kernels.explore.server import LocalServer
    options = {"test_split": args.split, "folder": args.folder}
    with LocalServer(args.port) as server:
        print(f"{args.run}: encoding", flush=True)
        given = {name: value for name, value in options.items() if value is not None}
        collection = Collection(open_run(args.run, given, args.device))
        server.pages = Pages(collection, args.run.resolve().name)
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        if args.open:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
