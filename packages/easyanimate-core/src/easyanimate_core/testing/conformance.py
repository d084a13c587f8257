"""Contracts for everything that is registered: what a package's tests need to cover components yet to come."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from easyanimate_core.plugins import active
from easyanimate_core.testing.contracts.attention import AttentionContract
from easyanimate_core.testing.contracts.checkpoint_format import FormatContract
from easyanimate_core.testing.contracts.command import CommandContract
from easyanimate_core.testing.contracts.conditioner import ConditionerContract
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

if TYPE_CHECKING:
    from easyanimate_core.registry import Entry
    from easyanimate_core.testing.contracts.contract import Contract

__all__ = ["CONTRACTS", "contracts_of"]

CONTRACTS: Final[Mapping[str, type[Contract]]] = MappingProxyType(
    {
        kind.slot: kind
        for kind in (
            TextEncoderContract,
            ImageEncoderContract,
            DenoiserContract,
            VideoVAEContract,
            SamplerContract,
            ConditionerContract,
            OffloadContract,
            StorageContract,
            AttentionContract,
            StepCacheContract,
            FormatContract,
            PresetContract,
            StageContract,
            CommandContract,
        )
    }
)
"""The contract of each slot that has one, by the slot's name."""

_Cases = Mapping[str, Iterable[Mapping[str, Any]]]


def contracts_of(*distributions: str, cases: _Cases = MappingProxyType({})) -> dict[str, type[Contract]]:
    """Test classes for everything that distributions register; give them to pytest with `globals().update(…)`.

    A component that is registered later is tested without another line. Where a contract needs to know more (a small
    `config`, `options`), a case says it; several cases make several classes.

    ```python
    CASES = {"conditioners/sketch": [{"options": {"colour": "red"}}]}
    globals().update(contracts_of("easyanimate-sketch", cases=CASES))
    ```

    Args:
        distributions: whose components; those of their entries whose slot is not open are left out.
        cases: attributes of the contract by `slot/name`.

    Returns:
        Classes by name: `TestSamplersPower`, with a number behind it from the second case on; and one for each
        distribution as a whole.

    Raises:
        ValueError: a case is for a component that is not registered.
    """
    made: dict[str, type[Contract]] = {}
    plugins = [plugin for plugin in active().plugins if plugin.distribution in distributions]
    entries = [entry for plugin in plugins for entry in plugin.entries if entry not in plugin.parked]
    known = {_key(entry) for entry in entries}
    if lost := sorted(cases.keys() - known):
        raise ValueError(f"there is a case for '{lost[0]}', which is not registered by {', '.join(distributions)}")
    for distribution in distributions:
        name = f"Test{_camel(distribution)}"
        made[name] = type(name, (PluginContract,), {"distribution": distribution})
    for entry in entries:
        contract = CONTRACTS.get(entry.slot)
        if contract is None:
            continue
        for number, attributes in enumerate(cases.get(_key(entry), [{}]), start=1):
            name = f"Test{_camel(entry.slot)}{_camel(entry.name)}{number if number > 1 else ''}"
            made[name] = type(name, (contract,), {"component": entry.qualified, **attributes})
    return made


def _key(entry: Entry[Any]) -> str:
    return f"{entry.slot}/{entry.name}"


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name))
