"""The command line from pictures to a checkpoint, as a process where that matters."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from support.commands import ROOT, SMALL, environment, finish, start

from fgdemo.checkpoint import read_checkpoint
from fgdemo.data import ImageSplit, eval_transform, load_catalogue
from fgdemo.gallery import Gallery
from train.__main__ import main
from train.evaluate import spreadsheet_text
from train.evaluation.subject import load_network, preprocessing_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its checkpoint, by the command line."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    code, out, err = finish(start("classify", *SMALL, "--epochs", "3", "--output", str(folder)))
    assert code == 0, err
    assert str(folder / "checkpoint") in out
    return folder


def test_checkpoint_of_a_run(trained: Path) -> None:
    checkpoint = read_checkpoint(trained / "checkpoint")
    ours = checkpoint.config["fgdemo"]
    assert checkpoint.config["label_names"] == [str(d) for d in range(10)]
    assert (ours["method"], ours["network"], ours["training"]["dataset"]) == ("classify", "timm", "digits")
    assert {m["split"] for m in ours["metrics"]} == {"val"}
    assert str(trained) not in json.dumps(checkpoint.config)
    assert ours["training"]["command"].startswith("python -m train classify --data digits")
    gallery = Gallery.from_checkpoint(checkpoint)
    assert len(gallery) == 1257
    assert gallery.thumbnail(0) is not None
    assert (gallery.subclass_id >= 0).all()
    assert [len(entry["subclasses"]) > 0 for entry in checkpoint.subclasses["classes"]] == [True] * 10


def test_gallery_rows_are_their_pictures(trained: Path) -> None:
    checkpoint = read_checkpoint(trained / "checkpoint")
    gallery = Gallery.from_checkpoint(checkpoint)
    split = ImageSplit(load_catalogue("digits"), "train", transform=eval_transform(preprocessing_of(checkpoint)))
    network = load_network(checkpoint)
    for row in (0, 7, 1256):
        sample = split[list(split.catalogue.keys[split.rows]).index(gallery.keys[row])]
        with torch.inference_mode():
            embedding = network(sample.image[None]).embedding
        cosine = torch.nn.functional.cosine_similarity(
            embedding, torch.from_numpy(gallery.embeddings[row]).float()[None]
        )
        assert cosine.item() == pytest.approx(1, abs=1e-3)
        assert gallery.class_id[row] == sample.label


def test_threshold_raises_five_percent_false_alarms_on_validation(trained: Path) -> None:
    assert main(["evaluate", str(trained), "--split", "val", "--device", "cpu", "--workers", "0"]) == 0
    result = json.loads((trained / "evaluation" / "val.json").read_text())
    assert result["novelty"]["flagged"] == pytest.approx(0.05, abs=0.006)


def test_a_run_on_all_pictures_borrows_its_flag(
    trained: Path, train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train("--include-val", "--novelty-from", str(trained), "--epochs", "1", name="whole", export=True)
    flag, source = (read_checkpoint(folder / "checkpoint").config["fgdemo"]["novelty"] for folder in (whole, trained))
    assert flag["threshold"] == source["threshold"]
    assert "held them out" in flag["pictures"]
    assert str(trained) not in read_checkpoint(whole / "checkpoint").config["fgdemo"]["training"]["command"]
    assert main(["evaluate", str(whole), "--device", "cpu", "--workers", "0"]) == 0
    again = train("--include-val", "--epochs", "1", name="unflagged", export=True)
    assert read_checkpoint(again / "checkpoint").config["fgdemo"]["novelty"] is None
    capsys.readouterr()

    assert main(["export", str(whole), "--out", str(whole.parent / "out"), "--device", "cpu", "--workers", "0"]) == 0
    assert read_checkpoint(whole.parent / "out").config["fgdemo"]["novelty"]["measured"][0]["data"] == "digits test"
    for options, reason in (
        (["--novelty-from", str(trained)], "is for --include-val"),
        (["--include-val", "--novelty-from", str(whole.parent / "nowhere")], "holds no checkpoint"),
        (["--include-val", "--novelty-from", str(again)], "has no flag itself"),
        (["--include-val", "--novelty-from", str(trained), "--encoder", "test_efficientnet"], "not on digits with"),
    ):
        train(*options, name="refused", code=2)
        assert reason in capsys.readouterr().err


def test_stock_timm_loads_it_without_us(trained: Path) -> None:
    """In a process that cannot import fgdemo."""
    code = (
        "import sys; sys.modules['fgdemo'] = None\n"
        "import timm, torch\n"
        f"model = timm.create_model('local-dir:{trained / 'checkpoint'}', pretrained=True).eval()\n"
        "print(model(torch.ones(1, 3, 32, 32)).tolist(), model.pretrained_cfg['label_names'][3])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=trained, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    network = load_network(read_checkpoint(trained / "checkpoint"))
    with torch.inference_mode():
        logits = network(torch.ones(1, 3, 32, 32)).logits.tolist()
    assert out.split("]]")[0] + "]]" == str(logits)
    assert out.strip().endswith("3")
    assert set(network.weights()) == set(timm.create_model("test_resnet", num_classes=10).state_dict())


def test_evaluate_writes_for_people_and_machines(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "evaluate",
        str(trained),
        "--device",
        "cpu",
        "--workers",
        "0",
        "--foreign",
        "scenes",
        "--out",
        str(tmp_path),
    ]
    before = (trained / "checkpoint" / "config.json").read_bytes()
    assert main(argv) == 0
    assert (trained / "checkpoint" / "config.json").read_bytes() == before
    table = capsys.readouterr().out
    result = json.loads((tmp_path / "test.json").read_text())
    assert f"{result['metrics']['errors']} of 270" in table
    with (tmp_path / "test-classes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(int(row["pictures"]) for row in rows) == 270
    assert sum(int(row["correct"]) for row in rows) == 270 - result["metrics"]["errors"]
    assert 0 <= result["novelty"]["foreign_flagged"] <= 1


def test_export_takes_the_figures_in_and_keeps_what_is_there(trained: Path, tmp_path: Path) -> None:
    main(["evaluate", str(trained), "--device", "cpu", "--workers", "0"])
    options = [
        "--dtype",
        "float16",
        "--gallery-per-class",
        "20",
        "--thumbnails",
        "0",
        "--max-k",
        "3",
        "--min-pictures",
        "7",
        "--choose-k",
        "gap",
        "--title",
        "Ten digits",
        "--license",
        "mit",
    ]
    argv = ["export", str(trained), "--out", str(tmp_path / "digits"), *options, "--device", "cpu", "--workers", "0"]
    assert main(argv) == 0
    small = read_checkpoint(tmp_path / "digits")
    assert small.config["fgdemo"]["title"] == "Ten digits"
    assert "license: mit" in small.card
    figures = {(m["split"], m["name"]): m["value"] for m in small.config["fgdemo"]["metrics"]}
    assert figures["test", "top1"] == json.loads((trained / "evaluation" / "test.json").read_text())["metrics"]["top1"]
    gallery = Gallery.from_checkpoint(small)
    assert len(gallery) == 200
    assert gallery.thumbnail(0) is None
    assert max(entry["k"] for entry in small.subclasses["classes"]) <= 3
    assert min(m["size"] for entry in small.subclasses["classes"] for m in entry["subclasses"]) >= 7
    full = load_network(read_checkpoint(trained / "checkpoint"))(torch.ones(1, 3, 32, 32)).logits
    half = load_network(small)(torch.ones(1, 3, 32, 32)).logits
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, rtol=0.02, atol=0.02)
    assert main(argv) == 0
    assert (tmp_path / "digits-v2").is_dir()


def test_other_choices_of_export(trained: Path, tmp_path: Path) -> None:
    common = ["--device", "cpu", "--workers", "0", "--thumbnails", "0", "--gallery-per-class", "30"]
    made = {}
    for name, words in {"best": [], "last": ["--weights", "last"], "bic": ["--choose-k", "bic"]}.items():
        assert main(["export", str(trained), "--out", str(tmp_path / name), *common, *words]) == 0
        made[name] = read_checkpoint(tmp_path / name)
    assert {entry["chosen_by"] for entry in made["bic"].subclasses["classes"]} == {"bic"}
    assert {entry["chosen_by"] for entry in made["best"].subclasses["classes"]} == {"silhouette"}
    steps = {name: made[name].config["fgdemo"]["training"]["step"] for name in ("best", "last")}
    assert steps["last"] == 12
    assert steps["best"] <= 12


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["clasify"], "clasify"),
        (["evaluate", "nowhere/at/all"], "nowhere/at/all"),
        (["export", "nowhere/at/all"], "nowhere/at/all"),
        (["evaluate", "tests"], "tests"),
    ],
)
def test_refusals(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message


def test_help_lists_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "classify" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["classify", "--help"])
    assert ended.value.code == 0
    assert "share of the area that a random crop keeps" in " ".join(capsys.readouterr().out.split())


def test_without_the_packages_of_the_app(tmp_path: Path) -> None:
    """train/ runs where gradio, plotly and faiss are not installed."""
    code = (
        "import sys\n"
        "for name in ('gradio', 'plotly', 'faiss'): sys.modules[name] = None\n"
        "from train.__main__ import main\n"
        f"sys.exit(main({['classify', *SMALL, '--epochs', '1', '--output', str(tmp_path / 'run')]!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()


def test_csv_cells_are_no_formulas() -> None:
    assert spreadsheet_text("=1+1") == "'=1+1"
    assert spreadsheet_text("rose") == "rose"


def test_a_run_in_use_is_left_alone(trained: Path, train: Callable[..., Path]) -> None:
    from filelock import FileLock

    with FileLock(trained / ".lock"):
        assert main(["classify", *SMALL, "--epochs", "3", "--output", str(trained), "--resume"]) == 2
