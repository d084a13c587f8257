"""Where weights are while they are not used.

| strategy | what comes and goes together | on the device |
|---|---|---|
| `resident` | everything | always |
| `model` | a component | while it is used |
| `group` | a few blocks | while one of them runs; the rest of the component while it is used |
| `sequential` | a linear layer or convolution | while it runs; the rest of the component while it is used |
| `stream` | a block | from a ring, fetched while the block before runs |

Weights go to the device and never come back: what is in main memory, or in a file, stays there.

`pack` lays tensors into one buffer · `blocks` finds what comes and goes · `homes` is where it waits · `parts` is
`model`, `group` and `sequential` · `ring` decides what is fetched when, `lanes` fetch it, `timeline` is a lane made of
clocks · `stream` puts them together.
"""

from __future__ import annotations

__all__: list[str] = []
