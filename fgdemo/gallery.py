"""The reference pictures of a checkpoint: embeddings, classes, subclasses, thumbnails; no model needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from fgdemo.checkpoint.schema import subclass_classes
from fgdemo.checkpoint.store import Checkpoint
from fgdemo.checkpoint.tensors import decode_keys, pack
from fgdemo.data.images import decode_thumbnail
from fgdemo.errors import UserError

SPLITS = ("train", "val", "test")
TRAIN = SPLITS.index("train")
_CHUNK = 1 << 16


class NearestSubclass(NamedTuple):
    """The two nearest subclasses inside one class; id -1 and distance NaN where there is none."""

    id: np.ndarray | int
    distance: np.ndarray | float
    runner_up: np.ndarray | int
    runner_up_distance: np.ndarray | float


def _unit(x: np.ndarray | torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows of unit length; a zero row stays zero, at cosine distance 1 from everything."""
    return F.normalize(torch.as_tensor(x).detach().cpu().to(dtype), dim=-1)


@dataclass(frozen=True)
class Gallery:
    """Reference pictures of a checkpoint, in one declared embedding space. Distances are cosine, 1 - cos.

    Only training rows serve neighbours and prototypes. Arrays may be memory-mapped and are never changed.

    Attributes:
        embeddings: (N, D) float16, rows of unit length.
        class_id: (N,) int32.
        subclass_id: (N,) int32, -1 for none.
        split: (N,) uint8, an index into ``SPLITS``.
        keys: N sample keys.
        thumbnails: uint8 bytes of all encoded thumbnails, one after another.
        thumbnail_offsets: (N + 1,) int64 into ``thumbnails``; an empty slice means no picture.
        centroids: (S, D) float32, rows in ascending subclass id.
        centroid_ids: (S,) int32.
        subclasses: content of subclasses.json.
        hypotheses: (N, M) int16, for each K of ``subclasses["ks"]`` the row's cluster 0..K-1 inside its class, -1
            where there is none; None where there is no such list.
    """

    embeddings: np.ndarray
    class_id: np.ndarray
    subclass_id: np.ndarray
    split: np.ndarray
    keys: Sequence[str]
    thumbnails: np.ndarray
    thumbnail_offsets: np.ndarray
    centroids: np.ndarray
    centroid_ids: np.ndarray
    subclasses: dict[str, Any]
    hypotheses: np.ndarray | None = None

    @classmethod
    def build(
        cls,
        embeddings: np.ndarray | torch.Tensor,
        *,
        class_id: np.ndarray,
        split: np.ndarray,
        keys: Sequence[str],
        thumbnails: Sequence[bytes] | None = None,
        subclass_id: np.ndarray,
        subclasses: dict[str, Any],
        centroids: np.ndarray | None = None,
    ) -> Gallery:
        """A gallery from embeddings of any length; see ``with_subclasses`` for the last three arguments.

        Raises:
            UserError: embeddings with NaN or infinity, or a subclass without a training row.
        """
        vectors = torch.as_tensor(embeddings).detach().cpu().float()
        finite = vectors.isfinite().all(dim=1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise UserError(f'The embedding of "{keys[row]}" holds NaN or infinity; the network has diverged.')
        data, offsets = pack(list(thumbnails) if thumbnails is not None else [b""] * len(keys))
        dim = vectors.shape[1]
        empty = cls(
            embeddings=_unit(vectors).half().numpy(),
            class_id=np.asarray(class_id, np.int32),
            subclass_id=np.full(len(keys), -1, np.int32),
            split=np.asarray(split, np.uint8),
            keys=list(keys),
            thumbnails=data.numpy(),
            thumbnail_offsets=offsets.numpy(),
            centroids=np.zeros((0, dim), np.float32),
            centroid_ids=np.zeros(0, np.int32),
            subclasses={},
        )
        return empty.with_subclasses(subclass_id, subclasses, centroids)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Gallery:
        """The gallery of a read checkpoint; embeddings and thumbnails stay on disk until touched."""
        tensors = {name: tensor.numpy() for name, tensor in checkpoint.gallery_tensors().items()}
        keys = decode_keys(tensors.pop("keys"), tensors.pop("key_offsets"))
        return cls(**tensors, keys=keys, subclasses=checkpoint.subclasses)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of gallery.safetensors, as ``write_checkpoint`` takes them."""
        keys, key_offsets = pack([key.encode("utf-8") for key in self.keys])
        names = ("embeddings", "class_id", "subclass_id", "split", "thumbnails", "thumbnail_offsets")
        arrays = {name: getattr(self, name) for name in (*names, "centroids", "centroid_ids")}
        if self.hypotheses is not None:
            arrays["hypotheses"] = self.hypotheses
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return {**tensors, "keys": keys, "key_offsets": key_offsets}

    def with_subclasses(
        self,
        subclass_id: np.ndarray,
        subclasses: dict[str, Any],
        centroids: np.ndarray | None = None,
        *,
        hypotheses: np.ndarray | None = None,
    ) -> Gallery:
        """The same pictures under another subdivision; this gallery is left as it is.

        Args:
            subclass_id: (N,) subclass of every row, -1 for none.
            subclasses: content of subclasses.json that lists these ids.
            centroids: (S, D) in ascending subclass id; the mean of the unit embeddings of each subclass's
                training rows when None.
            hypotheses: (N, M) for the numbers ``subclasses["ks"]``, those of this gallery when None; without such
                numbers the new gallery has none.

        Raises:
            UserError: a listed subclass has no training row and no centroid was given.
        """
        ids = np.fromiter(subclass_classes(subclasses), np.int32) if subclasses else np.zeros(0, np.int32)
        rows = np.asarray(subclass_id, np.int32)
        if centroids is None:
            centroids = self._means(rows, ids)
        kept = self.hypotheses if hypotheses is None else np.asarray(hypotheses, np.int16)
        return replace(
            self,
            subclass_id=rows,
            subclasses=subclasses,
            centroids=np.asarray(centroids, np.float32),
            centroid_ids=ids,
            hypotheses=kept if "ks" in subclasses else None,
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dim(self) -> int:
        return self.embeddings.shape[1]

    @cached_property
    def train_rows(self) -> np.ndarray:
        """Ascending rows of the training split."""
        return np.flatnonzero(self.split == TRAIN)

    @cached_property
    def centroid_class(self) -> np.ndarray:
        """(S,) class id of every centroid."""
        owners = subclass_classes(self.subclasses) if self.subclasses else {}
        return np.fromiter(owners.values(), np.int64, len(owners))

    @cached_property
    def members(self) -> dict[int, dict[str, Any]]:
        """Entry of subclasses.json by subclass id."""
        return {m["id"]: m for entry in self.subclasses.get("classes", []) for m in entry["subclasses"]}

    def thumbnail(self, row: int) -> PIL.Image.Image | None:
        """The small picture of a row, or None where the checkpoint carries none.

        Raises:
            UserError: the stored bytes are not a picture.
        """
        start, end = self.thumbnail_offsets[row : row + 2]
        return decode_thumbnail(self.thumbnails[start:end].tobytes()) if end > start else None

    def prototypes(self, subclass_id: int, n: int) -> np.ndarray:
        """At most ``n`` training rows of a subclass, nearest to its centroid first, ties by lowest row.

        Raises:
            UserError: no such subclass.
        """
        position = np.flatnonzero(self.centroid_ids == subclass_id)
        if not len(position):
            raise UserError(f"There is no subclass {subclass_id} in this checkpoint; its subclasses may have changed.")
        rows = np.flatnonzero((self.subclass_id == subclass_id) & (self.split == TRAIN))
        distances = 1 - _unit(self.embeddings[rows]) @ _unit(self.centroids[position[0]])
        return rows[np.argsort(distances.numpy(), kind="stable")[:n]]

    def neighbours(self, embedding: np.ndarray | torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Nearest training rows of each query, in chunks of the gallery, so memory does not grow with N.

        Args:
            embedding: (B, D) of any length.
            n: how many; fewer come back where the gallery has fewer training rows.

        Returns:
            rows (B, n) int64 and cosine distances (B, n) float32, ascending, ties by lowest row.
        """
        # Double precision, the cosine rounded: else equal pictures differ in the last bit by the chunk they fall into.
        queries = _unit(embedding, torch.float64)
        candidates = torch.from_numpy(self.train_rows)
        rows = torch.empty(len(queries), 0, dtype=torch.int64)
        distances = torch.empty(len(queries), 0)
        for chunk in candidates.split(_CHUNK):
            found = 1 - (queries @ _unit(self.embeddings[chunk.numpy()], torch.float64).T).float()
            best, position = found.topk(min(n, len(chunk)), dim=1, largest=False)
            rows = torch.cat([rows, chunk[position]], dim=1)
            distances = torch.cat([distances, best], dim=1)
            # Sorting by row first makes the stable sort by distance break ties by lowest row.
            rows, order = rows.sort(dim=1)
            distances, order = distances.gather(1, order).sort(dim=1, stable=True)
            rows, distances = rows.gather(1, order)[:, :n], distances[:, :n]
        return rows.numpy(), distances.clamp_min(0).numpy()

    def nearest_subclass(self, embedding: np.ndarray | torch.Tensor, class_id: np.ndarray | int) -> NearestSubclass:
        """The nearest current centroid inside a class, and the runner-up.

        Args:
            embedding: (B, D), or (D,) for one query.
            class_id: (B,), or one integer for one query.

        Returns:
            Arrays (B,), or scalars for one query.
        """
        queries = _unit(embedding)
        single = queries.ndim == 1
        inside = self.centroid_class == np.atleast_1d(np.asarray(class_id, np.int64))[:, None]
        distances = (1 - torch.atleast_2d(queries) @ _unit(self.centroids).T).clamp_min(0).numpy()
        distances = np.pad(np.where(inside, distances, np.inf), ((0, 0), (0, 2)), constant_values=np.inf)
        order = np.argsort(distances, axis=1, kind="stable")[:, :2]
        best = np.take_along_axis(distances, order, axis=1)
        ids = np.append(self.centroid_ids, [-1, -1])[order]
        ids, best = np.where(np.isinf(best), -1, ids), np.where(np.isinf(best), np.nan, best)
        result = NearestSubclass(ids[:, 0], best[:, 0], ids[:, 1], best[:, 1])
        return NearestSubclass(*(column[0].item() for column in result)) if single else result

    def _means(self, subclass_id: np.ndarray, ids: np.ndarray) -> np.ndarray:
        used = np.flatnonzero((self.split == TRAIN) & (subclass_id != -1))
        position = np.searchsorted(ids, subclass_id[used])
        sums = torch.zeros(len(ids), self.dim, dtype=torch.float64)
        for chunk in torch.arange(len(used)).split(_CHUNK):
            vectors = _unit(self.embeddings[used[chunk]]).double()
            sums.index_add_(0, torch.from_numpy(position[chunk]), vectors)
        counts = np.bincount(position, minlength=len(ids))
        if (counts == 0).any():
            raise UserError(
                f"Subclass {ids[counts.argmin()]} has no training picture; leave it out or give its centroid."
            )
        return (sums.numpy() / counts[:, None]).astype(np.float32)
