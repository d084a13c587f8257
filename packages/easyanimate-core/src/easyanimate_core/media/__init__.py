"""Files to pixels and back: `read` (video, picture, metadata) and `write` (mp4, gif, png).

Import from the submodules: they need PyAV and Pillow, this package alone needs nothing.
"""

from __future__ import annotations

__all__: list[str] = []
