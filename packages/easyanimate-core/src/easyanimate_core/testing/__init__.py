"""What plugin authors test with: a contract for every slot, and tiny real models.

```python
from easyanimate_core.testing import PluginContract, SamplerContract

class TestHeun(SamplerContract):
    component = "easyanimate-heun:heun"

class TestPlugin(PluginContract):
    distribution = "easyanimate-heun"
```

pytest collects these classes as they stand; see `docs/reference/testing.md`.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from easyanimate_core.testing.conformance import CONTRACTS, contracts_of
    from easyanimate_core.testing.contracts.attention import AttentionContract
    from easyanimate_core.testing.contracts.checkpoint_format import FormatContract
    from easyanimate_core.testing.contracts.command import CommandContract
    from easyanimate_core.testing.contracts.conditioner import ConditionerContract
    from easyanimate_core.testing.contracts.contract import Contract, close, draw, ensure, rule, rules_of
    from easyanimate_core.testing.contracts.denoiser import DenoiserContract
    from easyanimate_core.testing.contracts.image_encoder import ImageEncoderContract
    from easyanimate_core.testing.contracts.placement import OffloadContract, StorageContract
    from easyanimate_core.testing.contracts.plugin import PluginContract
    from easyanimate_core.testing.contracts.preset import PresetContract
    from easyanimate_core.testing.contracts.sampler import SamplerContract
    from easyanimate_core.testing.contracts.stage import StageContract
    from easyanimate_core.testing.contracts.step_cache import StepCacheContract
    from easyanimate_core.testing.contracts.text_encoder import TextEncoderContract
    from easyanimate_core.testing.contracts.vae import VideoVAEContract
    from easyanimate_core.testing.tiny import write_checkpoint
    from easyanimate_core.testing.toolbox import tiny_request, tiny_state, tiny_toolbox, walked

__all__ = [
    "CONTRACTS",
    "AttentionContract",
    "CommandContract",
    "ConditionerContract",
    "Contract",
    "DenoiserContract",
    "FormatContract",
    "ImageEncoderContract",
    "OffloadContract",
    "PluginContract",
    "PresetContract",
    "SamplerContract",
    "StageContract",
    "StepCacheContract",
    "StorageContract",
    "TextEncoderContract",
    "VideoVAEContract",
    "close",
    "contracts_of",
    "draw",
    "ensure",
    "rule",
    "rules_of",
    "tiny_request",
    "tiny_state",
    "tiny_toolbox",
    "walked",
    "write_checkpoint",
]

# Resolved when they are used: testing a sampler needs no VAE.
_HOMES: Final = MappingProxyType(
    {
        "AttentionContract": "contracts.attention",
        "CONTRACTS": "conformance",
        "CommandContract": "contracts.command",
        "ConditionerContract": "contracts.conditioner",
        "Contract": "contracts.contract",
        "DenoiserContract": "contracts.denoiser",
        "FormatContract": "contracts.checkpoint_format",
        "ImageEncoderContract": "contracts.image_encoder",
        "OffloadContract": "contracts.placement",
        "PluginContract": "contracts.plugin",
        "PresetContract": "contracts.preset",
        "SamplerContract": "contracts.sampler",
        "StageContract": "contracts.stage",
        "StepCacheContract": "contracts.step_cache",
        "StorageContract": "contracts.placement",
        "TextEncoderContract": "contracts.text_encoder",
        "VideoVAEContract": "contracts.vae",
        "close": "contracts.contract",
        "contracts_of": "conformance",
        "draw": "contracts.contract",
        "ensure": "contracts.contract",
        "rule": "contracts.contract",
        "rules_of": "contracts.contract",
        "tiny_request": "toolbox",
        "tiny_state": "toolbox",
        "tiny_toolbox": "toolbox",
        "walked": "toolbox",
        "write_checkpoint": "tiny",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'easyanimate_core.testing' has no attribute '{name}'")
    return getattr(import_module(f"easyanimate_core.testing.{_HOMES[name]}"), name)
