"""`accelerate launch -m train METHOD`, `python -m train evaluate|export`."""

from __future__ import annotations

import gc
import sys

from fgdemo.errors import UserError
from train.engine import Stopped
from train.evaluate import evaluate_command
from train.export import export_command
from train.methods import METHODS
from train.run import train_command

_USAGE = """usage: python -m train COMMAND [options]        (accelerate launch -m train COMMAND for several processes)

train a network:
{methods}
then:
  evaluate   figures of a run or a checkpoint on one split
  export     a run's checkpoint, with gallery and subclasses

`python -m train COMMAND --help` lists the options of a command.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    methods = "\n".join(f"  {name:<10} {(method.__doc__ or '').strip()}" for name, method in METHODS.items())
    usage = _USAGE.format(methods=methods)
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
        if name == "evaluate":
            evaluate_command(argv)
        elif name == "export":
            export_command(argv)
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
