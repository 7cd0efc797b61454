"""`accelerate launch -m train METHOD`, and `python -m train COMMAND` for what comes before and after."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from fgdemo.errors import UserError
from train.engine import Stopped
from train.evaluate import evaluate_command
from train.export import export_command
from train.index import index_command
from train.methods import METHODS
from train.report import report_command
from train.run import train_command
from train.sweep import sweep_command
from train.tables import tables_command

COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "evaluate": (evaluate_command, "figures of a run or a checkpoint on one split"),
    "export": (export_command, "a run's checkpoint, with gallery and subclasses"),
    "index": (index_command, "a checkpoint of a folder of pictures, without any training"),
    "report": (report_command, "curves, figures over seeds and differences of runs, as one page"),
    "sweep": (sweep_command, "run the missing rows of a table of runs, and print it"),
    "tables": (tables_command, "write the tables of README.md from the results of sweeps"),
}

_USAGE = """usage: python -m train COMMAND [options]        (accelerate launch -m train COMMAND for several processes)

train a network:
{methods}
other commands:
{commands}

`python -m train COMMAND --help` lists the options of a command.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    methods = "\n".join(f"  {name:<10} {(method.__doc__ or '').strip()}" for name, method in METHODS.items())
    commands = "\n".join(f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items())
    usage = _USAGE.format(methods=methods, commands=commands)
    if not words or words[0] in ("-h", "--help"):
        print(usage)
        return 0 if words else 2
    name, rest = words[0], words[1:]
    try:
        return _run(name, rest)
    finally:
        # An exception out of a loader is part of a reference cycle, which would keep the loader's workers alive.
        gc.collect()


def _run(name: str, argv: list[str]) -> int:
    try:
        if name in COMMANDS:
            COMMANDS[name][0](argv)
        elif name in METHODS:
            train_command(name, argv)
        else:
            raise UserError(f"unknown command '{name}'; python -m train --help lists them.")
    except UserError as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print("stopped; go on with --resume", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _sentence(error: UserError) -> str:
    """The message itself: one that crossed from a loader worker comes wrapped in that worker's traceback."""
    text = str(error)
    return text.rpartition("UserError: ")[2].strip() if "Original Traceback" in text else text


if __name__ == "__main__":
    sys.exit(main())
