"""Serve the app: `python app.py`, then open http://127.0.0.1:7860."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fgdemo.errors import UserError

# Beside this file, so that the app finds them whatever folder it is started from.
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
DEFAULT_PORT = 7860


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line; on a Space, GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where to serve."""
    parser = argparse.ArgumentParser(
        prog="app.py", description="Classify pictures and explore the subclasses of a checkpoint, in the browser."
    )
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = os.environ.get("GRADIO_SERVER_PORT", str(DEFAULT_PORT))
    parser.add_argument("--host", default=host, help="address to serve on; 0.0.0.0 for all (%(default)s)")
    parser.add_argument("--port", type=_port, default=port, help="port to serve on (%(default)s)")
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    parser.add_argument(
        "--checkpoint", metavar="PATH_OR_HUB_ID", help="checkpoint to open first: a folder, or USER/NAME"
    )
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="folder of checkpoints to offer (checkpoints/)")
    parser.add_argument(
        "--data-root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of data sets whose pictures a checkpoint does not carry; may be given several times",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; returns the exit code: 0, or 2 for bad input."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        _serve(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _serve(options: argparse.Namespace) -> None:
    if options.checkpoints is not None and not options.checkpoints.is_dir():
        raise UserError(f"The folder {options.checkpoints} does not exist; give --checkpoints an existing folder.")
    for root in options.data_root:
        if not root.is_dir():
            raise UserError(f"The folder {root} does not exist; give --data-root an existing folder.")
    print("Starting ...", flush=True)
    from fgdemo.ui.session import App

    app = App(
        [options.checkpoints or CHECKPOINTS],
        device=options.device,
        first=options.checkpoint,
        data_roots=options.data_root,
        fetch=_only_here(options),
    )
    from fgdemo.ui.build import build, launch_options

    if options.checkpoint is not None or options.device != "auto":
        # What a person asked for by name has to work now, or be refused here rather than in the browser.
        app.classifier(None)
    # While the page is built; the imports above are done, since two threads importing alike get in each other's way.
    app.preload()
    page = build(app)
    try:
        page.launch(server_name=options.host, server_port=options.port, share=options.share, **launch_options())
    except OSError as error:
        raise UserError(
            f"Nothing can be served on {options.host}:{options.port}: it is taken, or no address of this machine; "
            "choose another --port or --host."
        ) from error


def _only_here(options: argparse.Namespace) -> bool:
    """Whether this machine alone can open the page, so that whoever presses a button owns the disk it fills."""
    if options.share:
        return False
    try:
        return ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        return options.host == "localhost"


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
