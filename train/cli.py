"""From `sys.argv` to option objects: jsonargparse, plus the spellings that people type."""

from __future__ import annotations

import dataclasses
import re
import typing
from types import UnionType
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

set_parsing_settings(docstring_parse_attribute_docstrings=True)

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


def build_parser(prog: str, description: str, groups: tuple[type, ...]) -> ArgumentParser:
    """A parser whose options are the fields of `groups`, all at one level, with `--config FILE.yaml`."""
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help="YAML file of options; the command line wins over it")
    for group in groups:
        parser.add_class_arguments(group)
    return parser


def split_namespace(values: Namespace, groups: tuple[type, ...]) -> list[Any]:
    """One instance of every dataclass in `groups`, filled from the parsed values."""
    return [group(**{f.name: getattr(values, f.name) for f in dataclasses.fields(group)}) for group in groups]


def normalise_argv(argv: list[str], groups: tuple[type, ...]) -> list[str]:
    """Rewrite common spellings into the one jsonargparse understands.

    `--img-size 96 128` -> `--img_size [96,128]`, `--no-pretrained` -> `--pretrained false`, `--freeze` ->
    `--freeze true`, `--resume` -> `--resume latest`. Anything else is left for the parser to judge.
    """
    kinds = _field_kinds(groups)
    result: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            result.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name.startswith("no_") and kinds.get(name[3:]) == "bool" and not equals:
            result += [f"--{name[3:]}", "false"]
            continue
        if equals:
            result.append(f"--{name}={value}")
            continue
        result.append(f"--{name}")
        bare = not rest or rest[0].startswith("--")
        if kinds.get(name) == "bool" and bare:
            result.append("true")
        elif name == "resume" and bare:
            result.append("latest")
        elif kinds.get(name) in ("tuple", "number or tuple"):
            numbers = []
            while rest and _NUMBER.match(rest[0]):
                numbers.append(rest.pop(0))
            if len(numbers) > 1 or (numbers and kinds[name] == "tuple"):
                result.append("[" + ",".join(numbers) + "]")
            else:
                result += numbers
    return result


def dump_yaml(parser: ArgumentParser, values: Namespace) -> str:
    """The resolved options as YAML, without the config files they came from."""
    values = values.clone()
    values.pop("config", None)
    return parser.dump(values, skip_unset=False)


def _field_kinds(groups: tuple[type, ...]) -> dict[str, str]:
    """Which fields are booleans, tuples of numbers, or either a number or a tuple."""
    kinds = {}
    for group in groups:
        hints = typing.get_type_hints(group)
        for f in dataclasses.fields(group):
            hint = hints[f.name]
            options = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
            if bool in options:
                kinds[f.name] = "bool"
            elif any(typing.get_origin(option) is tuple for option in options):
                kinds[f.name] = "number or tuple" if int in options else "tuple"
    return kinds
