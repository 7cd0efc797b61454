"""`python -m fgdemo plot`: from options to the content of a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from fgdemo.errors import UserError


def plot_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Draw a checkpoint's gallery in the plane, as a page (HTML) or a picture (PNG)."
    )
    parser.add_argument("checkpoint", type=str, help="a folder, or USER/NAME[@REVISION] on the Hub")
    parser.add_argument("--out", type=str, required=True, help="file to write, ending in .html or .png")
    parser.add_argument(
        "--color", choices=("class", "subclass", "fine", "split"), default="subclass", help="what colours stand for"
    )
    parser.add_argument("--projection", choices=("pca", "tsne", "umap"), default="pca", help="how the plane is found")
    parser.add_argument("--classes", type=str | None, help="names or ids, comma separated; not given: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the projection")
    parser.add_argument("--max-points", type=int, default=50_000, help="draw a sample of so many where there are more")
    parser.add_argument("--data-root", type=str | None, help="folder of the data set that fine labels are read from")
    parser.add_argument("--size", type=int, nargs=2, help="width and height of a PNG in pixels (default: 1600 1200)")
    parser.add_argument("--thumbnails", action="store_true", help="PNG: also the most central picture of subclasses")
    return parser


def draw(options: Namespace) -> tuple[bytes, list[str]]:
    """The content of the file, and sentences on what a reader must know.

    Raises:
        UserError: an option that cannot be meant, or what `make_figure` and the writers refuse.
    """
    from fgdemo.checkpoint import read_checkpoint
    from fgdemo.checkpoint.hub import resolve
    from fgdemo.plot.figure import make_figure
    from fgdemo.plot.page import plot_page
    from fgdemo.plot.picture import SIZE, plot_picture

    kind = Path(options.out).suffix.lower()
    if kind not in (".html", ".htm", ".png"):
        raise UserError(f"--out {options.out} ends in neither .html nor .png: end it in the one that is wanted.")
    if kind != ".png" and (options.size or options.thumbnails):
        given = "--size" if options.size else "--thumbnails"
        raise UserError(f"{given} is for PNG: leave it out, or end --out in .png.")
    if options.data_root and options.color != "fine":
        raise UserError("--data-root is for --color fine: leave it out.")
    checkpoint = read_checkpoint(resolve(options.checkpoint))
    here = Path(options.checkpoint).expanduser()
    figure = make_figure(
        checkpoint,
        name=here.resolve().name if here.is_dir() else options.checkpoint,
        colour=options.color,
        projection=options.projection,
        class_ids=_class_ids(options.classes, checkpoint.config["label_names"]),
        seed=options.seed,
        max_points=options.max_points,
        data_root=options.data_root,
    )
    if kind != ".png":
        return plot_page(figure).encode("utf-8"), list(figure.notes)
    buffer = io.BytesIO()
    picture = plot_picture(figure, tuple(options.size or SIZE), thumbnails=options.thumbnails)
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), list(figure.notes)


def _class_ids(text: str | None, names: Sequence[str]) -> list[int] | None:
    """Class ids of names or numbers; a name beats a number of the same spelling, quotes hold a name with commas."""
    if text is None:
        return None
    found = []
    for item in next(csv.reader([text], skipinitialspace=True), []):
        if item in names:
            found.append(names.index(item))
        elif item.isdecimal() and int(item) < len(names):
            found.append(int(item))
        else:
            close = get_close_matches(item, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"give a name or a number below {len(names)}."
            raise UserError(f"--classes: there is no class {item[:60]!r} in this checkpoint; {hint}")
    if not found:
        raise UserError("--classes names no class: give names or ids, or leave it out for all.")
    return sorted(set(found))
