"""The contract of the slot `formats`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from easyanimate_core.checkpoints.detect import recognise
from easyanimate_core.checkpoints.header import Header, TensorInfo
from easyanimate_core.interfaces import TranslatesConfig
from easyanimate_core.testing.contracts.contract import Contract, can, close, draw, ensure, rule

if TYPE_CHECKING:
    from easyanimate_core.interfaces import Format

__all__ = ["FormatContract"]


class FormatContract(Contract):
    """A `Format`: sure of its own files and of no others, and a map that loses nothing.

    Attributes:
        tensors: names and shapes of a small component in this layout.
        config: its `config.json`, if there is one.
        role: what the tensors shall become, `denoiser` or `vae`.
        module: names and shapes of the module that they are for; they must be met exactly. `None` does not compare.
    """

    slot: ClassVar[str] = "formats"
    tensors: ClassVar[Mapping[str, tuple[int, ...]]] = MappingProxyType({})
    config: ClassVar[Mapping[str, Any] | None] = None
    role: ClassVar[str] = "denoiser"
    module: ClassVar[Mapping[str, tuple[int, ...]] | None] = None

    def header(self) -> Header:
        """The header of the small component."""
        ensure(bool(self.tensors), "the contract has no `tensors`: say names and shapes of a small component")
        return _header(self.tensors, self.config, self.role)

    @rule
    def test_it_knows_its_own_files(self) -> None:
        """`match` gives a score above 0 and at most 1 for a component in this layout.

        If this fails: look for names that only this layout has; the whole list need not be known.
        """
        score = self.create().match(self.header())
        ensure(isinstance(score, int | float) and 0 < score <= 1, f"the score is '{score}'")

    @rule
    def test_it_leaves_other_files_alone(self) -> None:
        """`match` gives `None` for nothing, for strange names, and for a bare list of layers.

        If this fails: ask for names that occur in this layout only.
        """
        for names in ((), ("strange.weight", "strange.bias"), ("layers.0.weight", "layers.1.weight")):
            score = self.create().match(_header(dict.fromkeys(names, (2, 2)), None, self.role))
            ensure(score is None, f"'{', '.join(names)}' scores '{score}'")

    @rule
    def test_no_other_format_is_as_sure(self) -> None:
        """Among all installed formats this one has the best score for its own files, alone.

        If this fails: two layouts look alike; give the vaguer one a lower score, or look at the config.
        """
        found = recognise(self.header())
        ensure(found.name == self.entry().name, f"'{found.name}' is taken")

    @rule
    def test_every_tensor_is_used_once(self) -> None:
        """The key map uses every stored tensor once, or drops it by name, and makes every name once.

        If this fails: see `KeyMap.prove`, whose error says which name.
        """
        shapes = {name: tuple(shape) for name, shape in self.tensors.items()}
        made = self.create().keymap(self.header()).prove(shapes)
        if self.module is None:
            return
        wanted = {name: tuple(shape) for name, shape in self.module.items()}
        ensure(not wanted.keys() - made.keys(), f"'{min(wanted.keys() - made.keys(), default='')}' is not made")
        ensure(not made.keys() - wanted.keys(), f"'{min(made.keys() - wanted.keys(), default='')}' is made for nobody")
        wrong = [name for name, shape in wanted.items() if made[name] != shape]
        ensure(not wrong, f"'{(wrong or [''])[0]}' has another shape than in the module")

    @rule
    def test_the_way_back_is_exact(self) -> None:
        """Tensors that are mapped and mapped back are the stored ones, bit by bit, unless the map drops some.

        If this fails: every rule has an inverse; a `Pad` may only cut zeros.
        """
        keymap = self.create().keymap(self.header())
        if keymap.dropped:
            return
        stored = {name: draw(*shape, seed=index) for index, (name, shape) in enumerate(self.tensors.items())}
        back = keymap.inverse().apply(keymap.apply(stored))
        ensure(back.keys() == stored.keys(), f"'{min(back.keys() ^ stored.keys(), default='')}' is lost or new")
        for name, tensor in stored.items():
            close(back[name], tensor, 0, f"'{name}'")

    @rule
    def test_only_names_and_shapes_count(self) -> None:
        """Score and map are the same whatever the dtype of the tensors, and asking twice gives the same.

        If this fails: a format looks at names, shapes, metadata and config, and keeps nothing.
        """
        layout: Format = self.create()
        half = _header(self.tensors, self.config, self.role, dtype="BF16")
        ensure(layout.match(half) == layout.match(self.header()), "bfloat16 weights score otherwise")
        ensure(layout.keymap(half) == layout.keymap(self.header()), "bfloat16 weights are mapped otherwise")

    @rule
    def test_a_translated_config_is_a_mapping(self) -> None:
        """The settings of a translated `config.json` are a mapping with texts as keys. Optional: `TranslatesConfig`.

        If this fails: give what the component's constructor takes.
        """
        layout = self.create()
        if can(layout, TranslatesConfig):
            settings = layout.config(self.header())
            ensure(isinstance(settings, Mapping) and all(isinstance(k, str) for k in settings), f"it is '{settings!r}'")


def _header(
    tensors: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None, role: str, *, dtype: str = "F32"
) -> Header:
    """A header without a file."""
    at, infos = 0, {}
    for name, shape in tensors.items():
        size = torch.Size(shape).numel() * (4 if dtype == "F32" else 2)
        infos[name] = TensorInfo(dtype, tuple(shape), at, at + size)
        at += size
    return Header(Path("contract.safetensors"), infos, {}, config, role)
