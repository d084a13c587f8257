"""Control video, reference, trajectory and camera conditioning for the EasyAnimate SDK.

Conditioners are in `control_video`, `reference`, `camera` and `trajectory`; what makes control videos is in
`preprocess`. The functions under them work without a pipeline, for training and for other programs:
`camera.rays.camera_map`, `control_video.encode_control`, `reference.encode_reference`, `trajectory.heat.heat_video`.
"""

from __future__ import annotations

__all__: list[str] = []
