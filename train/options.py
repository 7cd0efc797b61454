"""Every option of the training command line, typed, grouped as it is used.

The dataclasses are the documentation: `--help`, the YAML recipes, `options.yaml` in a run's folder and the
`options` stored in a checkpoint all come from them. A method adds a dataclass of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class DataOptions:
    """Pictures and labels"""

    data: str = "scenes"
    """data set: scenes, digits, imagefolder, flowers102, grocery_store, cub200, stanford_dogs, oxford_pets, nabirds,
    stanford_cars, fgvc_aircraft, plantnet300k, df20, inaturalist or places365"""
    data_root: str | None = None
    """folder that holds the data set; not needed for scenes and digits"""
    labels: Literal["fine", "coarse"] | None = None
    """level of the hierarchy that training sees; not given: the data set's own"""
    superclasses: str | None = None
    """which grouping of the classes to use where a data set offers several (digits: parity, loops, magnitude;
    nabirds: species, family; fgvc_aircraft: family, manufacturer; df20: genus, family; inaturalist: genus, family,
    order, class, phylum, kingdom; places365: indoor_outdoor)"""
    val_fraction: float | None = None
    """share of the training pictures held out for validation, where no official split says"""
    test_fraction: float | None = None
    """share held out for testing, of a folder of pictures without a test split"""
    include_val: bool = False
    """train on the validation pictures as well, once all else has been chosen on them; the last epoch is exported"""
    novelty_from: str | None = None
    """with --include-val, which leaves none for it: folder of a run of the same options without --include-val, whose
    validation pictures say from which distance on a picture is unlike anything in the gallery"""
    cache: bool = False
    """keep decoded pictures in memory as uint8"""
    strict: bool = False
    """stop at the first picture that cannot be read, instead of reporting it and going on"""
    workers: int = 2
    """processes that load pictures, for each training process"""


@dataclass
class AugmentOptions:
    """Augmentation of training pictures (0 or none turns one off)"""

    resize: int = 0
    """squash pictures to this shorter side and crop the input at random, in evaluation at the centre, in place of a
    random resized crop; 0: off"""
    crop_scale: tuple[float, float] = (0.35, 1.0)
    """share of the area that a random crop keeps"""
    crop_ratio: tuple[float, float] = (0.75, 1.3333)
    """aspect ratio of a random crop"""
    hflip: float = 0.5
    """probability of mirroring left and right"""
    vflip: float = 0.0
    """probability of mirroring top and bottom"""
    color_jitter: float = 0.3
    """strength of brightness, contrast and saturation jitter"""
    auto_augment: str | None = None
    """timm policy, for example rand-m9-mstd0.5; it replaces the colour jitter"""
    re_prob: float = 0.0
    """probability of random erasing"""


@dataclass
class EncoderOptions:
    """The network that turns a picture into features"""

    encoder: str = "vit_small_patch16_224"
    """any timm model name"""
    pretrained: bool = True
    """start from timm's pretrained weights, fetched from the Hub"""
    encoder_weights: str | None = None
    """start from this file instead: .safetensors or weights-only .pth (timm's or DINOv2's), or .npz (Google's ViT)"""
    img_size: int | tuple[int, int] | None = None
    """side, or height and width, of the input in pixels; not given: the encoder's own"""
    encoder_args: dict = field(default_factory=dict)
    """further arguments of the timm model as JSON, for example '{"depth": 6}'"""
    freeze: bool = False
    """train only the new modules: linear probing"""


@dataclass
class OptimOptions:
    """Optimisation"""

    epochs: int = 30
    """passes over the training split"""
    batch_size: int = 64
    """pictures in one forward pass of one process"""
    accumulate: int = 1
    """forward passes that share one optimiser step"""
    per_class: int = 0
    """pictures of each class in one forward pass (P x K sampling: classes come equally often); 0: every picture comes
    once an epoch, in any order"""
    views: int = 1
    """augmented views of each picture in one forward pass, for losses that compare them; an epoch is as long as
    without, so that with 2 each picture comes in half of the epochs"""
    opt: str = "adamw"
    """optimiser: sgd, adam, adamw or any other name of timm's factory"""
    lr: float = 1e-3
    """peak learning rate"""
    weight_decay: float = 0.05
    """weight decay; norms, biases and position tables have none"""
    momentum: float = 0.9
    """momentum of sgd, beta 1 of the adam family"""
    layer_decay: float = 1.0
    """factor on the learning rate from each block to the one below it"""
    new_lr_scale: float = 1.0
    """factor on the learning rate of newly initialised modules"""
    clip_grad: float = 0.0
    """largest norm of the gradient; 0: not clipped"""
    sched: Literal["cosine", "constant", "step", "restarts"] = "cosine"
    """schedule of the learning rate: cosine to min_lr, constant, step decay, or cosine with restarts"""
    sched_per: Literal["step", "epoch"] = "step"
    """how often the schedule moves"""
    warmup_epochs: float = 0.0
    """epochs of linear warm-up from a thousandth of the peak"""
    min_lr: float = 0.0
    """learning rate at the end of the cosine"""
    decay_epochs: float = 10.0
    """epochs between two decays of the step schedule"""
    decay_rate: float = 0.1
    """factor of one decay of the step schedule"""
    restarts: int = 3
    """cosine cycles of the restarts schedule"""
    ema: float = 0.0
    """decay of the exponential moving average of the weights, which is then evaluated and exported; 0: off"""


@dataclass
class RunOptions:
    """The run"""

    output: str | None = None
    """folder of the run; not given: runs/METHOD-DATA-ENCODER-SEED"""
    seed: int = 0
    """the one seed that initialisation, order, augmentation and dropout follow"""
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerators that Accelerate finds, else the processor"""
    precision: Literal["auto", "no", "bf16", "fp16"] | None = None
    """mixed precision; auto: bf16 where the device computes in it, else none; not given: what accelerate launch chose,
    else none"""
    compile: bool = False
    """compile the network with torch.compile"""
    threads: int | None = None
    """processor threads of each process; fix it for results that are equal to the last bit"""
    resume: str | None = None
    """go on with the run in the output folder: bare, or latest, from its newest state, or the path of one state"""
    overwrite: bool = False
    """start again in an output folder that already holds a run"""
    checkpoint_every: int = 0
    """optimiser steps between two saved states; 0: at the end of every epoch only"""
    keep: int = 2
    """number of saved states that stay on disk"""
    snapshot_every: int = 0
    """epochs between two kept copies of the weights, the untrained ones first; 0: none are kept"""
    eval_every: int = 1
    """epochs between two evaluations on the validation split"""
    log_every: int = 20
    """optimiser steps between two logged lines"""
    export: bool = True
    """write the checkpoint (gallery and subclasses included) into the run's folder when training ends"""
    trackers: str = "tensorboard"
    """experiment trackers that Accelerate knows, comma separated, or none"""


GROUPS = (DataOptions, AugmentOptions, EncoderOptions, OptimOptions, RunOptions)

# Options that may change when a run is resumed: they touch neither the model nor the order of samples.
FREE_ON_RESUME = frozenset(
    {
        "output", "resume", "overwrite", "checkpoint_every", "keep", "log_every", "trackers", "workers",
        "cache", "strict", "threads", "data_root", "eval_every", "snapshot_every", "export",
        "novelty_from",
    }
)  # fmt: skip

# Options that name folders and files of the machine of the run: no checkpoint tells them to others.
OF_THIS_MACHINE = frozenset(
    {"output", "resume", "overwrite", "data_root", "encoder_weights", "novelty_from", "subclasses"}
)
