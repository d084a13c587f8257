"""The transformer: place patches, tell time and text, run the blocks, take the head. Parameter names are the
released ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from easyanimate_core.data import Inlet, Inpainting, TextEmbedding
from easyanimate_core.denoisers.inlets import check_channels, joined
from easyanimate_core.denoisers.layers import LATENT_PIXELS, has_picture
from easyanimate_core.denoisers.pixart.attention import Attention
from easyanimate_core.denoisers.pixart.block import Block
from easyanimate_core.denoisers.pixart.embeddings import AdaLayerNormSingle, PatchEmbed, Projection
from easyanimate_core.denoisers.pixart.settings import motion_of, refuse_unreleased
from easyanimate_core.errors import CheckpointMismatch, IncompatibleConditions

__all__ = ["PixArt", "PixArtTokens"]

_IMAGE_TOKENS: Final = "image_tokens"
_CLIP_WIDTH: Final = 768
# Long skips join the first 13 blocks to the blocks from index 15 on, whatever the depth: the last of the 13 first.
_SKIPS: Final = 13
_SKIPS_BEGIN: Final = 15
_SIZED: Final = 128


@dataclass(frozen=True, slots=True)
class PixArtTokens:
    """What flows through the trunk.

    Attributes:
        video: `(B, S, D)`, frame-major.
        text: `(B, L, D)`, the picture's tokens behind those of the prompt.
        mask: `(B, 1, 1, L)`, added to the logits of attention to the text.
        modulation: `(B, 6, D)`, what all blocks are shifted, scaled and gated with.
        temb: `(B, D)` time embedding.
        grid: `(f, h, w)` in patches, `S = f·h·w`.
    """

    video: Tensor
    text: Tensor
    mask: Tensor
    modulation: Tensor
    temb: Tensor
    grid: tuple[int, int, int]

    def replaced(self, video: Tensor) -> PixArtTokens:
        """A copy with other video tokens."""
        return replace(self, video=video)


class PixArt(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """EasyAnimate's spatial-temporal transformer (V1, V2, V3): predicts noise, and its variance, from noisy latents.

    The constructor's arguments are the keys of a released `config.json`. A config without motion settings, that of a
    PixArt folder, is V1's. `basic_block_type` says where motion is: `basic` nowhere (single pictures), `motionmodule`
    the same in every block (V1, V2), `global_motionmodule` in turn two kinds (V3). Text comes from one encoder;
    models with three times the latents' channels also take the tokens of a picture, through the inlet `image_tokens`.

    Raises:
        CheckpointMismatch: the config asks for something that no release has.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _repeated_blocks = ["Block"]
    _skip_layerwise_casting_patterns = ["pos_embed", "adaln_single", "norm", "proj_out"]
    inlet_weight = "pos_embed.proj.weight"
    inlet_layers = ("clip_projection",)
    picture: ClassVar[Literal["tokens", "pooled"]] = "pooled"

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int = 8,
        num_layers: int = 28,
        patch_size: int = 2,
        sample_size: int = 64,
        cross_attention_dim: int = 1152,
        caption_channels: int = 4096,
        attention_bias: bool = True,
        activation_fn: str = "gelu-approximate",
        dropout: float = 0.0,
        norm_type: str = "ada_norm_single",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
        norm_num_groups: int = 32,
        num_embeds_ada_norm: int = 1000,
        num_vector_embeds: int | None = None,
        attention_type: str = "default",
        double_self_attention: bool = False,
        only_cross_attention: bool = False,
        use_linear_projection: bool = False,
        upcast_attention: bool = False,
        basic_block_type: str = "motionmodule",
        motion_module_type: Literal["Vanilla", "VanillaGrid"] = "VanillaGrid",
        motion_module_kwargs: Mapping[str, Any] | None = None,
        motion_module_kwargs_even: Mapping[str, Any] | None = None,
        motion_module_kwargs_odd: Mapping[str, Any] | None = None,
        enable_uvit: bool = False,
        qk_norm: bool = False,
        after_norm: bool = False,
        patch_3d: bool = False,
        fake_3d: bool = False,
        casual_3d: bool = False,
        casual_3d_upsampler_index: tuple[int, ...] | None = None,
        time_patch_size: int | None = None,
        time_position_encoding_before_transformer: bool = False,
        n_query: int = 8,
        position_of_clip_embedding: str = "head",
        enable_clip_in_inpaint: bool = True,
        enable_text_attention_mask: bool = True,
        enable_zero_in_inpaint: bool = False,
        add_noise_in_inpaint_model: bool = False,
        resize_inpaint_mask_directly: bool = False,
    ) -> None:
        super().__init__()
        refuse_unreleased(self.config)
        self.inlets: tuple[Inlet, ...] = ()
        self.gradient_checkpointing = False
        self._build()

    @property
    def inpainting(self) -> Inpainting:
        """How the inlets `mask` and `masked_video` were trained, as the checkpoint's config says."""
        mask: Literal["resized", "encoded"] = "resized" if self.config.resize_inpaint_mask_directly else "encoded"
        return Inpainting(mask, blank=self.config.enable_zero_in_inpaint)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents; the other half of the prediction is the learned variance."""
        return int(self.config.out_channels) // 2

    def _build(self) -> None:
        c = self.config
        width = c.num_attention_heads * c.attention_head_dim
        self.pos_embed = PatchEmbed(c.in_channels, width, c.patch_size, c.sample_size)
        self.adaln_single = AdaLayerNormSingle(width, sized=c.sample_size == _SIZED)
        self.caption_projection = Projection(c.caption_channels, width)
        # A picture is known by its CLIP embedding; the projection makes `n_query` tokens of it.
        sees = c.in_channels == 3 * self.latent_channels
        self.clip_projection = Projection(_CLIP_WIDTH, c.n_query * width) if sees else None
        self.transformer_blocks = nn.ModuleList(self._block(width, index) for index in range(c.num_layers))
        self.long_connect_fc = (
            nn.ModuleList(_closed(nn.Linear(width, width)) for _ in range(_SKIPS)) if c.enable_uvit else None
        )
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, c.patch_size * c.patch_size * c.out_channels)

    def _block(self, width: int, index: int) -> Block:
        c = self.config
        heads, bias, upcast = c.num_attention_heads, c.attention_bias, c.upcast_attention
        return Block(
            width,
            Attention(width, heads, bias=bias, upcast=upcast),
            Attention(width, heads, context=c.cross_attention_dim, bias=bias, upcast=upcast),
            motion_of(c, width, index),
            eps=c.norm_eps,
            affine=c.norm_elementwise_affine,
            activation=c.activation_fn,
            dropout=c.dropout,
        )

    def declare(self, inlets: Sequence[Inlet]) -> None:
        """Say what the channels after the latents mean, in order, and which other inlets there are.

        Raises:
            CheckpointMismatch: the widths do not add up to the checkpoint's input channels, or it has no such inlet.
        """
        check_channels(inlets, self.config.in_channels, self.latent_channels)
        known = {_IMAGE_TOKENS} if self.clip_projection is not None else set()
        for inlet in inlets:
            if inlet.kind != "channels" and inlet.name not in known:
                raise CheckpointMismatch(
                    f"this checkpoint has no place for the inlet '{inlet.name}', which the preset declares",
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
        size: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> PixArtTokens:
        """Latents `(B, C, f, h, w)`, timesteps `(B,)`, one text embedding, wired inlets.

        Args:
            latents: noisy latents.
            timestep: on the 0…1000 scale.
            text: one, with states `(B, L, caption_channels)`; padding is not attended.
            conditions: channel tensors by inlet name in inlet order; `image_tokens` `(B, 1, 768)`, where a sample of
                zeros has no picture.
            size: `(B, 2)` height and width in pixels, for models that are told; the latents' own when `None`.
            image_mask: `(B, n_query)`, 1 for tokens of the picture that are attended; all of samples with a picture
                when `None`.
        """
        channels = (value for name, value in conditions.items() if name != _IMAGE_TOKENS)
        x = joined(latents, channels, self.config.in_channels)
        if size is None:
            pixels = [side * LATENT_PIXELS for side in latents.shape[-2:]]
            size = torch.tensor([pixels], dtype=torch.float32, device=latents.device).expand(latents.shape[0], -1)
        video, grid = self.pos_embed(x)
        modulation, temb = self.adaln_single(timestep, size, latents.dtype)
        states, mask = self._told(text, conditions.get(_IMAGE_TOKENS), image_mask)
        # Added to the logits, it leaves masked tokens no weight; where all are masked, all count the same.
        bias = (1 - mask.to(latents.dtype))[:, None, None] * -10000.0
        return PixArtTokens(video, states, bias, modulation, temb, grid)

    def _told(
        self, text: Sequence[TextEmbedding], image: Tensor | None, image_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Tokens `(B, L, D)` of prompt and picture, and which of them there are, `(B, L)`."""
        if len(text) != 1:
            raise IncompatibleConditions(
                f"the denoiser got {len(text)} text embeddings and takes 1", "Give that of its T5 encoder."
            )
        states, mask = self.caption_projection(text[0].states), text[0].mask
        if image is None:
            return states, mask
        if self.clip_projection is None:
            raise IncompatibleConditions(
                f"this model has no inlet '{_IMAGE_TOKENS}'", "Pick a checkpoint for image to video."
            )
        queries = self.config.n_query
        tokens = self.clip_projection(image).unflatten(-1, (queries, -1)).flatten(1, 2)
        if image_mask is None:
            image_mask = has_picture(image)[:, None].expand(-1, tokens.shape[1])
        return torch.cat([states, tokens], dim=1), torch.cat([mask, image_mask.to(mask.dtype)], dim=1)

    def trunk(self, tokens: PixArtTokens) -> PixArtTokens:
        """All blocks and the final norm."""
        return self._from(0, tokens)

    def first(self, tokens: PixArtTokens) -> PixArtTokens:
        """The first block alone; see `SplitsTrunk`."""
        return tokens.replaced(self._run(self.transformer_blocks[0], tokens.video, tokens))

    def rest(self, tokens: PixArtTokens) -> PixArtTokens:
        """All other blocks and the final norm."""
        return self._from(1, tokens)

    def _from(self, start: int, tokens: PixArtTokens) -> PixArtTokens:
        """All blocks, or all but the first, which has made `tokens`, and the final norm."""
        video, skips = tokens.video, self.long_connect_fc
        kept = [video] if start and skips is not None else []
        for index, block in enumerate(list(self.transformer_blocks)[start:], start):
            if skips is not None and index >= _SKIPS_BEGIN:
                video = video + skips[index - _SKIPS_BEGIN](kept.pop())
            video = self._run(block, video, tokens)
            if skips is not None and index < _SKIPS:
                kept.append(video)
        shift, scale = (self.scale_shift_table + tokens.temb[:, None]).chunk(2, dim=1)
        return tokens.replaced(self.norm_out(video) * (1 + scale) + shift)

    def probe(self, tokens: PixArtTokens) -> Tensor:
        """The first block's modulated video input `(B, S, D)`; see `ShowsChange`."""
        block = cast("Block", self.transformer_blocks[0])
        shift, scale, *_ = block.told(tokens.modulation)
        y: Tensor = block.norm1(tokens.video) * (1 + scale) + shift
        return y

    def steady_modules(self) -> tuple[nn.Module, ...]:
        """What `probe` reads of the first block; see `KeepsSteady`."""
        block = cast("Block", self.transformer_blocks[0])
        return block.norm1, nn.ParameterList([block.scale_shift_table])

    def _run(self, block: nn.Module, video: Tensor, tokens: PixArtTokens) -> Tensor:
        arguments = (video, tokens.text, tokens.mask, tokens.modulation, tokens.grid)
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            result: Tensor = self._gradient_checkpointing_func(block, *arguments)
        else:
            result = block(*arguments)
        return result

    def head(self, tokens: PixArtTokens) -> Tensor:
        """Tokens to a prediction `(B, 2·C, f, h, w)`: noise, then its variance; inside a token, channels come last."""
        p = self.config.patch_size
        y = self.proj_out(tokens.video).unflatten(1, tokens.grid).unflatten(-1, (p, p, -1))
        placed: Tensor = y.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return placed

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embedding_mask: Tensor | None = None,
        *,
        conditions: Mapping[str, Tensor] | None = None,
        size: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """The whole network in one call, with the released code's argument names; see `embed`."""
        if text_embedding_mask is None:
            text_embedding_mask = encoder_hidden_states.new_ones(encoder_hidden_states.shape[:2])
        text = [TextEmbedding(encoder_hidden_states, text_embedding_mask)]
        tokens = self.embed(hidden_states, timestep, text, conditions or {}, size=size, image_mask=image_mask)
        return self.head(self.trunk(tokens))

    def set_attention(self, backend: Any) -> None:
        """Use an attention backend in every block."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = backend


def _closed(linear: nn.Linear) -> nn.Linear:
    """A fresh skip adds nothing."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
