"""Everything that easyanimate-control registers keeps the contracts that core publishes for its slots."""

from __future__ import annotations

import numpy as np

from easyanimate_core.data import Inlet
from easyanimate_core.testing import contracts_of

CLIP = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), dtype=np.uint8)
PACKED = (Inlet("camera", "channels", 24), Inlet("reference", "channels", 16))

CASES = {
    "conditioners/control-video": [
        {"options": {"video": CLIP}},
        {"options": {"video": CLIP, "overlay": CLIP[:, ::-1]}},
    ],
    "conditioners/reference": [{"options": {"image": CLIP[0]}}],
    "conditioners/camera": [
        {"options": {"move": "pan-left + zoom-in"}},
        {"options": {"move": "roll-cw"}, "inlets": PACKED},
    ],
    "conditioners/trajectory": [{"options": {"points": [[[8, 20], [40, 24]], [[20, 8]]]}}],
}

globals().update(contracts_of("easyanimate-control", cases=CASES))
