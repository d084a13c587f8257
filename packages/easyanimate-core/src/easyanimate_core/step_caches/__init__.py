"""Answer some denoising steps from what earlier ones computed. Off unless a request names one.

| cache | looks at | skips | source |
|---|---|---|---|
| `teacache` | the first block's modulated input | all blocks | Liu et al., arXiv:2411.19108, as in the original |
| `first-block` | what the first block adds | all other blocks | "first block cache" of ParaAttention |
| `easycache` | the network's input and output | the whole network | Zhou et al., arXiv:2507.02860 |
| `cfg-gate` | the difference that guidance makes | the unguided half | Castillo et al., arXiv:2312.12487 |

With a threshold of 0 each gives exactly what the network gives; `cfg-gate` with `after` 1.
"""

from __future__ import annotations

__all__: list[str] = []
