"""Ensemble voting in plain loops over pictures, heads, patches and scales, on attention that timm materialises."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fgdemo.models.voting import VotingNetwork


class PlainVoting(NamedTuple):
    """logits, cross_logits and embedding (B, .); and for each picture votes and scores [block][patch], candidates
    [(block, patch)], final_votes [candidate], refined [candidate] and picked [block]."""

    logits: Tensor
    cross_logits: Tensor
    embedding: Tensor
    votes: list[list[list[float]]]
    scores: list[list[list[float]]]
    candidates: list[list[tuple[int, int]]]
    final_votes: list[list[float]]
    refined: list[list[int]]
    picked: list[list[int]]


@torch.no_grad()
def plain_voting(network: VotingNetwork, images: Tensor) -> PlainVoting:
    """The whole method, picture by picture; every selection but the random one."""
    grid = network.encoder.grid_of(images.shape[-2:])
    pictures = [_one_picture(network, image, grid) for image in images]
    stacked = [torch.stack([picture[i] for picture in pictures]) for i in range(3)]
    return PlainVoting(*stacked, *([picture[i] for picture in pictures] for i in range(3, 9)))


def _one_picture(network: VotingNetwork, image: Tensor, grid: tuple[int, int]) -> tuple:
    settings, prefix = network.settings, network.encoder.num_prefix_tokens
    net = network.encoder.net
    attention, tokens = materialised(list(net.blocks), lambda: net.forward_features(image[None]))
    class_token = tokens[-1][0]
    votes, scores, candidates, pool, merged = [], [], [], [], []
    for block in range(len(net.blocks)):
        rows = [_patches_only(attention[block][head][0], prefix) for head in range(len(attention[block]))]
        patches = tokens[block][prefix:]
        votes.append(_votes(rows, settings.votes, settings.weights))
        scores.append(_scores(network, votes[-1], grid))
        quota = int(network.quotas.quota[block])
        chosen = _best(scores[-1], rows, settings)[:quota]
        candidates += [(block, patch) for patch in chosen]
        pool += [patches[patch] for patch in chosen]
        merged.append(_merged(patches, scores[-1], chosen))
    origin = [block for block, _ in candidates]
    if settings.merger:
        pool, origin = pool + merged, [*origin, *range(len(merged))]
    if settings.selection == "class-token":
        pool, origin, candidates = [], [], []
    pool = [network.candidate_norm(token) for token in pool]
    if network.layer_embedding is not None:
        pool = [token + network.layer_embedding.weight[block] for token, block in zip(pool, origin, strict=True)]

    first = network.candidate_norm(class_token)
    sequence = torch.stack([first, *pool])
    (heads,), (refined_tokens,) = materialised([network.refine_block], lambda: network.refine_block(sequence[None]))
    refined_tokens = network.refine_norm(refined_tokens)
    final_votes, best = [], []
    if pool:
        rows = [_patches_only(head[0], 1) for head in heads]
        final_votes = _votes(rows, settings.final_votes, settings.weights)
        best = _best(final_votes, rows, settings)[: settings.refined]
    cross = refined_tokens[0]
    cross_logits = network.head(cross)
    logits, embedding = cross_logits, cross
    if network.key_block is not None:
        start = first if settings.key_token == "trunk" else cross
        survivors = [refined_tokens[1 + i] for i in best]
        embedding = network.key_norm(network.key_block(torch.stack([start, *survivors])[None]))[0, 0]
        logits = network.head(embedding)
        if settings.assist:
            share = cross_logits.softmax(0)
            assistance = [float(share[c]) * float(network.head.weight[c].sum()) for c in range(len(share))]
            logits = logits + torch.tensor(assistance)
    picked = [origin[i] for i in best]
    return logits, cross_logits, embedding, votes, scores, candidates, final_votes, best, picked


def materialised(blocks: list[nn.Module], run) -> tuple[list[Tensor], list[Tensor]]:
    """Softmax over all keys (H, T, T) where attention dropout reads it, and the output (T, D), of each block."""
    attention, tokens, handles = [], [], []
    for block in blocks:
        fused, block.attn.fused_attn = block.attn.fused_attn, False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda m, a, out: attention.append(out[0])))
        handles.append(block.register_forward_hook(lambda m, a, out: tokens.append(out[0])))
    run()
    for handle in handles:
        handle.remove()
    for block in blocks:
        block.attn.fused_attn = fused
    return attention, tokens


def _patches_only(row: Tensor, prefix: int) -> list[float]:
    return row[prefix:].double().tolist()


def _votes(rows: list[list[float]], k: int, weights: str) -> list[float]:
    votes = [0.0] * len(rows[0])
    for row in rows:
        chosen = sorted(range(len(row)), key=lambda patch: (-row[patch], patch))[:k]
        total = sum(row[patch] for patch in chosen)
        for patch in chosen:
            votes[patch] += 1.0 if weights == "equal" else row[patch] / total
    return votes


def _scores(network: VotingNetwork, votes: list[float], grid: tuple[int, int]) -> list[float]:
    settings, enhancement = network.settings, network.enhancement
    h, w = grid
    scores = []
    for y in range(h):
        for x in range(w):
            responses = []
            for scale, d in enumerate(settings.dilations):
                kernel = enhancement.base[scale].tolist() if enhancement.learned else [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
                found = inside = total = 0.0
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        weight, row, column = kernel[i + 1][j + 1], y + d * i, x + d * j
                        total += abs(weight)
                        if 0 <= row < h and 0 <= column < w:
                            inside += abs(weight)
                            found += weight * votes[row * w + column]
                if settings.border == "normalised":
                    found = found * total / inside
                responses.append(found + (float(enhancement.bias[scale]) if enhancement.learned else 0.0))
            scores.append(_combined(responses, settings.combine))
    return scores


def _combined(responses: list[float], how: str) -> float:
    if how == "max":
        return max(responses)
    if how == "mean":
        return sum(responses) / len(responses)
    return math.prod(max(0.0, response) for response in responses)


def _best(scores: list[float], rows: list[list[float]], settings) -> list[int]:
    """Places, the best first; scores that differ by no more than rounding are equal."""
    places = range(len(scores))
    mean = [sum(row[place] / sum(row) for row in rows) / len(rows) for place in places]
    if settings.selection == "attention":
        return sorted(places, key=lambda place: (-mean[place], place))
    second = mean if settings.ties == "attention" else [0.0] * len(scores)
    return sorted(places, key=lambda place: (-round(scores[place], 5), -second[place], place))


def _merged(patches: Tensor, scores: list[float], chosen: list[int]) -> Tensor:
    left = [patch for patch in range(len(scores)) if patch not in chosen]
    weights = [max(0.0, scores[patch]) for patch in left]
    if sum(weights) == 0:
        weights = [1.0] * len(left)
    merged = torch.zeros_like(patches[0])
    for patch, weight in zip(left, weights, strict=True):
        merged += patches[patch] * (weight / sum(weights))
    return merged
