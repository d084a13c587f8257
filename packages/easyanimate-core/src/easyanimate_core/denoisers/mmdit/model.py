"""The transformer: project, place, run the blocks, take the head. Parameter names are the released ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from easyanimate_core.data import Inlet, Inpainting, TextEmbedding
from easyanimate_core.denoisers.inlets import check_channels, joined
from easyanimate_core.denoisers.layers import RMSNorm, Timestep
from easyanimate_core.denoisers.mmdit import fused
from easyanimate_core.denoisers.mmdit.block import Block, BlockVectors, Step
from easyanimate_core.denoisers.mmdit.plain import modulate
from easyanimate_core.denoisers.mmdit.prepared import Known, PreparedMMDiT, prepare
from easyanimate_core.denoisers.mmdit.window import SlidingWindow
from easyanimate_core.denoisers.rotary import rotary_3d
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions
from easyanimate_core.interfaces import UsesBound
from easyanimate_core.kernels.op import fusing

__all__ = ["MMDiT", "MMDiTTokens"]


@dataclass(frozen=True, slots=True)
class MMDiTTokens:
    """What flows through the trunk.

    Attributes:
        video: `(B, S, D)`, frame-major.
        text: `(B, L, D)`.
        temb: `(B, T)` time embedding.
        rotary: cos and sin, each `(S, head_dim)` float32.
        grid: `(f, h, w)` in patches, `S = f·h·w`.
        vectors: what each block takes from `temb`, where that is known already; see `MMDiT.vectors`.
    """

    video: Tensor
    text: Tensor
    temb: Tensor
    rotary: tuple[Tensor, Tensor]
    grid: tuple[int, int, int]
    vectors: tuple[BlockVectors, ...] | None = None

    def replaced(self, video: Tensor) -> MMDiTTokens:
        """A copy with other video tokens."""
        return replace(self, video=video)


class _AdaLayerNormOut(nn.Module):
    """Final norm, shifted and scaled by the time embedding (shift comes first)."""

    def __init__(self, time_dim: int, width: int, eps: float, affine: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(time_dim, 2 * width)
        self.norm = nn.LayerNorm(width, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """`(B, S, D)` and `(B, T)` to `(B, S, D)`."""
        shift, scale = self.linear(F.silu(temb))[:, None].chunk(2, dim=-1)
        return modulate(self.norm, x, scale, shift)


@dataclass(frozen=True, slots=True)
class _Recomputed:
    """A block as a function of tensors: a checkpoint of the reentrant kind follows only those that it is given."""

    block: nn.Module
    step: Step

    def __call__(self, video: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.block([video, text], self.step._replace(temb=temb)))


def _text_projection(text_dim: int, width: int, *, norm_dim: int | None) -> nn.Module:
    linear = nn.Linear(text_dim, width)
    return linear if norm_dim is None else nn.Sequential(RMSNorm(norm_dim), linear)


class MMDiT(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """EasyAnimate's joint transformer (V5 and V5.1): predicts `noise − clean` from noisy latents.

    The constructor's arguments are the keys of a released `config.json`; defaults are those of the released
    code when a key is missing. The first `mmdit_layers` blocks have own weights for text.

    The blocks of `swa_layers` attend within windows, which no release does; see `SlidingWindow`.

    With `ref_channels` and `clip_channels`, the weights for tokens of reference pictures are kept and saved, and
    nothing reads them: no release feeds them, and the code that would read them drops the text.

    Raises:
        CheckpointMismatch: the config's `swa_layers` name a block that is not there.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _repeated_blocks = ["Block"]
    _skip_layerwise_casting_patterns = ["time_embedding", "norm", "proj_out"]
    inlet_weight = "proj.weight"

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 30,
        attention_head_dim: int = 64,
        in_channels: int = 16,
        out_channels: int = 16,
        patch_size: int = 2,
        sample_width: int = 90,
        sample_height: int = 60,
        num_layers: int = 30,
        mmdit_layers: int = 10000,
        time_embed_dim: int = 512,
        text_embed_dim: int = 4096,
        text_embed_dim_t5: int | None = 4096,
        add_norm_text_encoder: bool = False,
        norm_elementwise_affine: bool = True,
        norm_eps: float = 1e-5,
        after_norm: bool = False,
        activation_fn: str = "gelu-approximate",
        timestep_activation_fn: str = "silu",
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        dropout: float = 0.0,
        time_position_encoding_type: str = "3d_rope",
        ref_channels: int | None = None,
        clip_channels: int | None = None,
        swa_layers: tuple[int, ...] | None = None,
        add_noise_in_inpaint_model: bool = False,
        add_ref_latent_in_control_model: bool = False,
        enable_clip_in_inpaint: bool = True,
        enable_text_attention_mask: bool = True,
        enable_zero_in_inpaint: bool = True,
        position_of_clip_embedding: str = "full",
        resize_inpaint_mask_directly: bool = False,
    ) -> None:
        super().__init__()
        if beyond := [index for index in swa_layers or () if not 0 <= index < num_layers]:
            what = f"the config's 'swa_layers' name the block '{beyond[0]}', and there are {num_layers}"
            raise CheckpointMismatch(what, "Blocks are counted from 0.")
        self.inlets: tuple[Inlet, ...] = ()
        self.gradient_checkpointing = False
        self._build()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The transformer blocks, in order."""
        return tuple(cast("Block", block) for block in self.transformer_blocks)

    @property
    def inpainting(self) -> Inpainting:
        """How the inlets `mask` and `masked_video` were trained, as the checkpoint's config says."""
        c = self.config
        mask: Literal["resized", "encoded"] = "resized" if c.resize_inpaint_mask_directly else "encoded"
        return Inpainting(mask, noised=c.add_noise_in_inpaint_model, blank=c.enable_zero_in_inpaint)

    def _build(self) -> None:
        c = self.config
        width = c.num_attention_heads * c.attention_head_dim
        self.time_embedding = Timestep(
            width, c.time_embed_dim, flip_sin_to_cos=c.flip_sin_to_cos, freq_shift=c.freq_shift
        )
        self.proj = nn.Conv2d(c.in_channels, width, c.patch_size, stride=c.patch_size)
        if c.ref_channels:
            self.ref_proj = nn.Conv2d(c.ref_channels, width, c.patch_size, stride=c.patch_size)
        if c.clip_channels:
            self.clip_proj = nn.Linear(c.clip_channels, width)
        # The second norm is sized by the first encoder's width in the released code; kept for its weights.
        norm_dim = c.text_embed_dim if c.add_norm_text_encoder else None
        self.text_proj = _text_projection(c.text_embed_dim, width, norm_dim=norm_dim)
        self.text_proj_t5 = (
            _text_projection(c.text_embed_dim_t5, width, norm_dim=norm_dim) if c.text_embed_dim_t5 else None
        )
        self.transformer_blocks = nn.ModuleList(
            Block(
                width,
                c.num_attention_heads,
                c.attention_head_dim,
                c.time_embed_dim,
                own_text=i < c.mmdit_layers,
                eps=c.norm_eps,
                affine=c.norm_elementwise_affine,
                after_norm=c.after_norm,
                activation=c.activation_fn,
                dropout=c.dropout,
            )
            for i in range(c.num_layers)
        )
        self.norm_final = nn.LayerNorm(width, eps=c.norm_eps, elementwise_affine=c.norm_elementwise_affine)
        self.norm_out = _AdaLayerNormOut(c.time_embed_dim, width, c.norm_eps, c.norm_elementwise_affine)
        self.proj_out = nn.Linear(width, c.patch_size * c.patch_size * c.out_channels)

    def declare(self, inlets: Sequence[Inlet]) -> None:
        """Say what the channels after the latents mean, in order.

        Raises:
            CheckpointMismatch: the widths do not add up to the checkpoint's input channels.
        """
        check_channels(inlets, self.config.in_channels, self.config.out_channels)
        self.inlets = tuple(inlets)

    def embed(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Sequence[TextEmbedding],
        conditions: Mapping[str, Tensor],
        *,
        rotary: tuple[Tensor, Tensor] | None = None,
        known: Known | None = None,
    ) -> MMDiTTokens:
        """Latents `(B, C, f, h, w)`, timesteps `(B,)`, one embedding per text encoder, wired channels.

        Args:
            latents: noisy latents.
            timestep: on the 0…1000 scale.
            text: states `(B, L, text_embed_dim)` each; masks are not used, padding is attended.
            conditions: channel tensors by inlet name, in inlet order.
            rotary: tables to use instead of the model's own.
            known: what has been computed before the loop instead of from `timestep` and `text`; see `prepared`.
        """
        x = joined(latents, conditions.values(), self.config.in_channels)
        batch, _, frames = x.shape[:3]
        temb = self.time_embedding(timestep, latents.dtype) if known is None else known.temb[:batch]
        patches = self.proj(x.transpose(1, 2).flatten(0, 1))
        grid = (frames, *patches.shape[-2:])
        video = patches.flatten(2).transpose(1, 2).reshape(batch, -1, patches.shape[1])
        if rotary is None:
            # The original computes tables outside the network, for 60 x 90 whatever the config says. Every release has
            # that in its config; nano's own grid is in nano's.
            base = (
                self.config.sample_height // self.config.patch_size,
                self.config.sample_width // self.config.patch_size,
            )
            rotary = rotary_3d(self.config.attention_head_dim, grid, base, str(video.device))
        projected, vectors = (None, None) if known is None else (known.projected(text), known.vectors)
        states = self._project_text(text) if projected is None else projected
        return MMDiTTokens(video, states, temb, rotary, grid, vectors)

    def prepared(
        self, timesteps: Tensor, text: Sequence[TextEmbedding], dtype: torch.dtype
    ) -> tuple[PreparedMMDiT, ...] | None:
        """What is the same in every run of the loop's body, once for all steps; see `PreparesSteps`."""
        return prepare(self, timesteps, text, dtype)

    def _project_text(self, text: Sequence[TextEmbedding]) -> Tensor:
        projections = [self.text_proj] if self.text_proj_t5 is None else [self.text_proj, self.text_proj_t5]
        if not 1 <= len(text) <= len(projections):
            raise IncompatibleConditions(
                f"the denoiser got {len(text)} text embeddings and takes {len(projections)}",
                "Give one per text encoder of the checkpoint; the second may be left out.",
            )
        # The second encoder's embedding may be missing, as in the released code.
        return torch.cat([proj(part.states) for proj, part in zip(projections, text, strict=False)], dim=1)

    def trunk(self, tokens: MMDiTTokens) -> MMDiTTokens:
        """All blocks and the final norms. The video that came is let go as soon as the blocks have theirs, unless
        somebody else holds it."""
        streams, others = [tokens.video, tokens.text], tokens.replaced(tokens.video.new_empty(0))
        del tokens
        return self._closed(others, self._through(streams, others, range(len(self.transformer_blocks))))

    def _through(self, streams: list[Tensor], tokens: MMDiTTokens, which: range) -> list[Tensor]:
        """Video and text through some of the blocks; the list is changed."""
        plain = not which or bool(self.config.swa_layers) or not fusing(streams[0])
        together = not plain and all(map(fused.fusable, self.blocks))
        streams[:] = fused.joined(streams) if together else streams
        for index in which:
            streams[:] = self._run(index, streams, tokens, together)
        # Of the last block's text nobody reads anything.
        return fused.parted(streams, tokens.text.shape[1] if self._read(which[-1]) else 0) if together else streams

    def _read(self, index: int) -> bool:
        """Whether anyone reads the text of block number `index`."""
        return index + 1 < len(self.transformer_blocks)

    def _run(self, index: int, streams: list[Tensor], tokens: MMDiTTokens, together: bool) -> list[Tensor]:
        block = self.transformer_blocks[index]
        vectors = None if tokens.vectors is None else tokens.vectors[index]
        windows = index in (self.config.swa_layers or ())
        window = SlidingWindow(tokens.grid, tokens.text.shape[1]) if windows else None
        step = Step(tokens.temb, *tokens.rotary, vectors, window, self._read(index), together)
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return list(self._gradient_checkpointing_func(_Recomputed(block, step), *streams, step.temb))
        result: list[Tensor] = block(streams, step)
        return result

    def _closed(self, tokens: MMDiTTokens, streams: list[Tensor]) -> MMDiTTokens:
        """The final norms."""
        return tokens.replaced(self.norm_out(self.norm_final(streams[0]), tokens.temb))

    def first(self, tokens: MMDiTTokens) -> MMDiTTokens:
        """The first block alone; see `SplitsTrunk`."""
        video, text = self._through([tokens.video, tokens.text], tokens, range(1))
        return replace(tokens, video=video, text=text)

    def rest(self, tokens: MMDiTTokens) -> MMDiTTokens:
        """All other blocks and the final norms."""
        which = range(1, len(self.transformer_blocks))
        return self._closed(tokens, self._through([tokens.video, tokens.text], tokens, which))

    def probe(self, tokens: MMDiTTokens) -> Tensor:
        """The first block's modulated video input `(B, S, D)`; see `ShowsChange`."""
        norm = self.blocks[0].norm1
        vectors = norm.vectors(tokens.temb) if tokens.vectors is None else tokens.vectors[0][0]
        shift, scale, *_ = vectors.split(1, dim=1)
        return modulate(norm.norm, tokens.video, scale, shift)

    def steady_modules(self) -> tuple[nn.Module, ...]:
        """What `probe` reads of the first block; see `KeepsSteady`."""
        return (self.blocks[0].norm1,)

    def head(self, tokens: MMDiTTokens) -> Tensor:
        """Tokens to a prediction `(B, C, f, h, w)`; inside a token, channels come before pixels."""
        p = self.config.patch_size
        f, h, w = tokens.grid
        y = self.proj_out(tokens.video).unflatten(1, (f, h, w)).unflatten(-1, (-1, p, p))
        placed: Tensor = y.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
        return placed

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_t5: Tensor | None = None,
        *,
        conditions: Mapping[str, Tensor] | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The whole network in one call, with the ecosystem's argument names; see `embed`."""
        states = [encoder_hidden_states, *([] if encoder_hidden_states_t5 is None else [encoder_hidden_states_t5])]
        text = [TextEmbedding(s, s.new_ones(s.shape[:2], dtype=torch.long)) for s in states]
        tokens = self.embed(hidden_states, timestep, text, conditions or {}, rotary=image_rotary_emb)
        return self.head(self.trunk(tokens))

    def set_attention(self, backend: Any) -> None:
        """Use an attention backend in every block. One that can use it is told how large the block's logits may be."""
        for block in self.blocks:
            block.backend = backend.within(block.logit_bound()) if isinstance(backend, UsesBound) else backend
