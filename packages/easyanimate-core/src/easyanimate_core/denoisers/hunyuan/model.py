"""The transformer of V4: project, place, run the blocks, take the head. Parameter names are the released ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from easyanimate_core.data import Inlet, Inpainting, TextEmbedding
from easyanimate_core.denoisers.hunyuan.block import Attention, Block, FramePositions
from easyanimate_core.denoisers.hunyuan.embeddings import GlobalEmbedding, PictureProjection, Projection
from easyanimate_core.denoisers.inlets import check_channels, joined
from easyanimate_core.denoisers.layers import LATENT_PIXELS, has_picture
from easyanimate_core.denoisers.rotary import rotary_2d
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions

__all__ = ["Hunyuan", "HunyuanTokens"]

_PICTURE = "image_tokens"
# What V4 was told about every clip of its training: cut out of a picture of this size, at its corner.
_ORIGINAL = 1024.0


@dataclass(frozen=True, slots=True)
class HunyuanTokens:
    """What flows through the trunk.

    Attributes:
        video: `(B, S, D)`, frame-major.
        text: `(B, L, X)`: both encoders' tokens, padding replaced.
        temb: `(B, D)`: timestep, sizes, style and pooled text.
        rotary: cos and sin, each `(S, head_dim)` float32, the same for every frame.
        grid: `(f, h, w)` in patches, `S = f·h·w`.
        picture: `(B, n, X)`; `None` for a model without the branch.
    """

    video: Tensor
    text: Tensor
    temb: Tensor
    rotary: tuple[Tensor, Tensor]
    grid: tuple[int, int, int]
    picture: Tensor | None = None

    def replaced(self, video: Tensor) -> HunyuanTokens:
        """A copy with other video tokens."""
        return replace(self, video=video)


class _PatchEmbedding(nn.Module):
    """Pixels of the latents to tokens; there is no table of positions."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)


class _NormOut(nn.Module):
    """Final norm, scaled and shifted by the global embedding (scale comes first)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """`(B, S, D)` and `(B, D)` to `(B, S, D)`."""
        scale, shift = self.linear(F.silu(temb.float()).to(x.dtype))[:, None].chunk(2, dim=-1)
        y: Tensor = self.norm(x) * (1 + scale) + shift
        return y


class Hunyuan(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """EasyAnimate's V4 transformer: full attention over the clip, text and picture by cross-attention.

    The geometry is that of HunyuanDiT (Li et al., 2024) with positions in time. Blocks of the second half take the
    tokens of those of the first, last to first. With `learn_sigma` the second half of the output channels is a
    variance that no sampler uses. Weights for a picture exist when the checkpoint has channels for inpainting and
    `enable_clip_in_inpaint`.

    The constructor's arguments are the keys of a released `config.json`.

    Raises:
        CheckpointMismatch: the config asks for a kind of block or position that no released model uses.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _repeated_blocks = ["Block"]
    _skip_layerwise_casting_patterns = ["time_extra_emb", "norm", "proj_out", "pos_embed", "t_embed"]
    inlet_weight = "pos_embed.proj.weight"
    inlet_layers = ("attn_clip", "gate_clip", "norm_clip", "norm_clip_out", "clip_projection", "clip_padding")
    picture: ClassVar[Literal["tokens", "pooled"]] = "tokens"

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 88,
        in_channels: int = 4,
        out_channels: int = 8,
        patch_size: int = 2,
        sample_size: int = 64,
        hidden_size: int = 1408,
        num_layers: int = 40,
        mlp_ratio: float = 4.3637,
        learn_sigma: bool = True,
        cross_attention_dim: int = 1024,
        cross_attention_dim_t5: int = 2048,
        pooled_projection_dim: int = 1024,
        text_len: int = 77,
        text_len_t5: int = 256,
        n_query: int = 16,
        projection_dim: int = 768,
        activation_fn: str = "gelu-approximate",
        norm_type: str = "layer_norm",
        basic_block_type: str = "basic",
        time_position_encoding: bool = True,
        time_position_encoding_type: str = "2d_rope",
        after_norm: bool = False,
        resize_inpaint_mask_directly: bool = False,
        add_noise_in_inpaint_model: bool = False,
        enable_clip_in_inpaint: bool = True,
        enable_zero_in_inpaint: bool = True,
        enable_text_attention_mask: bool = True,
        position_of_clip_embedding: str = "full",
    ) -> None:
        super().__init__()
        expected = {"basic_block_type": "basic", "time_position_encoding_type": "2d_rope", "norm_type": "layer_norm"}
        for name, only in expected.items():
            if self.config[name] != only:
                raise CheckpointMismatch(
                    f"the config sets '{name}' to '{self.config[name]}', which no released checkpoint does",
                    f"Set it to '{only}'.",
                )
        self.inlets: tuple[Inlet, ...] = ()
        self.gradient_checkpointing = False
        self._build()

    @property
    def inpainting(self) -> Inpainting:
        """How the inlets `mask` and `masked_video` were trained, as the checkpoint's config says."""
        c = self.config
        noised, blank = c.add_noise_in_inpaint_model, c.enable_zero_in_inpaint
        return Inpainting("resized" if c.resize_inpaint_mask_directly else "encoded", noised=noised, blank=blank)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents among those of input and output."""
        return int(self.config.out_channels // 2 if self.config.learn_sigma else self.config.out_channels)

    @property
    def takes_picture(self) -> bool:
        """Whether there are weights for a picture's tokens."""
        return bool(self.config.in_channels != self.latent_channels and self.config.enable_clip_in_inpaint)

    def _build(self) -> None:
        c = self.config
        width, context = c.num_attention_heads * c.attention_head_dim, c.cross_attention_dim
        self.text_embedding_padding = nn.Parameter(torch.randn(c.text_len + c.text_len_t5, context))
        self.text_embedder = Projection(c.cross_attention_dim_t5, 4 * c.cross_attention_dim_t5, context)
        self.pos_embed = _PatchEmbedding(c.in_channels, width, c.patch_size)
        self.time_extra_emb = GlobalEmbedding(width, c.text_len_t5, c.cross_attention_dim_t5, c.pooled_projection_dim)
        picture = self.takes_picture
        self.clip_padding = nn.Parameter(torch.randn(c.n_query, context)) if picture else None
        self.clip_projection = (
            PictureProjection(c.n_query, context, c.num_attention_heads, c.projection_dim) if picture else None
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                c.num_attention_heads,
                context,
                int(width * c.mlp_ratio),
                positions=c.time_position_encoding,
                turned=i > 0,
                picture=picture,
                skip=i > c.num_layers // 2,
                after_norm=c.after_norm,
                activation=c.activation_fn,
            )
            for i in range(c.num_layers)
        )
        self.norm_out = _NormOut(width)
        self.proj_out = nn.Linear(width, c.patch_size * c.patch_size * c.out_channels)

    def declare(self, inlets: Sequence[Inlet]) -> None:
        """Say what the channels after the latents mean, in order, and what the image tokens are called.

        Raises:
            CheckpointMismatch: the widths do not add up to the checkpoint's input channels, or it has no weights for
                image tokens of that width.
        """
        c = self.config
        check_channels(inlets, c.in_channels, self.latent_channels)
        # Width 0 is "as wide as the checkpoint's weights".
        inlets = [replace(i, width=c.projection_dim) if i.kind == "tokens" and not i.width else i for i in inlets]
        for inlet in (inlet for inlet in inlets if inlet.kind != "channels"):
            takes = (_PICTURE, "tokens", c.projection_dim) if self.takes_picture else None
            if (inlet.name, inlet.kind, inlet.width) != takes:
                has = f"image tokens of width {c.projection_dim}" if takes else "no weights for image tokens"
                raise CheckpointMismatch(
                    f"the preset declares the inlet '{inlet.name}' of kind '{inlet.kind}' and width {inlet.width}; "
                    f"this checkpoint has {has}",
                    "Choose the preset that belongs to the checkpoint (easyanimate presets list).",
                )
        self.inlets = tuple(inlets)

    def embed(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Sequence[TextEmbedding],
        conditions: Mapping[str, Tensor],
        *,
        rotary: tuple[Tensor, Tensor] | None = None,
        size: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> HunyuanTokens:
        """Latents `(B, C, f, h, w)`, timesteps `(B,)`, two text embeddings, wired channels and image tokens.

        Args:
            latents: noisy latents.
            timestep: on the 0…1000 scale.
            text: states `(B, text_len, X)` of BERT and `(B, text_len_t5, X5)` of mT5, with their masks.
            conditions: by inlet name: channels in inlet order, and `image_tokens` `(B, n, projection_dim)`. A sample
                of zeros alone has no picture.
            rotary: tables of one frame to use instead of the model's own.
            size: `(B, 2)` height and width in pixels; as the latents say when not given.
            image_mask: `(B, n_query)`, 0 where a learnt stand-in takes a picture token's place; what
                `denoisers.layers.has_picture` says when not given.

        Raises:
            IncompatibleConditions: channels, text lengths or image tokens are not those of the checkpoint.
        """
        channels = [value for name, value in conditions.items() if name != _PICTURE]
        x = joined(latents, channels, self.config.in_channels)
        self._check(x.shape[2], text)
        patches = self.pos_embed.proj(x.transpose(1, 2).flatten(0, 1))
        frames, (rows, columns) = x.shape[2], patches.shape[-2:]
        video = patches.flatten(2).transpose(1, 2).reshape(x.shape[0], -1, patches.shape[1])
        temb = self.time_extra_emb(timestep, text[1].states, self._sizes(latents, size))
        if rotary is None:
            base = 512 // LATENT_PIXELS // self.config.patch_size
            rotary = rotary_2d(self.config.attention_head_dim, (rows, columns), (base, base), str(video.device))
        cos, sin = (table.repeat(frames, 1) for table in rotary)
        picture = self._picture(conditions.get(_PICTURE), image_mask, video)
        return HunyuanTokens(video, self._text(text), temb, (cos, sin), (frames, rows, columns), picture)

    def _check(self, frames: int, text: Sequence[TextEmbedding]) -> None:
        """Refuse what positions were never learnt for."""
        lengths = tuple(part.states.shape[1] for part in text)
        wanted = (self.config.text_len, self.config.text_len_t5)
        if lengths != wanted:
            raise IncompatibleConditions(
                f"the denoiser got text embeddings of the lengths {lengths} and expects {wanted}",
                "Give one per text encoder of the checkpoint, each padded to its length.",
            )
        table = self.blocks[0].t_embed
        if isinstance(table, FramePositions) and frames > table.pe.shape[1]:
            raise IncompatibleConditions(
                f"the clip has {frames} latent frames, and the denoiser knows positions for {table.pe.shape[1]}",
                "Make a shorter clip, or a long video of segments.",
            )

    def _sizes(self, latents: Tensor, size: Tensor | None) -> Tensor:
        """`(B, 6)`: size of the original picture, size of the clip, place of its corner."""
        height, width = (side * LATENT_PIXELS for side in latents.shape[-2:])
        sizes = torch.tensor([_ORIGINAL, _ORIGINAL, height, width, 0, 0], device=latents.device)
        sizes = sizes.repeat(latents.shape[0], 1)
        if size is not None:
            sizes[:, 2:4] = size.to(sizes)
        return sizes

    def _text(self, text: Sequence[TextEmbedding]) -> Tensor:
        """Both encoders' tokens `(B, L, X)`; where there is padding, what was learnt for that place."""
        states = torch.cat([text[0].states, self.text_embedder(text[1].states)], dim=1)
        mask = torch.cat([part.mask for part in text], dim=1).bool()[..., None]
        return torch.where(mask, states, self.text_embedding_padding.to(states.dtype))

    def _picture(self, tokens: Tensor | None, mask: Tensor | None, video: Tensor) -> Tensor | None:
        """A picture's tokens `(B, n_query, X)`; where there is no picture, what was learnt for that."""
        if self.clip_padding is None or self.clip_projection is None:
            if tokens is not None:
                raise IncompatibleConditions(
                    "this checkpoint has no weights for image tokens", "Use one for image to video, or give no picture."
                )
            return None
        learnt = self.clip_padding.to(video.dtype).expand(video.shape[0], -1, -1)
        if tokens is None:
            return learnt
        shown = has_picture(tokens)[:, None] if mask is None else mask.bool()
        return torch.where(shown[..., None], self.clip_projection(tokens), learnt)

    def trunk(self, tokens: HunyuanTokens) -> HunyuanTokens:
        """All blocks and the final norms."""
        return self._from(0, tokens)

    def first(self, tokens: HunyuanTokens) -> HunyuanTokens:
        """The first block alone; see `SplitsTrunk`."""
        return tokens.replaced(self._run(self.blocks[0], tokens.video, tokens, None))

    def rest(self, tokens: HunyuanTokens) -> HunyuanTokens:
        """All other blocks and the final norms."""
        return self._from(1, tokens)

    def _from(self, start: int, tokens: HunyuanTokens) -> HunyuanTokens:
        """All blocks, or all but the first, which has made `tokens`, and the final norms."""
        x, half = tokens.video, len(self.blocks) // 2
        kept = [x] if 0 < start < half else []
        for i, block in enumerate(list(self.blocks)[start:], start):
            x = self._run(block, x, tokens, kept.pop() if i > half else None)
            if i < half - 1:
                kept.append(x)
        return tokens.replaced(self.norm_out(x, tokens.temb))

    def probe(self, tokens: HunyuanTokens) -> Tensor:
        """The first block's normalised and shifted video input `(B, S, D)`; see `ShowsChange`."""
        block = cast("Block", self.blocks[0])
        y: Tensor = block.norm1(block.placed(tokens.video, tokens.grid[0]), tokens.temb)
        return y

    def steady_modules(self) -> tuple[nn.Module, ...]:
        """What `probe` reads of the first block; see `KeepsSteady`."""
        block = cast("Block", self.blocks[0])
        return (block.norm1,) if block.t_embed is None else (block.norm1, block.t_embed)

    def _run(self, block: nn.Module, video: Tensor, tokens: HunyuanTokens, skip: Tensor | None) -> Tensor:
        arguments = (video, tokens.text, tokens.temb, *tokens.rotary, tokens.grid[0], tokens.picture, skip)
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            result: Tensor = self._gradient_checkpointing_func(block, *arguments)
        else:
            result = block(*arguments)
        return result

    def head(self, tokens: HunyuanTokens) -> Tensor:
        """Tokens to a prediction `(B, out_channels, f, h, w)`; inside a token, pixels come before channels."""
        p = self.config.patch_size
        f, h, w = tokens.grid
        y = self.proj_out(tokens.video).unflatten(1, (f, h, w)).unflatten(-1, (p, p, -1))
        placed: Tensor = y.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return placed

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embedding_mask: Tensor,
        encoder_hidden_states_t5: Tensor,
        text_embedding_mask_t5: Tensor,
        *,
        conditions: Mapping[str, Tensor] | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        size: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """The whole network in one call, with the ecosystem's argument names; see `embed`."""
        text = (
            TextEmbedding(encoder_hidden_states, text_embedding_mask),
            TextEmbedding(encoder_hidden_states_t5, text_embedding_mask_t5),
        )
        tokens = self.embed(
            hidden_states, timestep, text, conditions or {}, rotary=image_rotary_emb, size=size, image_mask=image_mask
        )
        return self.head(self.trunk(tokens))

    def set_attention(self, backend: Any) -> None:
        """Use an attention backend in every block."""
        for block in self.blocks:
            for attention in block.children():
                if isinstance(attention, Attention):
                    attention.backend = backend
