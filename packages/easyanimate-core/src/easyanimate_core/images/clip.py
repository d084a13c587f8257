"""CLIP's vision tower as a picture encoder: V3 and V4 were shown the first frame through it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from easyanimate_core.data import ImageEmbedding
from easyanimate_core.errors import CheckpointMismatch

__all__ = ["ClipImageEncoder"]

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SPREAD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageEncoder(nn.Module):
    """Pictures to CLIP's tokens and to its pooled vector. Radford et al., "CLIP" (2021).

    Args:
        config: `image_encoder/config.json` of the checkpoint, of the vision tower or of a whole CLIP.
        processor: `image_encoder/preprocessor_config.json`; as CLIP was trained when empty.

    Raises:
        CheckpointMismatch: the config is not one of CLIP, or pictures would be prepared in a way that CLIP's never are.
    """

    def __init__(self, config: Mapping[str, Any], processor: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        settings = _vision(config)
        self.config = dict(config)
        self.model = CLIPVisionModelWithProjection._from_config(settings, dtype=torch.get_default_dtype()).eval()
        # A table that is no weight must be real even where weights wait on the meta device.
        embeddings = self.model.vision_model.embeddings
        with torch.device("cpu"):
            positions = torch.arange(embeddings.num_positions)[None]
        embeddings.register_buffer("position_ids", positions, persistent=False)
        said = dict(processor or {})
        self.short_side = _side(said.get("size", settings.image_size), "shortest_edge")
        self.side = _side(said.get("crop_size", settings.image_size), "height")
        self.mean = tuple(said.get("image_mean", _MEAN))
        self.spread = tuple(said.get("image_std", _SPREAD))
        if not settings.image_size == self.side <= self.short_side:
            raise CheckpointMismatch(
                f"pictures would be cut to {self.side} of {self.short_side} pixels, and the encoder reads "
                f"{settings.image_size}",
                "preprocessor_config.json belongs to another image encoder; fetch it again.",
            )

    def keymap(self, name: str) -> str | None:
        """Name of a released tensor to name of a parameter here; `None` for what is never read."""
        if name.startswith(("text_model.", "text_projection.", "logit_scale")) or name.endswith("position_ids"):
            return None
        return f"model.{name}"

    def released_state_dict(self) -> dict[str, Tensor]:
        """The parameters under the names of a released checkpoint."""
        return {name.removeprefix("model."): tensor for name, tensor in self.state_dict().items()}

    def prepare(self, pixels: Tensor) -> Tensor:
        """Pictures `(B, 3, H, W)` in 0…1 as CLIP sees them, `(B, 3, side, side)`: resized, cut out of the middle.

        Resizing is Pillow's bicubic on 8-bit pixels, as it was in training.
        """
        eighths = (pixels.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        cut = torch.stack([torch.from_numpy(self._cut(Image.fromarray(picture.numpy()))) for picture in eighths])
        mean, spread = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (self.mean, self.spread))
        return (cut.permute(0, 3, 1, 2).float() / 255 - mean) / spread

    def _cut(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        """The square in the middle of a picture, `(side, side, 3)` uint8."""
        short = min(picture.size)
        wide, high = (
            self.short_side if side == short else int(self.short_side * side / short) for side in picture.size
        )
        resized = picture.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = (wide - self.side) // 2, (high - self.side) // 2
        return np.array(resized.crop((left, top, left + self.side, top + self.side)))

    def encode_image(self, pixels: Tensor) -> ImageEmbedding:
        """Encode each picture on its own; see `interfaces.ImageEncoder`."""
        weight = self.model.visual_projection.weight
        prepared = self.prepare(pixels).to(device=weight.device, dtype=weight.dtype)
        seen = [self.model(pixel_values=prepared[i : i + 1]) for i in range(len(prepared))]
        # The first token stands for the whole picture; the pooled vector is made of it.
        tokens = torch.cat([one.last_hidden_state[:, 1:] for one in seen])
        return ImageEmbedding(tokens, torch.cat([one.image_embeds for one in seen]))


def _vision(config: Mapping[str, Any]) -> CLIPVisionConfig:
    """The settings of the vision tower."""
    settings = copy.deepcopy(dict(config))
    if settings.get("model_type") == "clip":
        projected = settings.get("projection_dim", 512)
        settings = {"projection_dim": projected, **settings.get("vision_config", {}), "model_type": "clip_vision_model"}
    if settings.pop("model_type", None) != "clip_vision_model":
        raise CheckpointMismatch(
            f"image_encoder/config.json is of the model type '{config.get('model_type')}', not 'clip_vision_model'",
            "Choose the preset that belongs to this checkpoint.",
        )
    # Weights decide the dtype when they are loaded; how it attends is ours to say.
    stored = ("torch_dtype", "dtype", "architectures", "transformers_version")
    return CLIPVisionConfig(
        **{key: value for key, value in settings.items() if key not in stored and not key.startswith("_")}
    )


def _side(size: Any, name: str) -> int:
    """A side in pixels, from a number or from `{"shortest_edge": 224}` and the like."""
    return int(size.get(name, 0) if isinstance(size, Mapping) else size)
