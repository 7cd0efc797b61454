"""`python -m fgdemo predict|explain|inspect|plot`: a checkpoint, from the command line."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from fgdemo.errors import UserError
from fgdemo.plot.command import draw, plot_parser
from fgdemo.terms import Terms, terms

if TYPE_CHECKING:
    from PIL import Image

    from fgdemo.explain.explanation import Explanation

DEFAULT_CHECKPOINT = Path("checkpoints/scenes-classify")
VIEWS = ("votes", "scores", "attention")
CANDIDATES = "candidates"
_BATCH = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where some picture failed, 2 for bad input, 130 for Ctrl-C."""
    try:
        options = _parser().parse_args(arguments)
        commands = {"predict": _predict, "explain": _explain, "inspect": _inspect, "plot": _plot}
        return commands[options.subcommand](options[options.subcommand])
    except UserError as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has gone; the interpreter must not fail flushing to it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m fgdemo", description="Use a checkpoint on pictures.")
    commands = parser.add_subcommands(dest="subcommand")
    default = str(DEFAULT_CHECKPOINT) if DEFAULT_CHECKPOINT.is_dir() else None

    def on_pictures(description: str) -> ArgumentParser:
        command = ArgumentParser(description=description)
        command.add_argument("images", nargs="+", type=str, help="image files")
        command.add_argument(
            "--checkpoint", type=str | None, default=default, help="a folder, or USER/NAME[@REVISION] on the Hub"
        )
        command.add_argument("--device", type=str, default="auto", help="cpu, cuda, mps or auto")
        return command

    predict = on_pictures("Classes, subclass and nearest gallery pictures of each image.")
    predict.add_argument("--top", type=_positive, default=5, help="how many classes to show")
    predict.add_argument("--json", action="store_true", help="print JSON")
    commands.add_subcommand("predict", predict, help="classify pictures")

    explain = on_pictures("Write what each image's classification rests on: an overlay (PNG) and the maps (JSON).")
    explain.add_argument("--out", type=str, required=True, help="folder to write to")
    explain.add_argument("--block", type=_number_or_all, default="all", help="block from 0, or all")
    explain.add_argument("--head", type=_number_or_all, default="all", help="head from 0, or all")
    explain.add_argument(
        "--what",
        choices=(*VIEWS, CANDIDATES),
        help="votes when the network has attention, else its only map; candidates of networks that vote",
    )
    explain.add_argument("--scale", type=_number_or_all, default="all", help="dilation of scores, or all")
    commands.add_subcommand("explain", explain, help="draw where the network looks")

    inspect = ArgumentParser(description="Configuration, figures, classes and subclasses of a checkpoint.")
    inspect.add_argument("checkpoint", type=str, help="a folder, or USER/NAME[@REVISION] on the Hub")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    commands.add_subcommand("inspect", inspect, help="show what a checkpoint holds")

    commands.add_subcommand("plot", plot_parser(), help="draw the gallery in the plane")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("a number of at least 1 is expected")
    return value


def _number_or_all(text: str) -> int | str:
    return "all" if text == "all" else int(text)


def _predict(options: Namespace) -> int:
    classifier = _load(options)
    results, failed = [], False
    for names, pictures in _batches(options.images):
        readable = [picture for picture in pictures if not isinstance(picture, UserError)]
        predictions = iter(classifier.predict(readable, top=options.top))
        for name, picture in zip(names, pictures, strict=True):
            if isinstance(picture, UserError):
                failed = True
                results.append({"image": name, "error": str(picture)})
                continue
            prediction = next(predictions)
            results.append({"image": name, **prediction.to_dict()})
            if not options.json:
                print(_describe(name, prediction, terms(classifier.config)))
    if options.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    return int(failed)


def _explain(options: Namespace) -> int:
    classifier = _load(options)
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {out} cannot be made ({error.strerror}); choose another.") from error
    stems: set[str] = set()
    failed = False
    for names, pictures in _batches(options.images):
        for name, picture in zip(names, pictures, strict=True):
            if isinstance(picture, UserError):
                failed = True
                continue
            prediction = classifier.predict([picture], explain=True)[0]
            explanation = prediction.explanation
            drawn, shown = _draw(picture, explanation, options)
            stem = _unused(Path(name).stem, stems)
            document = {"image": name, "shown": shown, **prediction.to_dict()}
            _write(out / f"{stem}.png", lambda path, drawn=drawn: drawn.save(path, "PNG"))
            text = json.dumps(document, ensure_ascii=False)
            _write(out / f"{stem}.json", lambda path, text=text: path.write_text(text, encoding="utf-8"))
            print(out / f"{stem}.png")
    return int(failed)


def _draw(picture: Image.Image, explanation: Explanation, options: Namespace) -> tuple[Image.Image, dict[str, Any]]:
    """A picture with what the options choose over it, and that as JSON values."""
    from fgdemo.explain.draw import block_colors, mark_candidates, overlay

    chosen = {"block": options.block, "head": options.head, "what": options.what or explanation.views[0]}
    if options.what == CANDIDATES:
        if (options.head, options.scale) != ("all", "all"):
            raise UserError("Candidates are the choice of all heads and scales together: leave out --head and --scale.")
        if explanation.pool is None:
            raise UserError("This network has no candidates: only those trained by voting do; choose another --what.")
        found = explanation.candidates(options.block)
        colors = block_colors(explanation.num_blocks)
        drawn = mark_candidates(picture, found, explanation.grid, explanation.box, colors=colors)
        return drawn, chosen | {"candidates": [candidate._asdict() for candidate in found]}
    view = explanation.select(options.block, options.head, options.what, options.scale)
    drawn = overlay(picture, view.map, explanation.box, vmin=view.vmin, vmax=view.vmax)
    return drawn, chosen | {
        "scale": options.scale,
        "vmin": view.vmin,
        "vmax": view.vmax,
        "map": view.map.tolist(),
    }


def _inspect(options: Namespace) -> int:
    from fgdemo.checkpoint import read_checkpoint, title
    from fgdemo.checkpoint.hub import resolve
    from fgdemo.gallery import SPLITS, Gallery

    checkpoint = read_checkpoint(resolve(options.checkpoint))
    config, ours = checkpoint.config, checkpoint.config["fgdemo"]
    gallery = Gallery.from_checkpoint(checkpoint)
    rows = {name: int((gallery.split == number).sum()) for number, name in enumerate(SPLITS)}
    if options.json:
        document = {"config": config, "subclasses": checkpoint.subclasses, "gallery": rows}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    facts = {
        "folder": checkpoint.directory,
        "network": f"{ours['network']} ({config.get('architecture', 'own')})",
        "method": ours["method"],
        "input": " x ".join(map(str, ours["preprocessing"]["input_size"])),
        "embedding": f"{ours['embedding']['space']}, {ours['embedding']['dim']} numbers",
        "gallery": ", ".join(f"{count} {name}" for name, count in rows.items()),
        "trained on": ours["training"].get("dataset", "unknown data"),
        "command": ours["training"].get("command", "not recorded"),
    }
    print(_plain(title(config)))
    for name, value in facts.items():
        print(f"  {name:<11}{_plain(value)}")
    if ours["metrics"]:
        figures = [[m["split"], m["name"], f"{m['value']:.4g}", m["n"]] for m in ours["metrics"]]
        print("\n" + _table(["split", "metric", "value", "pictures"], figures))
    by_class = {entry["class_id"]: entry for entry in checkpoint.subclasses["classes"]}
    lines = []
    for class_id, name in enumerate(config["label_names"]):
        members = by_class.get(class_id, {"subclasses": []})["subclasses"]
        shown = ", ".join(f"{m['name']} ({m['size']})" for m in members)
        lines.append([class_id, name, ours["superclass_names"][class_id], len(members), shown])
    print("\n" + _table(["id", "class", "superclass", "K", "subclasses (size)"], lines))
    return 0


def _plot(options: Namespace) -> int:
    content, notes = draw(options)
    out = Path(options.out)
    _write(out, lambda path: path.write_bytes(content))
    print("\n".join([_plain(out), *notes]))
    return 0


def _load(options: Namespace) -> Any:
    if options.checkpoint is None:
        raise UserError(f"Give --checkpoint: there is no {DEFAULT_CHECKPOINT} in this folder to use by default.")
    from fgdemo.predict import load

    return load(options.checkpoint, device=options.device)


def _batches(images: list[str]) -> Iterator[tuple[list[str], list[Any]]]:
    """Names with their pictures, or with the UserError, already told, of those that cannot be read."""
    from fgdemo.data.images import open_image

    for start in range(0, len(images), _BATCH):
        names = images[start : start + _BATCH]
        pictures: list[Any] = []
        for name in names:
            try:
                pictures.append(open_image(name))
            except UserError as error:
                _complain(error)
                pictures.append(error)
        yield names, pictures


def _describe(name: str, prediction: Any, words: Terms) -> str:
    lines = [_plain(name)]
    if words.labelled:
        width = max(len(_plain(score.name)) for score in prediction.classes)
        lines += [f"  {_plain(score.name):<{width}}  {score.probability:7.2%}" for score in prediction.classes]
    if prediction.subclass is not None:
        best, second = prediction.subclass, prediction.runner_up
        line = f'  {words.group} "{_plain(best.name)}" ({best.size} pictures) at distance {best.distance:.3f}'
        lines.append(line + (f', then "{_plain(second.name)}" at {second.distance:.3f}' if second else ""))
    if len(prediction.posterior) > 1:
        shares = (f'"{_plain(share.name)}" {share.probability:.2%}' for share in prediction.posterior)
        lines.append(f"  {words.groups} by the network's head " + ", ".join(shares))
    if prediction.novelty is not None and prediction.novelty.is_novel:
        score, threshold, _ = prediction.novelty
        lines.append(f"  unlike anything in the gallery: nearest at {score:.3f}, threshold {threshold:.3f}")
    nearest = [
        f"{_plain(n.key)} ({_plain(n.class_name) + ', ' if words.labelled else ''}{n.distance:.3f})"
        for n in prediction.neighbours[:3]
    ]
    if nearest:
        lines.append("  nearest " + ", ".join(nearest))
    return "\n".join(lines)


def _table(header: list[str], rows: list[list[Any]]) -> str:
    cells = [header, *([_plain(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _plain(value: Any) -> str:
    """A name on one line without the control characters that could drive a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def _unused(stem: str, used: set[str]) -> str:
    name, number = stem, 1
    while name in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(name)
    return name


def _write(path: Path, save: Any) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        save(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); free some space or choose --out.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _complain(error: UserError) -> None:
    print(_plain(error), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
