"""The contracts of the slots `offload` and `storage`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from easyanimate_core.testing.contracts.contract import Contract, close, ensure, rule
from easyanimate_core.testing.toolbox import tiny_request, tiny_toolbox, walked

if TYPE_CHECKING:
    from torch import Tensor

    from easyanimate_core.data import State
    from easyanimate_core.interfaces import Toolbox

__all__ = ["OffloadContract", "StorageContract"]


class _Plain:
    """A component that is no module: a text encoder that asks a server, say."""

    def encode(self, prompts: object) -> None: ...


class OffloadContract(Contract):
    """An `OffloadStrategy`: the same output as when everything stays, and modules given back as they were found.

    Attributes:
        device: where to compute.
        tolerance: largest difference of latents and frames from a run without the strategy.
    """

    slot: ClassVar[str] = "offload"
    device: ClassVar[str] = "cpu"
    tolerance: ClassVar[float] = 0.0

    @contextmanager
    def attached(self) -> Iterator[Toolbox]:
        """Inside, a tiny toolbox is in the strategy's charge."""
        toolbox = replace(tiny_toolbox(), offload=self.create(), device=torch.device(self.device))
        toolbox.offload.attach(toolbox, toolbox.device)
        try:
            yield toolbox
        finally:
            toolbox.offload.detach()

    @rule
    def test_output_is_that_of_resident_weights(self) -> None:
        """A run under the strategy gives what a run gives whose weights stay on the device; so does a second run.

        If this fails: `using` must bring all weights and buffers of the roles that it names.
        """
        plain = replace(tiny_toolbox(), device=torch.device(self.device))
        for module in plain.modules().values():
            module.to(plain.device)
        wanted = walked(tiny_request(), plain)
        with self.attached() as toolbox:
            for label in ("the first run", "a second run"):
                self._compare(walked(tiny_request(), toolbox), wanted, label)

    @rule
    def test_roles_can_be_used_in_any_order(self) -> None:
        """Every role computes inside `using` of it, after any other and inside another.

        If this fails: leaving an inner `using` must not take away what the outer one brought.
        """
        with self.attached() as toolbox, torch.no_grad():
            latents = torch.zeros(1, 16, 1, 2, 2, device=toolbox.device)
            for role in ("vae", "text", "vae", "denoiser"):
                with toolbox.offload.using(role):
                    pass
            with toolbox.offload.using("denoiser"):
                with toolbox.offload.using("vae"):
                    toolbox.vae.decode_video(latents)
                wanted = tiny_toolbox()
                embedding = wanted.text_encoders[0].encode(["a red circle"])
                text = [replace(embedding, states=embedding.states.to(toolbox.device))]
                timestep = torch.tensor([500.0], device=toolbox.device)
                tokens = toolbox.denoiser.embed(latents, timestep, text, {})
                got = toolbox.denoiser.head(toolbox.denoiser.trunk(tokens))
            ensure(got.isfinite().all(), "the prediction is not finite")

    @rule
    def test_detach_gives_modules_back_as_they_were(self) -> None:
        """After `detach` weights have their places and values again, and modules work by themselves.

        If this fails: remove every hook, and remember where each module was before `attach` moved it.
        """
        before = tiny_toolbox()
        with self.attached() as toolbox:
            walked(tiny_request(), toolbox)
        for role, module in toolbox.modules().items():
            wanted = before.modules()[role].state_dict()
            got = module.state_dict()
            ensure(got.keys() == wanted.keys(), f"'{role}' has other weights than before")
            for name, tensor in got.items():
                ensure(tensor.device == wanted[name].device, f"'{role}.{name}' is on '{tensor.device}'")
                close(tensor, wanted[name], 0, f"'{role}.{name}'")
        free = replace(toolbox, offload=before.offload, device=torch.device("cpu"))
        self._compare(walked(tiny_request(), free), walked(tiny_request(), before), "a run after detach", exactly=True)

    @rule
    def test_it_can_be_attached_again(self) -> None:
        """A strategy takes charge again after it gave everything back, and giving back twice does no harm.

        If this fails: `detach` must forget what it knew.
        """
        toolbox, strategy = tiny_toolbox(), self.create()
        for _ in range(2):
            strategy.attach(toolbox, torch.device(self.device))
            strategy.detach()
        strategy.detach()

    @rule
    def test_components_that_are_no_modules_are_left_alone(self) -> None:
        """A component without weights of torch is no reason to fail.

        If this fails: skip what is not an `nn.Module`.
        """
        strategy = self.create()
        plain: Any = _Plain()
        strategy.attach(replace(tiny_toolbox(), text_encoders=(plain,)), torch.device(self.device))
        with strategy.using("text"):
            pass
        strategy.detach()

    def _compare(self, got: State, wanted: State, label: str, *, exactly: bool = False) -> None:
        tolerance = 0.0 if exactly else self.tolerance
        assert got.video is not None
        assert wanted.video is not None
        close(_there(got.latents), _there(wanted.latents), tolerance, f"latents of {label}")
        close(got.video.frames, wanted.video.frames, tolerance, f"frames of {label}")


class StorageContract(Contract):
    """A storage: weights in fewer bytes, and nearly the same output.

    Attributes:
        tolerance: root mean square of the latents' difference after a run, relative to the latents.
    """

    slot: ClassVar[str] = "storage"
    tolerance: ClassVar[float] = 0.0

    def stored(self) -> Toolbox:
        """A tiny toolbox whose modules are stored."""
        toolbox, storage = tiny_toolbox(), self.create()
        for role, module in toolbox.modules().items():
            storage.store(role.partition("_")[0], module)
        return toolbox

    @rule
    def test_output_is_nearly_that_of_native_weights(self) -> None:
        """A run with stored weights gives the native run's latents, within the stated tolerance.

        If this fails: weights must come back to the dtype that they compute in; biases and norms are best left alone.
        """
        wanted, got = (walked(tiny_request(), toolbox).latents for toolbox in (tiny_toolbox(), self.stored()))
        assert wanted is not None
        assert got is not None
        ensure(got.dtype == wanted.dtype, f"latents are '{got.dtype}' instead of {wanted.dtype}")
        error = ((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()).item()
        ensure(error <= self.tolerance, f"latents differ by '{error:.3g}' of their size (allowed: {self.tolerance:g})")

    @rule
    def test_it_needs_no_more_bytes(self) -> None:
        """Stored modules hold no more bytes than native ones.

        If this fails: the native weights are still held somewhere.
        """
        native, stored = (_bytes(toolbox) for toolbox in (tiny_toolbox(), self.stored()))
        ensure(stored <= native, f"they hold '{stored}' bytes instead of {native}")

    @rule
    def test_same_weights_same_output(self) -> None:
        """Storing draws no random numbers: two runs give the same latents, bit by bit.

        If this fails: round to nearest, not stochastically.
        """
        one, two = (walked(tiny_request(), self.stored(), until="denoise").latents for _ in range(2))
        close(_there(two), _there(one), 0, "the latents of a repeat")


def _there(latents: Tensor | None) -> Tensor:
    """Latents on the CPU; a run that went so far has some."""
    assert latents is not None
    return latents.cpu()


def _bytes(toolbox: Toolbox) -> int:
    modules = [module for module in toolbox.modules().values() if isinstance(module, nn.Module)]
    held = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)
