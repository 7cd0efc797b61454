"""The model card: Hub metadata, figures, classes, how to use, limits; all of it read from the checkpoint."""

from __future__ import annotations

import html
import re
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fgdemo.checkpoint.schema import network_label, title
from fgdemo.errors import UserError

TASK = "image-classification"
UNLABELLED_TASK = "image-feature-extraction"
# Names under which the Hub knows a metric; others keep their own name as type.
_HUB_METRICS = {"top1": "accuracy", "top-1": "accuracy", "accuracy": "accuracy"}
_MAX_CLASS_ROWS = 500
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")


def model_card(config: dict[str, Any], subclasses: dict[str, Any]) -> str:
    """README.md of a checkpoint, with front matter that the Hub understands.

    Only figures in ``fgdemo.metrics`` appear, each with the split it was measured on. ``fgdemo.license`` and
    ``fgdemo.training.base_model`` (a Hub id), where present, go to the front matter.

    Args:
        config: a validated config.json.
        subclasses: a validated subclasses.json.

    Raises:
        UserError: the metadata are not accepted by huggingface_hub.
    """
    sections = [
        f"# {_text(title(config))}",
        _introduction(config, subclasses),
        _figures(config),
        _usage(config),
        _training(config),
        _classes(config, subclasses),
        _limits(config),
    ]
    try:
        content = f"---\n{_metadata(config).to_yaml()}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"
        ModelCard(content)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"The model card's metadata are not valid for the Hub ({error}); correct config.json."
        ) from error
    return content


def _metadata(config: dict[str, Any]) -> ModelCardData:
    ours = config["fgdemo"]
    dataset = ours["training"].get("dataset", "unknown")
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=metric["split"],
            metric_type=_HUB_METRICS.get(metric["name"].lower(), metric["name"]),
            metric_name=metric["name"],
            metric_value=metric["value"],
        )
        for metric in ours["metrics"]
    ]
    return ModelCardData(
        model_name=title(config),
        library_name="fgdemo",
        pipeline_tag=UNLABELLED_TASK if ours["labels"] == "none" else TASK,
        tags=list(dict.fromkeys(["fgdemo", "fine-grained", "subclass-discovery", ours["method"]])),
        license=ours.get("license"),
        base_model=ours["training"].get("base_model"),
        eval_results=results or None,
    )


def _introduction(config: dict[str, Any], subclasses: dict[str, Any]) -> str:
    ours = config["fgdemo"]
    count = sum(len(entry["subclasses"]) for entry in subclasses["classes"])
    if ours["labels"] == "none":
        what = f"Pictures without labels in {count} clusters."
    else:
        found = f", and the {count} subclasses found inside them" if count else ""
        what = f"An image classifier for {config['num_classes']} classes{found}."
    if ours["method"] == "index":
        what += (
            " Nothing was trained for it: an encoder with the weights it had before, and the pictures it is to know."
        )
    channels, height, width = ours["preprocessing"]["input_size"]
    return (
        f"{what} Network: {_text(network_label(config))}; "
        f"input: {channels} x {height} x {width}; method: {_text(ours['method'])}."
    )


def _figures(config: dict[str, Any]) -> str:
    metrics = config["fgdemo"]["metrics"]
    if not metrics:
        return ""
    rows = [f"| {m['split']} | {_text(m['name'])} | {m['value']:.4g} | {m['n']} |" for m in metrics]
    return "\n".join(["## Figures", "", "| split | metric | value | pictures |", "|---|---|---|---|", *rows])


def _usage(config: dict[str, Any]) -> str:
    lines = [
        "## How to use",
        "",
        "`CHECKPOINT` is this folder or its id on the Hub.",
        "",
        "```sh",
        "python app.py --checkpoint CHECKPOINT",
        "python -m fgdemo predict picture.jpg --checkpoint CHECKPOINT",
        "```",
        "",
        "```python",
        "import fgdemo",
        "",
        'prediction = fgdemo.load("CHECKPOINT").predict(["picture.jpg"])[0]',
        "print(prediction.classes, prediction.subclass)",
        "```",
    ]
    if config["fgdemo"]["network"] == "timm":
        lines += [
            "",
            "The classifier alone also loads with timm:",
            "",
            "```python",
            'model = timm.create_model("local-dir:CHECKPOINT", pretrained=True)  # or "hf-hub:USER/NAME"',
            "```",
        ]
    return "\n".join(lines)


def _training(config: dict[str, Any]) -> str:
    training = config["fgdemo"]["training"]
    lines = ["## How it was made" if config["fgdemo"]["method"] == "index" else "## Training", ""]
    if training.get("command"):
        lines += ["```sh", str(training["command"]).replace("```", ""), "```", ""]
    simple = {k: v for k, v in training.items() if k != "command" and isinstance(v, str | int | float)}
    lines += ["| | |", "|---|---|", *(f"| {_text(k)} | {_text(v)} |" for k, v in simple.items())]
    return "\n".join(lines) if simple or training.get("command") else ""


def _classes(config: dict[str, Any], subclasses: dict[str, Any]) -> str:
    if config["fgdemo"]["labels"] == "none":
        return _clusters(subclasses)
    by_class = {entry["class_id"]: entry for entry in subclasses["classes"]}
    lines = ["## Classes and subclasses", "", "| id | class | superclass | subclasses (size) | K chosen by |"]
    lines.append("|---|---|---|---|---|")
    named = zip(config["label_names"], config["fgdemo"]["superclass_names"], strict=True)
    for class_id, (name, superclass) in list(enumerate(named))[:_MAX_CLASS_ROWS]:
        entry = by_class.get(class_id, {"subclasses": [], "chosen_by": ""})
        inside = ", ".join(f"{_text(member['name'])} ({member['size']})" for member in entry["subclasses"])
        lines.append(f"| {class_id} | {_text(name)} | {_text(superclass)} | {inside} | {_text(entry['chosen_by'])} |")
    left_out = config["num_classes"] - _MAX_CLASS_ROWS
    if left_out > 0:
        lines += ["", f"{left_out} further classes are in `config.json` and `subclasses.json`."]
    return "\n".join(lines)


def _clusters(subclasses: dict[str, Any]) -> str:
    members = [member for entry in subclasses["classes"] for member in entry["subclasses"]]
    rows = [f"| {m['id']} | {_text(m['name'])} | {m['size']} |" for m in members[:_MAX_CLASS_ROWS]]
    lines = ["## Clusters", "", "| id | cluster | pictures |", "|---|---|---|", *rows]
    if len(members) > len(rows):
        lines += ["", f"{len(members) - len(rows)} further clusters are in `subclasses.json`."]
    return "\n".join(lines)


def _limits(config: dict[str, Any]) -> str:
    ours = config["fgdemo"]
    lines = ["## Limits", ""]
    if ours["labels"] == "none":
        lines += [
            "- It names the nearest cluster whatever the picture shows.",
            "- Clusters follow whatever varies in the features and carry no meaning until a person has looked at them.",
        ]
    else:
        lines += [
            f"- It answers with one of its {config['num_classes']} classes whatever the picture shows.",
            "- Subclasses are clusters of its own features. They follow whatever varies inside a class in "
            "the training pictures and carry no meaning until a person has looked at them.",
        ]
    if ours["network"] == "neighbours" and ours["labels"] == "classes":
        lines.append(
            f"- Probabilities are shares in the votes of the {ours['network_args']['k']} nearest pictures. "
            "Leave-one-out figures are of the pictures it holds: where those come in bursts of near-duplicates, new "
            "ones fare worse."
        )
    if ours["novelty"] is not None:
        ordinary = _text(ours["novelty"].get("pictures", "validation pictures"))
        lines.append(
            f'- A picture is flagged as "unlike anything in the gallery" beyond a cosine distance of '
            f"{ours['novelty']['threshold']:.4g} to the nearest training picture, the "
            f"{ours['novelty']['quantile']:.0%} quantile on {ordinary}: about "
            f"{1 - ours['novelty']['quantile']:.0%} of ordinary pictures are flagged as well."
            + "".join(
                f" Measured: {rate['flagged']:.1%} of {rate['n']} pictures of {_text(rate['data'])}."
                for rate in ours["novelty"]["measured"]
            )
        )
    if not any(metric["split"] == "test" for metric in ours["metrics"]):
        lines.append("- No figure here was measured on a test split.")
    return "\n".join(lines)


def _text(value: Any) -> str:
    """Any value as inert Markdown on one line: names come from folders that anyone may have made."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(value).split()), quote=False))
