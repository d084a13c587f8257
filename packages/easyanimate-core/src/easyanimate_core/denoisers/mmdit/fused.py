"""A block on a GPU, in few kernels and little memory.

Text and video lie in one buffer, token after token with the batch inside, text first: `(L + S, B, D)`. So the text of a
whole batch is one matrix and its video another. Every projection is a plain product that writes where attention or the
next norm reads it, nothing is joined or copied, and each op of ours is one launch for both.

What a feed-forward makes is added by the next block, in one pass with that block's norm; until then it waits beside the
residual stream. Blocks hand both on in one list, which they change, so that nobody further up holds memory that is done
with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn

from easyanimate_core.denoisers.mmdit.products import MANY, Weights, layers_of, readable, tanh_gelu, wrapped
from easyanimate_core.kernels.ada_norm import ada_norm
from easyanimate_core.kernels.gate_residual_norm import gate_residual_norm
from easyanimate_core.kernels.qk_norm_rope import qk_norm_rope

if TYPE_CHECKING:
    from easyanimate_core.denoisers.mmdit.block import Block, Step

__all__ = ["fusable", "joined", "parted", "run"]

_NORMS: Final = (nn.LayerNorm, FP32LayerNorm)


def fusable(block: Block) -> bool:
    """Whether this block's norms are plain and not wrapped: kernels read their weights and do not call them."""
    sides = [side for side in (block.attn1, block.attn2) if side is not None]
    norms = [block.norm1.norm, block.norm2.norm, *(norm for side in sides for norm in (side.norm_q, side.norm_k))]
    return all(type(norm) in _NORMS and not wrapped(norm) for norm in norms)


def joined(streams: list[Tensor]) -> list[Tensor]:
    """Video `(B, S, D)` and text `(B, L, D)` in one buffer `(L + S, B, D)`; the list is emptied."""
    text, video = streams.pop().transpose(0, 1), streams.pop().transpose(0, 1)
    return [torch.cat([text, video])]


def parted(streams: list[Tensor], text: int) -> list[Tensor]:
    """Video `(B, S, D)` and text `(B, L, D)` with everything added; the list is emptied.

    Args:
        streams: as a block left them.
        text: how many of the tokens are text; none after a block whose text nobody reads.
    """
    gates, y, x = streams.pop(), streams.pop(), streams.pop()
    video, words = x[text:].addcmul_(gates[:, 2], y[text:]), x[:text]
    if text:
        words.addcmul_(gates[:, 5], y[:text])
    return [part.transpose(0, 1).contiguous() for part in (video, words)]


def run(block: Block, streams: list[Tensor], step: Step) -> list[Tensor]:
    """One block.

    Args:
        block: holds the weights.
        streams: the residual stream `(L + S, B, D)`; after another block also what waits to be added to it, and that
            block's vectors, which gate it. The list is changed.
        step: what else the block is given.

    Returns:
        The three for the next block; of the video alone where `step.text_out` is false.
    """
    before, after = block.vectors(step.temb) if step.vectors is None else step.vectors
    text = streams[0].shape[0] - step.cos.shape[0]
    normed = [_added(streams, block.norm1.norm, before, text)]
    attended = _attended(block, normed, text, step)
    if not step.text_out:
        streams[0], text = streams[0][text:], 0
    streams += [attended, before]
    del attended
    fed = _added(streams, block.norm2.norm, after, text)
    if block.txt_ff is not None and text:
        _feed(block, block.txt_ff, fed[:text])
    _feed(block, block.ff, fed if block.txt_ff is None else fed[text:])
    return [*streams, fed, after]


def _added(streams: list[Tensor], norm: nn.LayerNorm, vectors: Tensor, text: int) -> Tensor:
    """What waits is added to the residual stream, which then is alone in the list; returns it normed and modulated."""
    if len(streams) == 1:
        return ada_norm(streams[0], *_affine(norm), vectors, text, norm.eps)
    gates, y, x = streams.pop(), streams.pop(), streams.pop()
    x, normed = gate_residual_norm(x, y, gates, *_affine(norm), vectors, text, norm.eps)
    streams.append(x)
    return normed


def _attended(block: Block, given: list[Tensor], text: int, step: Step) -> Tensor:
    """Attention over all tokens of the one tensor given, which is taken; `(L + S, B, D)`, or `(S, B, D)`."""
    (normed,) = given
    given.clear()
    video, words = block.attn1, block.attn1 if block.attn2 is None else block.attn2
    asking = text if step.text_out else 0
    q = _projected(words.to_q, video.to_q, normed[text - asking :], asking)
    k = _projected(words.to_k, video.to_k, normed, text)
    v = _projected(words.to_v, video.to_v, normed, text)
    del normed
    rotary, eps, heads = (step.cos, step.sin), video.norm_q.eps, (video.heads, -1)
    q = qk_norm_rope(q.unflatten(-1, heads), _affine(words.norm_q), _affine(video.norm_q), rotary, eps)
    k = qk_norm_rope(k.unflatten(-1, heads), _affine(words.norm_k), _affine(video.norm_k), rotary, eps)
    out = block.backend(*(x.permute(1, 2, 0, 3) for x in (q, k, v.unflatten(-1, heads))))
    del q, k, v
    return _projected(words.to_out[0], video.to_out[0], out.permute(2, 0, 1, 3).flatten(2), asking)


def _projected(words: nn.Module, video: nn.Module, x: Tensor, text: int) -> Tensor:
    """The first `text` tokens of `x (T, B, D)` through one layer, the others through another, into one buffer."""
    if text == 0 or words is video:
        whole: Tensor = video(x)
        return whole
    # What attention gave may lie in another order of tokens and samples; what is written to must not.
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    for layer, part, out in ((words, x[:text], y[:text]), (video, x[text:], y[text:])):
        if (weights := readable(layer, part)) is None:
            out.copy_(layer(part))
        else:
            _write(part.flatten(0, 1), weights, out.view(-1, out.shape[-1]))
    return y


def _write(x: Tensor, weights: Weights, out: Tensor) -> None:
    """`x·wᵀ + b` of matrices, written where it belongs."""
    weight, bias = weights
    if bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)


def _feed(block: Block, module: nn.Module, x: Tensor) -> None:
    """A feed-forward's result takes the place of what it was given, `(T, B, D)`; half of it at a time where that is
    much, because what lives between its products is four times as wide."""
    layers = layers_of(module, x)
    rows = x.view(-1, x.shape[-1])
    for part in rows.chunk(2) if rows.shape[0] >= 2 * MANY else (rows,):
        if layers is None:
            part.copy_(module(part))
        else:
            _write(tanh_gelu(part, layers[0]), layers[1], part)
        if block.norm3 is not None:
            part.copy_(block.norm3(part))


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight, norm.bias
