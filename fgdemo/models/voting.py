"""Multi-scale ensemble voting on any timm vision transformer.

IELT (Xu et al., Fine-grained Visual Classification via Internal Ensemble Learning Transformer, IEEE TMM 2023) with the
multi-scale enhancement, the merger of inattentive tokens and the class-token embedding of its DINOv2 extension. Each
attention head of each block votes for the patches that the class token attends to most; the winners of all blocks form
a cross-layer pool, which one block refines and votes down to a few tokens, which another block classifies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgdemo.errors import UserError
from fgdemo.models.candidates import Pool
from fgdemo.models.class_rows import RowTaps
from fgdemo.models.encoder import Encoder
from fgdemo.models.encoder_config import describe_encoder, encoder_arguments
from fgdemo.models.enhancement import Enhancement
from fgdemo.models.network import Network, register_network
from fgdemo.models.quotas import Quotas
from fgdemo.models.trunk import cut_top, new_stage
from fgdemo.models.votes import confident_votes, head_votes, mean_attention, ranking
from fgdemo.models.voting_settings import VotingSettings


class VotingOutput(NamedTuple):
    """What a forward pass gives, for B pictures, C classes and R survivors.

    logits (B, C) final; embedding (B, D) the classified token; cross_logits (B, C) of the refining block's class token;
    key_logits (B, C) of the key block's (final without the assistance); class_token (B, D) of the trunk, as it is;
    picked (B, R) int64, the block that each survivor came from.
    """

    logits: Tensor
    embedding: Tensor
    cross_logits: Tensor
    key_logits: Tensor
    class_token: Tensor
    picked: Tensor


class VotingTrace(NamedTuple):
    """What was voted for, for L trunk blocks, H heads, S scales and T candidates (M more where tokens are merged).

    rows (B, L, H, N) float32 attention logits of the class token; votes (B, L, N) before and scores (B, L, N) after
    the enhancement, scale_scores (B, L, S, N) by scale; block (T,), rank (T,) and position (B, T) int64 of every
    candidate, its rank among its block's, and its patch in raster order; score (B, T) of the candidate; final_votes
    (B, T + M); refined (B, R) int64 pointers into the pool, best first; quotas (L,) int64.
    """

    rows: Tensor
    votes: Tensor
    scores: Tensor
    scale_scores: Tensor
    block: Tensor
    rank: Tensor
    position: Tensor
    score: Tensor
    final_votes: Tensor
    refined: Tensor
    quotas: Tensor


@register_network("voting")
class VotingNetwork(Network):
    """A trunk of all blocks but the last, whose place a refining and a key block take, and one linear classifier.

    Rotary position embeddings stay in the trunk: candidates enter the new blocks without them, as they do without a
    position table of their own. The new blocks and their norms start as copies of those that they replace, and a
    classifier that came with the weights for as many classes is kept.

    Args:
        architecture: any timm vision transformer with a class token, at least two blocks deep.
        settings: as a dictionary, chosen ones only; the rest follows from the grid (`VotingSettings.for_grid`).

    Raises:
        UserError: an encoder without class-token attention, settings that cannot be, or anything `Encoder` refuses.
    """

    encoder_is_whole = False

    def __init__(
        self,
        architecture: str,
        *,
        num_classes: int,
        settings: dict[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        img_size: int | tuple[int, int] | None = None,
        model_args: dict[str, Any] | None = None,
        data_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"A classifier needs at least one class, not {num_classes}.")
        self.num_classes = num_classes
        encoder = Encoder(
            architecture,
            pretrained=pretrained,
            weights=weights,
            img_size=img_size,
            num_classes=num_classes,
            model_args=model_args,
            data_config=data_config,
        )
        if not encoder.has_class_rows or encoder.num_blocks < 2:
            raise UserError(
                f"{architecture} has no attention heads to vote: choose a vision transformer with a class token and "
                "at least two blocks, for example vit_small_patch16_224."
            )
        self.encoder = encoder
        top = cut_top(encoder)
        self.patches = encoder.grid_of(encoder.input_size)
        blocks, patches, dim = encoder.num_blocks, self.patches[0] * self.patches[1], encoder.dim
        self.settings = VotingSettings.for_grid(patches, blocks, **(settings or {}))
        chosen = self.settings

        # Parameters that no output depends on would have no gradient: nothing is learned for what is not selected.
        pooled = chosen.selection != "class-token"
        scored = chosen.selection == "votes" or (pooled and chosen.merger)
        self.enhancement = Enhancement(
            chosen.dilations,
            combine=chosen.combine,
            border=chosen.border,
            kernel=chosen.kernel if scored else "fixed",
        )
        self.quotas = Quotas(blocks, chosen.candidates, start=chosen.rates, floor=chosen.quota_floor, cap=patches)
        self.candidate_norm = nn.LayerNorm(dim, eps=1e-6) if chosen.candidate_norm else nn.Identity()
        self.layer_embedding = nn.Embedding(blocks, dim) if chosen.layer_embedding and pooled else None
        if self.layer_embedding is not None:
            nn.init.zeros_(self.layer_embedding.weight)
        self.refine_block, self.refine_norm = new_stage(top, dim, chosen.new_blocks)
        self.key_block = self.key_norm = None
        if chosen.key_block:
            self.key_block, self.key_norm = new_stage(top, dim, chosen.new_blocks)
        self.head_is_new = top.classifier is None or chosen.zero_head
        self.head = _new_head(dim, num_classes) if top.classifier is None else top.classifier
        if chosen.zero_head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.taps = RowTaps()
        for block in encoder.net.blocks:
            self.taps.tap(block, encoder.num_prefix_tokens)
        self.taps.tap(self.refine_block, 1)

    @property
    def pool_size(self) -> int:
        """Candidates that the refining block sees, merged tokens included."""
        settings = self.settings
        if settings.selection == "class-token":
            return 0
        return settings.candidates + (self.encoder.num_blocks if settings.merger else 0)

    def forward(self, images: Tensor) -> VotingOutput:
        """(B, 3, H, W) float, preprocessed by `encoder.data_config` -> VotingOutput."""
        return self._classify(self._pool(images))[0]

    def trace(self, images: Tensor) -> tuple[VotingOutput, VotingTrace]:
        """A forward pass and all that was voted for in it, which `forward` does not keep."""
        pool = self._pool(images, {})
        output, final_votes, refined = self._classify(pool)
        kept = {name: torch.stack(values, dim=1) for name, values in pool.trace.items()}
        place = kept["order"][:, pool.block, pool.rank]
        score = kept["scores"][:, pool.block].gather(2, place[..., None])[..., 0]
        return output, VotingTrace(
            kept["rows"],
            kept["votes"],
            kept["scores"],
            kept["scale_scores"],
            pool.block,
            pool.rank,
            place,
            score,
            final_votes,
            refined,
            pool.block.bincount(minlength=self.encoder.num_blocks),
        )

    def _pool(self, images: Tensor, trace: dict[str, list[Tensor]] | None = None) -> Pool:
        """Run the trunk and let its heads vote."""
        h, w = self.encoder.grid_of(images.shape[-2:])
        if self.settings.votes > h * w:
            raise UserError(
                f"Each head votes for {self.settings.votes} patches, but a picture of this size has {h * w}."
            )
        pool = Pool(
            self.settings,
            self.enhancement,
            *self.quotas.table(h * w),
            grid=(h, w),
            prefix=self.encoder.num_prefix_tokens,
            random_order=self._random_order,
            trace=trace,
        )
        self.taps.listen(pool.add)
        try:
            self.encoder.net.forward_features(images)
        finally:
            self.taps.end()
        return pool

    def _classify(self, pool: Pool) -> tuple[VotingOutput, Tensor, Tensor]:
        """The output, votes of the final vote (B, S), and the survivors (B, R) as pointers into the pool."""
        trunk_token = self.candidate_norm(pool.class_token)
        candidates = self._candidates(pool)
        row, tokens = self._refine(torch.cat([trunk_token[:, None], candidates], dim=1))
        tokens = self.refine_norm(tokens)
        cross_token, candidates = tokens[:, 0], tokens[:, 1:]
        cross_logits = key_logits = self.head(cross_token)
        final_votes, refined = self._final_vote(row)
        embedding = cross_token
        if self.key_block is not None:
            first = trunk_token if self.settings.key_token == "trunk" else cross_token
            survivors = candidates.gather(1, refined[..., None].expand(-1, -1, candidates.shape[-1]))
            sequence = torch.cat([first[:, None].to(survivors.dtype), survivors], dim=1)
            embedding = self.key_norm(self.key_block(sequence)[:, 0])
            key_logits = self.head(embedding)
        logits = key_logits
        if self.settings.assist and self.key_block is not None:
            # Row sums, as published; an early form averaged.
            logits = logits + cross_logits.softmax(dim=1) * self.head.weight.sum(dim=1)
        picked = self._blocks_of_pool(pool)[refined]
        return (
            VotingOutput(logits, embedding, cross_logits, key_logits, pool.class_token, picked),
            final_votes,
            refined,
        )

    def _candidates(self, pool: Pool) -> Tensor:
        """(B, S, D): selected tokens in order of their blocks, then merged ones."""
        if self.settings.selection == "class-token":
            return pool.class_token[:, None][:, :0]
        candidates = torch.cat([pool.tokens, *(token[:, None] for token in pool.merged)], dim=1)
        candidates = self.candidate_norm(candidates)
        if self.layer_embedding is not None:
            candidates = candidates + self.layer_embedding(self._blocks_of_pool(pool))
        return candidates

    def _blocks_of_pool(self, pool: Pool) -> Tensor:
        """(S,) block that each member of the pool came from."""
        if not pool.merged:
            return pool.block
        return torch.cat([pool.block, torch.arange(len(pool.merged), device=pool.block.device)])

    def _refine(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """The refining block's class row (B, H, S) and its output (B, 1 + S, D)."""
        seen: dict[str, Tensor] = {}

        def keep(row: Tensor, tokens: Tensor) -> None:
            seen["row"] = row

        self.taps.listen(keep)
        try:
            tokens = self.refine_block(sequence)
        finally:
            self.taps.end()
        return seen["row"], tokens

    def _final_vote(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, S) -> votes (B, S) for the candidates, whose order has no meaning in space, and the best (B, R)."""
        settings = self.settings
        if settings.selection == "class-token":
            return row[:, 0], row[:, 0].long()
        count = head_votes if settings.weights == "equal" else confident_votes
        votes = count(row, settings.final_votes)
        if settings.selection == "random":
            order = self._random_order(self.encoder.num_blocks, votes.float())
        elif settings.selection == "attention":
            order = ranking(mean_attention(row))
        else:
            order = ranking(votes, mean_attention(row) if settings.ties == "attention" else None)
        return votes, order[:, : settings.refined]

    def _random_order(self, block: int, like: Tensor) -> Tensor:
        """(B, N) orders of N places: fresh ones in training; in evaluation one, so that its figures repeat."""
        if self.training:
            return ranking(torch.rand_like(like))
        return ranking(_lots(block, like.shape[1], like.device)).expand(like.shape[0], -1)

    def load_weights(self, tensors: dict[str, Tensor], strict: bool = True) -> None:
        super().load_weights(tensors, strict)
        self.quotas.check()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VotingNetwork:
        """The network of a config.json.

        Raises:
            UserError: settings or an encoder that cannot be.
        """
        given = config["fgdemo"]["network_args"]
        settings = VotingSettings.from_dict(given["settings"]).to_dict()
        arguments = encoder_arguments({**config, "architecture": given["architecture"]})
        return cls(num_classes=config["num_classes"], settings=settings, **arguments)

    def config(self) -> dict[str, Any]:
        return {k: v for k, v in describe_encoder(self.encoder, self.num_classes).items() if k != "architecture"}

    def network_args(self) -> dict[str, Any]:
        architecture = describe_encoder(self.encoder, self.num_classes)["architecture"]
        return {"architecture": architecture, "settings": self.settings.to_dict()}

    def new_modules(self) -> tuple[str, ...]:
        if not self.encoder.is_pretrained:
            return ()
        kept = ("encoder",) if self.head_is_new else ("encoder", "head")
        return tuple(name for name, _ in self.named_children() if name not in kept)

    def head_modules(self) -> tuple[nn.Module, ...]:
        return tuple(module for name, module in self.named_children() if name != "encoder")


def _new_head(dim: int, num_classes: int) -> nn.Linear:
    head = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def _lots(block: int, size: int, device: torch.device) -> Tensor:
    """(size,) distinct int64 in disorder, the same ones on every device and for every size (after MurmurHash3)."""
    lots = (torch.arange(size, device=device) + (block + 1) * 0x9E3779B9) & 0x7FFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        lots = ((lots ^ (lots >> shift)) * factor) & 0x7FFFFFFF
    return lots ^ (lots >> 16)
