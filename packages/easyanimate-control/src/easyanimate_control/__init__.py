"""Control video, reference, trajectory and camera conditioning for the EasyAnimate SDK.

So far it opens the slot of preprocessors; see `easyanimate_control.slots`.
"""

from __future__ import annotations

__all__: list[str] = []
