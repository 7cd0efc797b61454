"""Classes and their subclasses, found by class-wise k-means under several K while the network trains (FGDCC)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdemo.data import Sample
from fgdemo.errors import UserError
from fgdemo.losses import VicReg, vicreg, within_class_loss
from fgdemo.models import Network, build_network
from fgdemo.models.subclass_network import SubclassOutput, check_hypotheses
from train.checkpoint_parts import Rule
from train.feature_bank import FeatureBank, effective_rank
from train.given_subclasses import GivenSubclasses
from train.inference import Outputs
from train.methods.base import BetweenEpochs, DataInfo, Method, Subclasses
from train.methods.mixing import Mixing, MixingOptions
from train.options import EncoderOptions, OptimOptions
from train.subclass_partition import Rules, SubclassPartition

Preset = Literal["recommended", "as-published"]

PRESETS: dict[str, dict[str, Any]] = {
    "recommended": {
        "ks": (1, 2, 3, 4),
        "select": "silhouette",
        "patience": 1,
        "invariance": 0.0,
        "variance": 0.0,
        "covariance": 0.0,
        "pairs": "cluster",
        "scale": "sphere",
        "both_sides": True,
    },
    # The regulariser and the choice of K of the published code. It adds the covariance terms of both views, which are
    # those of the same features here: hence 2 for its 1.
    "as-published": {
        "ks": (2, 3, 4, 5),
        "select": "cosine-index-as-published",
        "patience": 1,
        "invariance": 7.5,
        "variance": 25.0,
        "covariance": 2.0,
        "pairs": "class",
        "scale": "unit",
        "both_sides": False,
    },
}


@dataclass
class FgdccOptions(MixingOptions):
    """Subclasses; what is not given is the preset's"""

    preset: Preset = "recommended"
    """recommended, or the numbers, choice of K and regulariser of the published code: as-published"""
    ks: tuple[int, ...] | None = None
    """numbers of subclasses that are tried in every class; 1 alone is plain classification"""
    subclass_weight: float = 0.5
    """weight of the cross-entropies over the subclasses of the own class, mean over the hypotheses"""
    hypotheses: Literal["all", "chosen"] = "all"
    """train on every number of subclasses, or on the one chosen for the class"""
    start_epoch: int = 1
    """epochs of plain classification before the first division; 0 where the encoder is trained already"""
    ramp_epochs: int = 2
    """epochs over which the weight then rises"""
    select: Rule | None = None
    """how the number of subclasses of a class is chosen"""
    patience: int | None = None
    """choices in a row that must fall on another number before a class changes to it"""
    choose_every: int = 5
    """divisions between two choices of the number, which cost as much as several divisions"""
    min_pictures: int = 2
    """training pictures that a class needs for each subclass"""
    refresh: int = 0
    """divisions between two for whose features the training pictures are passed once more without augmentation, for a
    third of an epoch's time; 0: the first division alone, all later ones divide what the steps of training have seen"""
    challenge: int = 5
    """divisions between two in which new starts compete with the subclasses so far; 0: never"""
    space: Literal["unit", "raw"] = "unit"
    """divide features of unit length, or as they are"""
    subclasses: str | None = None
    """start from these subclasses: a checkpoint whose subclasses a person has looked at, or a CSV file with the columns
    key (path of a picture below the data set's folder) and subclass"""
    lock: Literal["all", "edited", "none"] = "all"
    """subclasses given by --subclasses that keep their pictures, ids and names: all, those that a person has edited
    (all of a CSV file), or none, so that they are no more than a start"""
    partition: Literal["kmeans", "shuffled"] = "kmeans"
    """kmeans, or a control: subclasses of the sizes of the first division, dealt out at random once"""
    invariance: float | None = None
    """weight of the VICReg distance between pictures of one cluster or class in a batch, or views of a picture"""
    variance: float | None = None
    """weight of the VICReg hinge on the standard deviation of each dimension"""
    covariance: float | None = None
    """weight of the VICReg penalty on covariances of different dimensions"""
    pairs: Literal["cluster", "class", "picture"] | None = None
    """whom the invariance pulls together: pictures of one subclass (of the chosen number), of one class, or views of
    one picture, which need --views"""
    scale: Literal["sphere", "unit", "raw"] | None = None
    """features under VICReg: on a sphere where a deviation of 1 in every dimension is possible, of unit length (where
    it is not), or as they are"""
    both_sides: bool | None = None
    """send the gradient of VICReg to both pictures of a pair; false: to one, as published"""


class Fgdcc(Method):
    """Every class is divided by k-means under several numbers of subclasses, which its classifier learns beside it."""

    name = "fgdcc"
    Options = FgdccOptions
    options: FgdccOptions

    def __init__(self, options: FgdccOptions, data: DataInfo) -> None:
        super().__init__(options, data)
        given = {name: getattr(options, name) for name in PRESETS["recommended"]}
        chosen = {**PRESETS[options.preset], **{name: value for name, value in given.items() if value is not None}}
        self.ks = check_hypotheses(chosen["ks"])
        self.vicreg_weights = tuple(float(chosen[name]) for name in ("invariance", "variance", "covariance"))
        self.pairs, self.scale, self.both_sides = chosen["pairs"], chosen["scale"], chosen["both_sides"]
        self.mixing = Mixing(options, data.num_classes)
        self._check()
        given = GivenSubclasses.read(options.subclasses, data, options.lock) if options.subclasses else None
        if given is not None:
            self.ks = tuple(sorted({*self.ks, *given.ks.values()}))
        rules = Rules(self.ks, chosen["select"], chosen["patience"], options.min_pictures)
        self.partition = SubclassPartition(data.targets, data.num_classes, rules, given)
        self.epoch = 0
        self.bank: FeatureBank | None = None

    @property
    def divides(self) -> bool:
        """Whether there is anything to divide: with K = 1 alone this is plain classification."""
        return max(self.ks) > 1

    @property
    def regularised(self) -> bool:
        return any(self.vicreg_weights)

    def build(self, encoder: EncoderOptions) -> Network:
        network = build_network(
            "subclasses",
            architecture=encoder.encoder,
            num_classes=self.data.num_classes,
            ks=self.ks,
            pretrained=encoder.pretrained and encoder.encoder_weights is None,
            weights=encoder.encoder_weights,
            img_size=encoder.img_size,
            model_args=encoder.encoder_args,
        )
        if encoder.freeze:
            network.freeze_encoder()
        return network

    def check(self, optim: OptimOptions) -> None:
        invariant, by_chance = self.vicreg_weights[0] > 0, optim.batch_size >= 2 * self.data.num_classes
        if invariant and self.pairs == "picture" and optim.views < 2:
            raise UserError("Pairs of views of one picture need --views 2 or more.")
        if invariant and self.pairs != "picture" and not (optim.per_class or by_chance):
            raise UserError(
                f"The invariance needs several pictures of each class in a forward pass, and --batch-size "
                f"{optim.batch_size} has too few of {self.data.num_classes} classes: add --per-class 2 or more."
            )
        if self.divides and self.options.start_epoch >= optim.epochs:
            raise UserError(
                f"--start-epoch {self.options.start_epoch} leaves no epoch of --epochs {optim.epochs} to subclasses."
            )

    def prepare(self, network: Network, device: torch.device) -> None:
        if self.divides:
            self.bank = FeatureBank(self.data.index, network.encoder.dim, device)
            self._to_device(device)

    def training_step(self, model: nn.Module, batch: Sample) -> dict[str, Tensor]:
        images, targets = self.mixing(batch)
        output: SubclassOutput = model(images)
        losses = {"ce": self.mixing.cross_entropy(output.logits, targets)}
        total = losses["ce"]
        keys = batch.label
        if self.divides:
            rows = self.bank.rows(batch.index)
            self.bank.write(rows, output.embedding, self.epoch)
            losses["subclass"] = within_class_loss(
                output.subclass_logits, batch.label, self._clusters[rows], self._weights[batch.label], self.ks
            )
            total = total + self.subclass_weight() * losses["subclass"]
            if self.pairs == "cluster":
                keys = keys * max(self.ks) + self._own[rows]
        if self.pairs == "picture":
            keys = batch.index.to(keys.device, non_blocking=True)
        if self.regularised:
            found = self._regularise(output.embedding, keys)
            losses |= found._asdict()
            for weight, value in zip(self.vicreg_weights, found[:3], strict=True):
                total = total + weight * value
        return {"total": total, **losses}

    def subclass_weight(self) -> float:
        """Weight of the subclasses in this epoch: 0 before the first division, then rising to its value."""
        options = self.options
        done = self.epoch - options.start_epoch + 1
        return options.subclass_weight * min(max(done, 0) / max(options.ramp_epochs, 1), 1.0)

    def _regularise(self, embedding: Tensor, keys: Tensor) -> VicReg:
        features = embedding.float()
        if self.scale != "raw":
            features = F.normalize(features, dim=1)
        if self.scale == "sphere":
            features = features * features.shape[1] ** 0.5
        return vicreg(features, keys, both=self.both_sides)

    def between_epochs(self, network: Network, engine: BetweenEpochs) -> None:
        self.epoch = engine.epoch
        options = self.options
        division = engine.epoch - options.start_epoch
        if not self.divides or division < 0 or (options.partition == "shuffled" and self.partition.known):
            return
        self.gather_state(engine.total)
        if division == 0 or (options.refresh and division % options.refresh == 0):
            outputs = engine.features()
            self.bank.write(self.bank.rows(outputs.index), outputs.embeddings, engine.epoch)
            # every process has written the same
            self.gather_state(engine.total)
        if engine.first:
            features = self.bank.features(unit=options.space == "unit")
            figures = self.partition.update(
                features,
                challenge=bool(options.challenge) and division % options.challenge == 0,
                choose=division % options.choose_every == 0,
                seed=engine.seed,
            )
            if options.partition == "shuffled":
                self.partition.shuffle(engine.seed)
            figures["features/norm"] = float(self.bank.norm.mean())
            figures["features/effective_rank"] = effective_rank(self.bank.features(unit=False))
            engine.log(figures)
        self.partition.share(engine.total, engine.device, engine.first)
        network.set_active(torch.from_numpy(self.partition.active()))
        self._to_device(engine.device)

    def gather_state(self, total: Callable[[Tensor], Tensor]) -> None:
        if self.bank is not None:
            self.bank.combine(total)

    def divide(self, outputs: Outputs, seed: int) -> Subclasses | None:
        if not self.divides or self.options.partition == "shuffled":
            return None
        rows = np.searchsorted(self.data.index, outputs.index.numpy())
        features = outputs.embeddings
        if self.options.space == "unit":
            features = F.normalize(features, dim=1)
        found, given = self.partition.divide(features, rows, seed), self.partition.given
        before = (given.subclass_id[rows], given.document) if given else None
        return Subclasses(found, self.partition.rules.select, before)

    def state_dict(self) -> dict[str, Tensor]:
        state = {"epoch": torch.tensor(self.epoch)}
        state |= {f"partition.{name}": value for name, value in self.partition.state_dict().items()}
        bank = self.bank.state_dict() if self.bank is not None else {}
        return state | {f"bank.{name}": value for name, value in bank.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.epoch = int(state["epoch"])
        self.partition.load_state_dict(_under("partition.", state))
        if self.bank is not None:
            self.bank.load_state_dict(_under("bank.", state))
            self._to_device(self.bank.device)

    def _to_device(self, device: torch.device) -> None:
        """The partition as tensors for the steps of an epoch."""
        partition = self.partition
        weights = torch.ones(self.data.num_classes, len(self.ks))
        if self.options.hypotheses == "chosen":
            weights = torch.from_numpy(partition.chosen[:, None] == torch.tensor(self.ks).numpy()).float()
        self._weights = weights.to(device)
        self._clusters = torch.from_numpy(partition.clusters).to(device)
        # before the first division a class is one subclass
        self._own = torch.from_numpy(partition.own_clusters()).clamp(min=0).to(device)

    def _check(self) -> None:
        """Refuse what cannot be meant, or could have no effect.

        Raises:
            UserError: such options.
        """
        options = self.options
        largest = int(torch.from_numpy(self.data.targets).bincount().max())
        if max(self.ks) > largest:
            raise UserError(f"--ks goes up to {max(self.ks)}, but the largest class has {largest} training pictures.")
        at_least_0 = ("subclass_weight", "start_epoch", "ramp_epochs", "refresh", "challenge")
        values = {name: getattr(options, name) for name in at_least_0}
        values |= dict(zip(("invariance", "variance", "covariance"), self.vicreg_weights, strict=True))
        for name, value in values.items():
            if value < 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it is at least 0.")
        if options.subclasses and not self.divides:
            raise UserError("--subclasses has nothing to give where --ks 1 leaves every class whole: drop one of them.")
        if options.subclasses and options.partition == "shuffled":
            raise UserError("--partition shuffled deals subclasses out at random: leave out --subclasses.")
        if options.lock != "all" and not options.subclasses:
            raise UserError(f"--lock {options.lock} is about the subclasses of --subclasses: give both, or neither.")
        for name in ("min_pictures", "choose_every"):
            if getattr(options, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is at least 1.")
        if self.mixing.mixes and (self.divides or self.regularised):
            raise UserError("Mixed pictures have no single subclass: leave out --mixup and --cutmix.")


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
