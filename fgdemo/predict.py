"""From pictures to predictions with a checkpoint: classes, subclass, neighbours, novelty, explanation."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch

from fgdemo.checkpoint import Checkpoint, read_checkpoint
from fgdemo.checkpoint.hub import resolve
from fgdemo.checkpoint.schema import CONFIG_FILE, SUBCLASSES_FILE, WEIGHTS_FILE
from fgdemo.data.images import open_image
from fgdemo.data.transforms import Preprocessing, crop_box, eval_transform
from fgdemo.errors import UserError
from fgdemo.explain.explanation import Explanation
from fgdemo.explain.explanation import explain as explain_image
from fgdemo.gallery import Gallery, NearestSubclass
from fgdemo.models.build import build_from_config
from fgdemo.models.network import Network
from fgdemo.prediction import Box, ClassScore, Neighbour, Novelty, Prediction, SubclassMatch, SubclassShare

Picture = str | os.PathLike | bytes | PIL.Image.Image


class _Output(NamedTuple):
    """logits (B, C), embedding (B, D), and subclass logits (B, C, columns) where the network has some: float32, CPU."""

    logits: torch.Tensor
    embedding: torch.Tensor
    subclass_logits: torch.Tensor | None


class Classifier:
    """A loaded checkpoint that answers for pictures; safe to call from several threads.

    Attributes:
        checkpoint: the files it came from.
        config: content of config.json.
        classes: class names by class id.
        network: in evaluation mode on ``device``.
        gallery: the reference pictures.
        preprocessing: how pictures become the network's input.
    """

    def __init__(self, checkpoint: Checkpoint, network: Network, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.classes: tuple[str, ...] = tuple(checkpoint.config["label_names"])
        self.device = device
        self.network = network.to(device).eval()
        self.gallery = Gallery.from_checkpoint(checkpoint)
        with _blaming(checkpoint.directory / CONFIG_FILE):
            self.preprocessing = Preprocessing.from_dict(self.config["fgdemo"]["preprocessing"])
        self._transform = eval_transform(self.preprocessing)
        entries = {entry["class_id"]: entry["subclasses"] for entry in self.gallery.subclasses["classes"]}
        self._with_columns = {c: members for c, members in entries.items() if all("column" in m for m in members)}
        # Explaining records inside the network, and one picture at a time is fastest on few cores anyway.
        self._lock = threading.Lock()

    def predict(
        self,
        images: Sequence[Picture],
        *,
        top: int = 5,
        explain: bool = False,
        prototypes: int = 8,
        neighbours: int = 8,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """One Prediction for each picture, in order.

        Args:
            images: paths, bytes of image files, or Pillow pictures.
            top: how many classes to report, at most all.
            explain: also explain the first class of each picture.
            prototypes, neighbours: at most how many of each to report.
            batch_size: pictures decoded and classified at a time.

        Raises:
            UserError: a picture that cannot be read, a count that is no such number, or a network whose
                output is not finite.
        """
        for name, value, least in (
            ("top", top, 1),
            ("prototypes", prototypes, 0),
            ("neighbours", neighbours, 0),
            ("batch_size", batch_size, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} must be an integer of at least {least}, not {value!r}.")
        predictions = []
        for start in range(0, len(images), batch_size):
            pictures = [open_image(image) for image in images[start : start + batch_size]]
            predictions += self._predict_batch(pictures, top, explain, prototypes, neighbours)
        return predictions

    def embed(self, images: Sequence[Picture], *, batch_size: int = 32) -> np.ndarray:
        """Embeddings (N, D) float32 as the network gives them, of any length, in the gallery's space.

        Raises:
            UserError: a picture that cannot be read.
        """
        parts = [np.zeros((0, self.gallery.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            tensors = self._tensors([open_image(image) for image in images[start : start + batch_size]])
            parts.append(self._forward(tensors).embedding.numpy())
        return np.concatenate(parts)

    def explain(self, image: Picture, class_id: int | None = None, *, k: int | None = None) -> Explanation:
        """Where the network looks: attention votes, or the activation map of a class.

        Args:
            class_id: of an activation map; the predicted class when None. Votes do not depend on it.
            k: votes of each head; about 3 % of the patches when None.

        Raises:
            UserError: unreadable picture, unknown class, ``k`` out of range, or nothing to show.
        """
        if class_id is not None and not 0 <= class_id < len(self.classes):
            raise UserError(f"There are classes 0 to {len(self.classes) - 1}, not {class_id}.")
        picture = open_image(image)
        return self._explain(self._tensors([picture])[0], crop_box(picture.size, self.preprocessing), class_id, k)

    def _tensors(self, pictures: list[PIL.Image.Image]) -> torch.Tensor:
        return torch.stack([self._transform(picture) for picture in pictures]).to(self.device)

    def _forward(self, tensors: torch.Tensor) -> _Output:
        with self._lock, torch.inference_mode():
            output = self.network(tensors)
            logits, embedding = output.logits.float().cpu(), output.embedding.float().cpu()
            inside = getattr(output, "subclass_logits", None)
            inside = inside.float().cpu() if inside is not None else None
        if not (logits.isfinite().all() and embedding.isfinite().all()):
            raise UserError("The network's output is not finite; the checkpoint's weights are of no use.")
        return _Output(logits, embedding, inside)

    def _explain(self, tensor: torch.Tensor, box: Box, class_id: int | None, k: int | None = None) -> Explanation:
        with self._lock:
            return explain_image(self.network, tensor, box, k=k, target=class_id)

    def _predict_batch(
        self, pictures: list[PIL.Image.Image], top: int, explain: bool, prototypes: int, neighbours: int
    ) -> list[Prediction]:
        tensors = self._tensors(pictures)
        logits, embedding, inside = self._forward(tensors)
        probability, order = logits.softmax(dim=1).sort(dim=1, descending=True, stable=True)
        first = order[:, 0].numpy()
        nearest = self.gallery.nearest_subclass(embedding, first)
        # The nearest training picture is also the measure of novelty, so one is always looked up.
        rows, distances = self.gallery.neighbours(embedding, max(neighbours, 1))
        result = []
        for i, picture in enumerate(pictures):
            scores = zip(order[i, :top].tolist(), probability[i, :top].tolist(), strict=True)
            subclass, runner_up = self._matches(nearest, i)
            central = self.gallery.prototypes(subclass.id, prototypes).tolist() if subclass else []
            box = crop_box(picture.size, self.preprocessing)
            result.append(
                Prediction(
                    classes=tuple(ClassScore(c, self.classes[c], p) for c, p in scores),
                    superclass=self.config["fgdemo"]["superclass_names"][first[i]],
                    subclass=subclass,
                    runner_up=runner_up,
                    posterior=self._posterior(inside[i, first[i]], int(first[i])) if inside is not None else (),
                    prototypes=tuple(central),
                    prototype_keys=tuple(self.gallery.keys[row] for row in central),
                    neighbours=self._neighbours(rows[i, :neighbours], distances[i, :neighbours]),
                    novelty=self._novelty(distances[i]),
                    explanation=self._explain(tensors[i], box, int(first[i])) if explain else None,
                    box=box,
                )
            )
        return result

    def _matches(self, nearest: NearestSubclass, i: int) -> tuple[SubclassMatch | None, SubclassMatch | None]:
        def match(identity: int, distance: float) -> SubclassMatch | None:
            if identity == -1:
                return None
            member = self.gallery.members[identity]
            return SubclassMatch(identity, member["name"], member["size"], distance)

        best = match(int(nearest.id[i]), float(nearest.distance[i]))
        return best, match(int(nearest.runner_up[i]), float(nearest.runner_up_distance[i]))

    def _posterior(self, columns: torch.Tensor, class_id: int) -> tuple[SubclassShare, ...]:
        """The head's probabilities of the subclasses of a class, from its (columns,) subclass logits."""
        members = self._with_columns.get(class_id, [])
        own = columns[[member["column"] for member in members]]
        if not own.isfinite().any():
            # no subclass has a column, or training gave the head none of these
            return ()
        shares = zip(members, own.softmax(0).tolist(), strict=True)
        found = (SubclassShare(member["id"], member["name"], share) for member, share in shares)
        return tuple(sorted(found, key=lambda share: -share.probability))

    def _neighbours(self, rows: np.ndarray, distances: np.ndarray) -> tuple[Neighbour, ...]:
        return tuple(
            Neighbour(
                row,
                self.gallery.keys[row],
                self.classes[self.gallery.class_id[row]],
                int(self.gallery.subclass_id[row]),
                distance,
            )
            for row, distance in zip(rows.tolist(), distances.tolist(), strict=True)
        )

    def _novelty(self, distances: np.ndarray) -> Novelty | None:
        setting = self.config["fgdemo"]["novelty"]
        if setting is None or not len(distances):
            return None
        score, threshold = float(distances[0]), float(setting["threshold"])
        return Novelty(score, threshold, score > threshold)


def load(path_or_hub_id: str | Path, *, device: str = "auto", revision: str | None = None) -> Classifier:
    """Load a checkpoint from a folder or the Hub (``USER/NAME``, ``hf://USER/NAME@REVISION``).

    Args:
        device: a torch device, or "auto": a GPU where there is one.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: not found, malformed, or weights that do not fit the network that config.json describes.
    """
    chosen = _device(device)
    checkpoint = read_checkpoint(resolve(path_or_hub_id, revision))
    config_path = checkpoint.directory / CONFIG_FILE
    with _blaming(config_path):
        network = build_from_config(checkpoint.config)
    with _blaming(checkpoint.directory / WEIGHTS_FILE):
        network.load_weights(checkpoint.weights(), strict=True)
    classifier = Classifier(checkpoint, network, chosen)
    with _blaming(config_path):
        _check_output(classifier)
    return classifier


def _check_output(classifier: Classifier) -> None:
    """One empty picture through the network, so that a mismatch shows on loading and not on the first picture."""
    blank = torch.zeros(1, *classifier.preprocessing.input_size, device=classifier.device)
    logits, embedding, _ = classifier._forward(blank)
    if logits.shape[1] != len(classifier.classes):
        raise UserError(f'field "num_classes": the network has {logits.shape[1]} outputs.')
    if embedding.shape[1] != classifier.gallery.dim:
        raise UserError(f'field "fgdemo.embedding.dim": the network gives {embedding.shape[1]} features.')
    if any("column" in member for member in classifier.gallery.members.values()):
        told, own = classifier.gallery.subclasses["ks"], list(getattr(classifier.network, "ks", ()))
        if told != own:
            raise UserError(f'the columns in {SUBCLASSES_FILE} are those of "ks" {told}, but the network has {own}.')


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"The device {name!r} is not available here; choose cpu, cuda, mps or auto.") from error
    return device


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Make whatever a file's content leads to a sentence that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (AttributeError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path} describes no network that works here ({type(error).__name__}: {reason}); "
            "export the checkpoint again."
        ) from error
