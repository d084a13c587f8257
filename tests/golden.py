"""Loads recorded cases from `tests/goldens` and compares results with them.

A golden case is one folder: `config.json` (constructor arguments), `case.json` (calls, tolerances and where the
weights are), `inputs.safetensors` and `outputs.safetensors`. They are packed: float16 on disk is widened to float32
when read, and lost nothing; tensors that are equal are stored once (the file's metadata `same` says which); of large
outputs only every n-th row and column was kept (a call's `every` says which).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["GOLDENS", "Call", "Case", "assert_close", "load_case"]

GOLDENS = Path(__file__).parent / "goldens"


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call: what went in, what came out, and how close a new result has to be."""

    name: str
    op: str
    inputs: dict[str, Any]
    kwargs: dict[str, Any]
    expected: dict[str, Tensor]
    tolerance: dict[str, Any]
    every: dict[str, dict[int, int]] = field(default_factory=dict)
    """By output: along which axes only every n-th entry was kept."""

    def kept(self, name: str, whole: Tensor) -> Tensor:
        """The part of an output that was recorded."""
        steps = {axis % whole.ndim: n for axis, n in self.every.get(name, {}).items()}
        return whole[tuple(slice(None, None, steps.get(axis, 1)) for axis in range(whole.ndim))]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Case:
    """All recorded calls of one model or pipeline.

    Attributes:
        path: the case's folder.
        config: constructor arguments; for pipelines one entry per component.
        calls: in the order of `case.json`.
        weights: file of each state dict, relative to the folder.
    """

    path: Path
    config: dict[str, Any]
    calls: tuple[Call, ...]
    weights: dict[str, str]

    def state_dict(self, name: str = "weights") -> dict[str, Tensor]:
        """The recorded state dict of this name, float32, with the released parameter names."""
        return {key: widened(value) for key, value in tensors(self.path / self.weights[name]).items()}

    def call(self, name: str) -> Call:
        """The call of this name."""
        return next(call for call in self.calls if call.name == name)


def load_case(name: str) -> Case:
    """The case in `tests/goldens/<name>`."""
    path = GOLDENS / name
    described = json.loads((path / "case.json").read_text("utf-8"))
    inputs, outputs = tensors(path / "inputs.safetensors"), tensors(path / "outputs.safetensors")
    calls = tuple(
        Call(
            name=call["name"],
            op=call["op"],
            inputs=nested({name: widened(inputs[key]) for name, key in call["inputs"].items()}),
            kwargs=call.get("kwargs", {}),
            expected={name: outputs[key] for name, key in call["outputs"].items()},
            tolerance=call["tolerance"],
            every={name: {int(axis): n for axis, n in axes.items()} for name, axes in call.get("every", {}).items()},
        )
        for call in described["calls"]
    )
    config = json.loads((path / "config.json").read_text("utf-8"))
    return Case(path, config, calls, described.get("weights", {}))


def assert_close(call: Call, outputs: Mapping[str, Tensor], *, only: Collection[str] | None = None) -> None:
    """Fail unless every recorded output is reproduced within the call's tolerance.

    Args:
        call: what was recorded.
        outputs: our results by output name.
        only: compare these outputs; all of the call when `None`.
    """
    for name in only if only is not None else call.expected:
        got, want = call.kept(name, outputs[name].detach().cpu()), call.expected[name]
        where = f"{call.name}/{name}"
        assert tuple(got.shape) == tuple(want.shape), f"{where}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
        if call.tolerance["mode"] == "exact":
            assert torch.equal(got, want), f"{where}: differs from the recorded value"
            continue
        error = (got.double() - want.double()).abs()
        allowed = call.tolerance["atol"] + call.tolerance["rtol"] * want.double().abs()
        # `not <=` instead of `>`: NaN must fail.
        outside = ~(error <= allowed)
        assert not outside.any(), f"{where}: max error {error.max():.3e}, {outside.double().mean():.2%} outside"


def tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, none if it does not exist (some calls need only plain values)."""
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        same = json.loads((file.metadata() or {}).get("same", "{}"))
    stored = load_file(path)
    return {**stored, **{name: stored[other].clone() for name, other in same.items()}}


def widened(tensor: Tensor) -> Tensor:
    """float16 as float32, all else as it is."""
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def nested(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """`{"a.0": x, "a.1": y, "b.c": z}` to `{"a": (x, y), "b": {"c": z}}`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return {key: folded(value) for key, value in tree.items()}


def folded(node: Any) -> Any:
    """Dicts whose keys count 0, 1, 2… as tuples, at every depth."""
    if not isinstance(node, dict):
        return node
    children = {key: folded(value) for key, value in node.items()}
    if set(children) == {str(i) for i in range(len(children))}:
        return tuple(children[str(i)] for i in range(len(children)))
    return children
