"""Every option does something: changing it changes the weights, the log, the files or the message."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from support.commands import SMALL

from train import launch
from train.__main__ import main
from train.methods import Classify
from train.options import GROUPS, RunOptions
from train.saved_run import SavedRun
from train.state import list_states, load_state
from train.tracking import read_rows

# option -> words that change that option alone (after "|": words that the plain run gets as well)
CHANGES_WEIGHTS = {
    "labels": "--labels coarse",
    "include_val": "--include-val",
    "resize": "--resize 40",
    "crop_scale": "--crop-scale 0.9 1",
    "crop_ratio": "--crop-ratio 0.5 0.6",
    "hflip": "--hflip 1",
    "vflip": "--vflip 1",
    "color_jitter": "--color-jitter 0.4",
    "auto_augment": "--auto-augment rand-m9-mstd0.5",
    "re_prob": "--re-prob 1",
    "encoder": "--encoder test_efficientnet",
    "img_size": "--img-size 40",
    "encoder_args": '--encoder-args {"drop_rate":0.5}',
    "freeze": "--freeze",
    "batch_size": "--batch-size 6",
    "per_class": "--per-class 6",
    "views": "--views 2",
    "accumulate": "--accumulate 2 | --batch-size 6",
    "opt": "--opt sgd",
    "lr": "--lr 0.001",
    "weight_decay": "--weight-decay 0.5",
    "momentum": "--momentum 0.5",
    "layer_decay": "--layer-decay 0.5",
    "clip_grad": "--clip-grad 0.01",
    "sched": "--sched constant",
    "sched_per": "--sched-per epoch",
    "warmup_epochs": "--warmup-epochs 1",
    "min_lr": "--min-lr 0.001",
    "decay_epochs": "--decay-epochs 1 | --sched step",
    "decay_rate": "--decay-rate 0.5 | --sched step --decay-epochs 1",
    "restarts": "--restarts 2 | --sched restarts",
    "seed": "--seed 1",
    "precision": "--precision bf16",
    "epochs": "--epochs 1",
    "label_smoothing": "--label-smoothing 0.1",
    "mixup": "--mixup 0.5",
    "cutmix": "--cutmix 1",
    "mixup_prob": "--mixup-prob 0.5 | --mixup 0.5",
}
# Options whose effect another test asserts.
ELSEWHERE = {
    "data": "test_a_folder_of_pictures",
    "superclasses": "test_superclasses",
    "data_root": "test_a_folder_of_pictures",
    "val_fraction": "test_a_folder_of_pictures",
    "test_fraction": "test_a_folder_of_pictures",
    "strict": "test_a_corrupt_picture",
    "encoder_weights": "test_start_from_weights",
    "pretrained": "test_pretrained_off_line",
    "new_lr_scale": "test_start_from_weights",
    "cache": "test_cache_and_workers_change_nothing",
    "workers": "test_cache_and_workers_change_nothing",
    "threads": "test_threads",
    "device": "test_processes.py",
    "ema": "test_ema",
    "compile": "test_compile",
    "output": "test_resume.py",
    "resume": "test_resume.py",
    "overwrite": "test_resume.py",
    "checkpoint_every": "test_what_is_saved_and_logged_when",
    "keep": "test_what_is_saved_and_logged_when",
    "eval_every": "test_what_is_saved_and_logged_when",
    "log_every": "test_what_is_saved_and_logged_when",
    "snapshot_every": "test_what_is_saved_and_logged_when",
    "trackers": "test_trackers",
    "export": "test_run.py",
    "novelty_from": "test_run.py",
}


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_state(list_states(folder / "state")[-1]).tensors["model"]


def differ(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        return True
    return any(not torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_every_option_is_covered() -> None:
    """Those of the engine and of `classify`; other methods have tests of their own."""
    fields = {f.name for group in (*GROUPS, Classify.Options) for f in dataclasses.fields(group)}
    assert fields == CHANGES_WEIGHTS.keys() | ELSEWHERE.keys()
    assert not CHANGES_WEIGHTS.keys() & ELSEWHERE.keys()


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for 2 coarse x 2 fine classes of 12 training pictures each: four steps an epoch."""
    root = tmp_path_factory.mktemp("garden")
    generator = torch.Generator().manual_seed(0)
    for coarse, base in (("leaf", (40, 160, 60)), ("petal", (200, 60, 120))):
        for fine, shift in (("light", 40), ("dark", -30)):
            for split, count in (("train", 12), ("val", 4)):
                folder = root / split / coarse / f"{fine} {coarse}"
                folder.mkdir(parents=True)
                for i in range(count):
                    noise = torch.randint(-40, 40, (36, 48, 3), generator=generator) + torch.arange(48)[:, None]
                    pixels = (noise + torch.tensor(base) + shift).clamp(0, 255).byte()
                    Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return ["--data", "imagefolder", "--data-root", str(root), "--batch-size", "12"]


@pytest.fixture(scope="module")
def plain_runs() -> dict[str, dict[str, torch.Tensor]]:
    """Weights of the runs that changed ones are compared with, by their further options."""
    return {}


@pytest.mark.parametrize("option", sorted(CHANGES_WEIGHTS))
def test_changes_the_weights(
    train: Callable[..., Path], garden: list[str], plain_runs: dict[str, dict[str, torch.Tensor]], option: str
) -> None:
    changed, _, common = CHANGES_WEIGHTS[option].partition("|")
    if common not in plain_runs:
        plain_runs[common] = final_weights(train(*garden, *common.split(), name="plain"))
    other = train(*garden, *common.split(), *changed.split(), name="other")
    assert differ(plain_runs[common], final_weights(other))


def test_the_same_options_give_the_same_weights(train: Callable[..., Path], garden: list[str]) -> None:
    assert not differ(final_weights(train(*garden, name="a")), final_weights(train(*garden, name="b")))


def test_superclasses(train: Callable[..., Path]) -> None:
    coarse = ["--labels", "coarse", "--epochs", "1"]
    parity = final_weights(train(*coarse, name="parity"))
    assert differ(parity, final_weights(train(*coarse, "--superclasses", "magnitude", name="magnitude")))


def test_cache_and_workers_change_nothing(train: Callable[..., Path], garden: list[str]) -> None:
    plain = final_weights(train(*garden, name="plain"))
    assert not differ(plain, final_weights(train(*garden, "--no-cache", name="uncached")))
    assert not differ(plain, final_weights(train(*garden, "--workers", "2", name="workers")))


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "no")])
def test_automatic_precision_is_what_the_device_computes_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], native: bool, chosen: str
) -> None:
    monkeypatch.setattr(launch, "computes_in_bf16", lambda device_type: native)
    options = RunOptions(device="cpu", precision="auto")
    assert launch.make_accelerator(options).mixed_precision == chosen
    AcceleratorState._reset_state(True)
    assert launch.make_accelerator(replace(options, precision="bf16")).mixed_precision == "bf16"
    assert ("--precision auto" in capsys.readouterr().err) is not native


def test_bf16_of_the_processor_is_what_the_kernel_lists() -> None:
    """oneDNN emulates bf16 on older processors, at a sixth of the speed of float32."""
    info = Path("/proc/cpuinfo")
    if not info.is_file() or platform.machine() != "x86_64":
        pytest.skip("the flags of the processor are read from Linux on x86-64")
    flags = set(info.read_text(encoding="utf-8").split())
    assert launch.computes_in_bf16("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})


def test_threads(train: Callable[..., Path], garden: list[str]) -> None:
    train(*garden, "--epochs", "1", "--threads", "2")
    assert torch.get_num_threads() == 2


def test_ema(train: Callable[..., Path], garden: list[str]) -> None:
    """The averaged weights are what is evaluated and exported."""
    folder = train(*garden, "--epochs", "1", "--ema", "0.9")
    state = load_state(list_states(folder / "state")[-1])
    assert differ(state.tensors["model"], state.tensors["ema"])
    best = load_state(list_states(folder / "best")[-1]).tensors["model"]
    assert not differ(best, state.tensors["ema"])


def test_compile(train: Callable[..., Path], garden: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Same keys, close weights, and the compiler was really asked."""
    asked = []
    compile_module = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: asked.append(module) or compile_module(module))
    words = [
        *garden,
        "--encoder",
        "test_vit",
        "--encoder-args",
        '{"depth": 1}',
        "--epochs",
        "1",
        "--opt",
        "sgd",
        "--lr",
        "0.01",
    ]
    plain = final_weights(train(*words, name="plain"))
    compiled = final_weights(train(*words, "--compile", name="compiled"))
    assert len(asked) == 1
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4)


def test_what_is_saved_and_logged_when(train: Callable[..., Path], garden: list[str]) -> None:
    folder = train(
        *garden,
        *("--epochs", "4", "--eval-every", "3", "--log-every", "2"),
        *("--checkpoint-every", "3", "--keep", "3", "--snapshot-every", "2"),
    )
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss/total" in row] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [row["step"] for row in rows if "val/top1" in row] == [12, 16]
    assert [path.name[-2:] for path in list_states(folder / "state")] == ["12", "15", "16"]
    kept = SavedRun.open(folder).epochs()
    assert [(epoch, path.name[-2:]) for epoch, path in kept] == [(0, "00"), (2, "08"), (4, "16")]
    assert differ(*(load_state(path).tensors["model"] for _, path in kept[:2]))
    assert not differ(load_state(kept[-1][1]).tensors["model"], final_weights(folder))


def test_trackers(train: Callable[..., Path], garden: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(*garden, "--epochs", "1", "--trackers", "tensorboard")
    assert list(folder.rglob("events.out.tfevents.*"))
    train("--trackers", "nonsense", name="other", code=2)
    assert "tensorboard" in capsys.readouterr().err


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of two classes of 20 noisy pictures, bright and dark."""
    root = tmp_path / "photographs"
    generator = torch.Generator().manual_seed(0)
    for name, level in (("bright", 200), ("dark", 40)):
        (root / name).mkdir(parents=True)
        for i in range(20):
            noise = torch.randint(-30, 30, (24, 32, 3), generator=generator)
            Image.fromarray((noise + level).clamp(0, 255).byte().numpy()).save(root / name / f"{i}.png")
    return root


FOLDER = ["--data", "imagefolder", "--batch-size", "8", "--epochs", "1"]


def test_a_folder_of_pictures(
    train: Callable[..., Path], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(*FOLDER, "--data-root", str(photographs), name="a")
    assert "36 training and 4 validation pictures of 2 classes" in capsys.readouterr().out
    train(*FOLDER, "--data-root", str(photographs), "--val-fraction", "0.3", name="b")
    assert "28 training and 12 validation" in capsys.readouterr().out
    train(*FOLDER, "--data-root", str(photographs), "--test-fraction", "0.5", "--val-fraction", "0.2", name="c")
    assert "16 training and 4 validation" in capsys.readouterr().out
    train(*FOLDER, "--data-root", str(photographs / "nowhere"), name="d", code=2)
    assert str(photographs / "nowhere") in capsys.readouterr().err


def test_evaluation_and_export_find_a_run_s_folder_of_pictures(
    train: Callable[..., Path], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(*FOLDER, "--data-root", str(photographs), "--val-fraction", "0.3", name="a", export=True)
    common = ["--device", "cpu", "--workers", "0"]
    asked = ["evaluate", str(run), "--split", "val", *common]
    assert main(asked) == 0
    assert "a on imagefolder val: 12 pictures" in capsys.readouterr().out

    # a folder that is given wins: this one has other classes
    other = photographs.with_name("other")
    shutil.copytree(photographs / "dark", other / "cold")
    shutil.copytree(photographs / "bright", other / "warm")
    assert main([*asked, "--data-root", str(other)]) == 2
    assert "'bright' and 'cold'" in capsys.readouterr().err

    moved = photographs.rename(photographs.with_name("moved"))
    for command in (asked, ["export", str(run), *common]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"{run} was trained on the data set in {photographs}, which no longer exists" in said
        assert "--data-root" in said
        assert "Traceback" not in said
    (run / "options.yaml").write_text("[1,")
    assert main(asked) == 2
    assert "options.yaml cannot be read" in capsys.readouterr().err
    assert main([*asked, "--data-root", str(moved)]) == 0


def test_a_corrupt_picture(
    train: Callable[..., Path],
    photographs: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = photographs / "dark" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    train(*FOLDER, "--data-root", str(photographs), name="a")
    assert sum("3.png" in record.getMessage() for record in caplog.records) == 1
    train(*FOLDER, "--data-root", str(photographs), "--strict", "--workers", "1", "--no-cache", name="b", code=2)
    said = capsys.readouterr().err
    assert "3.png" in said
    assert "Traceback" not in said
    # With torch 2.11 a worker was seen to outlive the command for a moment; why is not known.
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not multiprocessing.active_children(), "a loader worker is still there"


def test_start_from_weights(train: Callable[..., Path], garden: list[str]) -> None:
    first = train(*garden, name="first", export=True)
    weights = [*garden, "--encoder-weights", str(first / "checkpoint" / "model.safetensors"), "--labels", "coarse"]
    warm = final_weights(train(*weights, name="warm"))
    assert differ(warm, final_weights(train(*garden, "--labels", "coarse", name="cold")))
    assert differ(warm, final_weights(train(*weights, "--new-lr-scale", "10", name="scaled")))


def test_pretrained_off_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["classify", *SMALL, "--pretrained", "true", "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "--encoder-weights" in said
    assert "--no-pretrained" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--epochs 0", "--epochs"),
        ("--batch-size 100000", "--batch-size"),
        ("--lr 0", "--lr"),
        ("--ema 1.5", "--ema"),
        ("--warmup-epochs 9", "--warmup-epochs"),
        ("--label-smoothing 2", "--label-smoothing"),
        ("--data scense", "scenes"),
        ("--encoder resnet81", "resnet"),
        ("--opt adamww", "adamw"),
        ("--superclasses nonsense", "parity"),
        ("--resize 20", "--resize"),
        ("--per-class 3", "--batch-size"),
        ("--lr 1e30 --log-every 1", "not finite"),
        ("--mixup 0.5 --batch-size 129", "even"),
    ],
)
def test_refusals(train: Callable[..., Path], capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    train(*words.split(), code=2)
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert json.dumps(message).count("\\n") <= 2
