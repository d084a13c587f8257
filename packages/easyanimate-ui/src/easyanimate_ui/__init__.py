"""Web UI, HTTP API and ComfyUI nodes of the EasyAnimate SDK.

So far it opens the slot of panels; see `easyanimate_ui.slots`.
"""

from __future__ import annotations

__all__: list[str] = []
