"""A run's folder, read back: the options, data set and network that it was trained with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fgdemo.data import Catalogue, Preprocessing
from fgdemo.errors import UserError
from fgdemo.models import Network, build_from_config
from train.cli import build_parser, split_namespace
from train.data import open_catalogue
from train.methods import METHODS, DataInfo, Method
from train.options import GROUPS, DataOptions, OptimOptions, RunOptions
from train.state import TrainingState, list_states, load_state


@dataclass(frozen=True)
class SavedRun:
    """What `train` wrote into `folder`.

    Attributes:
        method: name of the method.
        command: the training command, without the folders of the machine it ran on.
        network_config: what config.json says of the network, as it was built for training.
        preprocessing: how pictures were put into it.
        values: all options, as plain values.
        own: the method's options.
    """

    folder: Path
    method: str
    command: str
    network_config: dict[str, Any]
    preprocessing: Preprocessing
    values: dict[str, Any]
    data: DataOptions
    optim: OptimOptions
    run: RunOptions
    own: object
    catalogue: Catalogue

    @classmethod
    def open(cls, folder: Path, data_root: str | None = None) -> SavedRun:
        """Read a run's folder; `data_root` says where the data set lies if it has moved.

        Raises:
            UserError: not a run's folder, or the data set is not there.
        """
        try:
            about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            text = (folder / "options.yaml").read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{folder} is not the folder of a run ({Path(error.filename).name} is missing): give the --output "
                "of a training command."
            ) from error
        method = METHODS[about["method"]]
        groups = (*GROUPS, method.Options)
        values = build_parser("options", "", groups).parse_string(text)
        data, _, _, optim, run, own = split_namespace(values, groups)
        saved, data.data_root = data.data_root, data_root or data.data_root
        load = partial(open_catalogue, data, run.seed)
        catalogue = load() if data_root else open_where_trained(folder, saved, load)
        return cls(
            folder=folder,
            method=method.name,
            command=about["command"],
            network_config=about["network"],
            preprocessing=Preprocessing.from_dict(about["preprocessing"]),
            values={key: value for key, value in values.as_dict().items() if key != "config"},
            data=data,
            optim=optim,
            run=run,
            own=own,
            catalogue=catalogue,
        )

    @property
    def level(self) -> str:
        """The level of the hierarchy that training saw."""
        return self.data.labels or self.catalogue.default_labels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.catalogue.class_names(self.level)

    def load_network(self, which: str) -> tuple[int, Network]:
        """The optimiser step and the network of the `best` or `last` epoch; averaged weights if the run kept them.

        Raises:
            UserError: no epoch has ended yet, or the state is damaged.
        """
        states = list_states(self.folder / "best") if which == "best" else []
        states = states or list_states(self.folder / "state")
        if not states:
            raise UserError(f"{self.folder} holds no saved state: let the run reach the end of its first epoch.")
        state = load_state(states[-1])
        return state.step, self._network(state)

    def load_method(self) -> Method:
        """The method with what it knew at the end of the last epoch that was saved.

        Raises:
            UserError: the state is damaged.
        """
        method = METHODS[self.method](self.own, DataInfo.of(self.catalogue, self.level))
        method.load_state_dict(load_state(list_states(self.folder / "state")[-1]).tensors["method"])
        return method

    def epochs(self) -> list[tuple[int, Path]]:
        """The epochs whose weights the run kept (`--snapshot-every`), ascending, for `load_epoch`."""
        paths = list_states(self.folder / "epochs")
        return [(json.loads((path / "info.json").read_text(encoding="utf-8"))["epoch"], path) for path in paths]

    def load_epoch(self, path: Path) -> Network:
        """The network at one of `epochs`.

        Raises:
            UserError: its file is damaged.
        """
        return self._network(load_state(path))

    def _network(self, state: TrainingState) -> Network:
        network = build_from_config(self.network_config)
        network.load_state_dict(state.tensors.get("ema", state.tensors["model"]))
        return network.eval()


def saved_data_root(folder: Path) -> str | None:
    """Where the data set of the run in `folder` lay during training; None where it needed no folder.

    Raises:
        UserError: the run's options cannot be read.
    """
    path = folder / "options.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: train the run again with --overwrite.") from error
    return values.get("data_root") if isinstance(values, dict) else None


def open_where_trained(folder: Path, saved: str | None, load: Callable[[], Catalogue]) -> Catalogue:
    """What `load` reads from `saved`, where the data set of the run in `folder` lay during training.

    Raises:
        UserError: the data set is not there.
    """
    try:
        return load()
    except UserError as error:
        if not saved or Path(saved).expanduser().exists():
            raise
        raise UserError(
            f"{folder} was trained on the data set in {saved}, which no longer exists: say where it lies now with "
            "--data-root."
        ) from error
