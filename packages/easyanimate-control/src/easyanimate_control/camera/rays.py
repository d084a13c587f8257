"""Camera paths to Plücker rays, and rays to the channels of the inlet `camera`.

A pixel's ray is the pair of its moment `o × d` and its direction `d`, `o` being the camera's place and `d` of length 1,
both seen from the first camera (Sitzmann et al., "Light Field Networks", 2021; He et al., "CameraCtrl", 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F

from easyanimate_control.camera.path import SOURCE_RATIO, CameraPath
from easyanimate_core.errors import IncompatibleConditions
from easyanimate_core.interfaces import SupportsMaps

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import Geometry
    from easyanimate_core.interfaces import VideoVAE

__all__ = ["RAY", "SCALE", "camera_map", "pinhole", "plucker_rays"]

RAY: Final = 6
"""Channels of a ray: three of the moment, three of the direction."""

SCALE: Final = 6.0
"""What rays are multiplied by at the inlet, as in the training of released models."""

_CHUNK: Final = 8  # frames at full size at a time


def pinhole(path: CameraPath, height: int, width: int) -> Tensor:
    """Focal lengths and centres in pixels, `(F, 4)` float32: fx, fy, cx, cy.

    A file's lens is relative to a picture of 16:9. A frame of another shape shows a part of that picture as high (or as
    wide) as the whole: pixels stay square.
    """
    lenses = torch.from_numpy(path.lenses.copy())
    if width / height < SOURCE_RATIO:
        lenses[:, 0] *= height * SOURCE_RATIO / width
    else:
        lenses[:, 1] *= width / SOURCE_RATIO / height
    return (lenses * torch.tensor([width, height, width, height])).float()


def plucker_rays(path: CameraPath, height: int, width: int, *, part: slice = slice(None)) -> Tensor:
    """The ray through the middle of every pixel.

    Args:
        path: the camera, in every frame.
        height: of a frame in pixels.
        width: of a frame in pixels.
        part: the frames that are wanted.

    Returns:
        `(F, 6, height, width)` float32: moment, then direction. All moments of the first frame are 0.
    """
    fx, fy, cx, cy = pinhole(path, height, width)[part].T[..., None, None]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    across, down = torch.broadcast_tensors((x - cx) / fx, (y - cy) / fy)
    seen = torch.stack([across, down, torch.ones_like(across)], dim=1)
    seen = seen / seen.norm(dim=1, keepdim=True)
    placed = torch.from_numpy(path.relative()[part]).float()
    direction = torch.einsum("fij,fjhw->fihw", placed[:, :3, :3], seen)
    moment = torch.linalg.cross(placed[:, :3, 3, None, None].expand_as(direction), direction, dim=1)
    return torch.cat([moment, direction], dim=1)


def camera_map(path: CameraPath, geometry: Geometry, vae: VideoVAE, *, channels: int = RAY) -> Tensor:
    """What the inlet `camera` is fed with, on the CPU.

    With 6 channels, rays are brought to the latents' grid as the VAE brings maps there (`resize_map`): the first frame
    alone, the others sampled between frames, as released models were trained. A path with fewer poses than the video
    has frames is stretched over the video, one with more is cut off.

    With 6·k channels, k being the frames of a latent frame, no frame is lost: channel `ray · k + frame` of a latent
    frame holds that channel of the ray in that frame. The first latent frame holds the first frame k times. The path is
    resampled to the frames of the video.

    Args:
        path: one pose a frame.
        geometry: size of the video; its batch does not count.
        vae: says how pixels become latents.
        channels: of the inlet.

    Returns:
        `(1, channels, f, h, w)` float32, `SCALE` times the rays.

    Raises:
        IncompatibleConditions: rays do not make so many channels, or the VAE cannot resize maps.
    """
    _, _, frames, height, width = vae.compression.latent_shape(geometry)
    if channels == RAY:
        if not isinstance(vae, SupportsMaps):
            raise IncompatibleConditions(
                f"the VAE '{type(vae).__name__}' cannot bring camera rays to its latents' grid",
                "It needs the method 'resize_map'; see easyanimate_core.interfaces.SupportsMaps.",
            )
        fitting = path.resampled(min(geometry.frames, 2)) if len(path) == 1 else path.thinned(1, geometry.frames)
        return SCALE * vae.resize_map(_small(fitting, geometry, (height, width)), (frames, height, width))
    group = channels // RAY
    if channels % RAY or (frames - 1) * group + 1 != geometry.frames:
        raise IncompatibleConditions(
            f"the inlet 'camera' has '{channels}' channels, which rays of {geometry.frames} frames do not fill",
            f"This VAE needs {RAY}, or {RAY} for each frame of a latent frame.",
        )
    rays = _small(path.resampled(geometry.frames), geometry, (height, width))
    held = torch.cat([rays[:, :, :1].expand(-1, -1, group - 1, -1, -1), rays], dim=2)
    packed: Tensor = held.unflatten(2, (frames, group)).permute(0, 1, 3, 2, 4, 5).flatten(1, 2)
    return SCALE * packed


def _small(path: CameraPath, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """Rays `(1, 6, F, h, w)` at the latents' size: a few frames at full size at a time, because those are large."""
    small = []
    for start in range(0, len(path), _CHUNK):
        full = plucker_rays(path, geometry.height, geometry.width, part=slice(start, start + _CHUNK))
        small.append(F.interpolate(full, size, mode="bilinear", align_corners=False))
    return torch.cat(small).movedim(0, 1)[None]
