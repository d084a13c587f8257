"""The preprocessor `depth`: near is bright, far is dark (Yang et al., "Depth Anything V2", 2024, and its relatives)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from easyanimate_core.errors import CheckpointNotFound
from easyanimate_core.pipeline.assemble import pick_device

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_control.preprocess.options import DepthOptions

__all__ = ["Depth"]


class Depth:
    """Relative depth by a network of transformers. Every frame spans 0 to 1, as in maps that models are trained on."""

    def __init__(self, options: DepthOptions) -> None:
        """Load the network; from the hub only when the folder or cache does not have it.

        Raises:
            CheckpointNotFound: there is no such model, or the hub cannot be reached.
            InvalidRequest: the device cannot be used.
        """
        self._device = pick_device(options.device)
        try:
            self._processor: Any = AutoImageProcessor.from_pretrained(options.model, backend="pil")
            self._network: Any = AutoModelForDepthEstimation.from_pretrained(options.model)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointNotFound(
                f"cannot load the depth model '{options.model}': {reason}",
                "Give a folder, or the id of a depth model on Hugging Face, as 'model'.",
            ) from error
        self._network.to(self._device).eval()

    def __call__(self, frames: Tensor) -> Tensor:
        """`(F, 3, H, W)` in 0…1 to depth of the same shape, the same in all channels: 1 nearest, 0 farthest."""
        return torch.cat([self._depth(frame) for frame in frames])

    @torch.inference_mode()
    def _depth(self, frame: Tensor) -> Tensor:
        picture = (frame.movedim(0, -1).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        given = self._processor(images=[picture], return_tensors="pt")
        seen: Tensor = self._network(given["pixel_values"].to(self._device)).predicted_depth.float().cpu()
        full = F.interpolate(seen[:, None], tuple(frame.shape[-2:]), mode="bicubic", align_corners=False)
        low, high = full.aminmax()
        return ((full - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).expand(-1, 3, -1, -1)
