"""The loop: next batch, loss, step, average, log, checkpoint. Nothing here knows what is trained."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from easyanimate_core.errors import CheckpointMismatch, ExecutionError
from easyanimate_core.events import CancelToken, EventBus, JobFinished, Notice, Step
from easyanimate_core.plugins import active
from easyanimate_train.data.cache import ClipEncoder, cached_latents
from easyanimate_train.data.order import DataOrder, generator
from easyanimate_train.loop.optim import make_optimizer, make_schedule
from easyanimate_train.loop.record import Recorder
from easyanimate_train.loop.snapshot import Snapshot, latest_snapshot, prune
from easyanimate_train.models import load_models, save_models

if TYPE_CHECKING:
    from easyanimate_train.config import TrainConfig
    from easyanimate_train.interfaces import Batch, Learnable, Models, Objective, TrainDataset

__all__ = ["Trainer"]


class _LossModule(nn.Module):
    """Objective and modules as one module, so that data-parallel wrappers see every forward pass."""

    def __init__(self, objective: Objective, models: Models) -> None:
        super().__init__()
        self.objective = objective
        self.models = models
        self.held = nn.ModuleDict(dict(models.roles()))

    def forward(self, *args: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Batch and generator to loss and log values."""
        return self.objective.loss(self.models, *args)


class Trainer:
    """One run of a recipe.

    Args:
        config: the recipe.
        objective: what is minimised.
        learnable: what changes.
        dataset: what is seen.
        events: hears progress and metrics.
        cancel: checked before every step; cancelling writes a checkpoint first.
    """

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        learnable: Learnable,
        dataset: TrainDataset,
        *,
        events: EventBus,
        cancel: CancelToken,
    ) -> None:
        self.config = config
        self.objective = objective
        self.dataset = dataset
        self.events = active().wire(events)
        self.cancel = cancel
        # accelerate keeps the first precision of a process for ever; an earlier run's must not bind this one.
        AcceleratorState._reset_state()
        # Blocks whose text output nobody reads leave gradients empty.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(mixed_precision=config.mixed_precision, kwargs_handlers=[unused])
        model = config.model
        self.models = load_models(
            model.weights, objective.roles, model.fresh, config.seed, inlets=model.inlets, denoiser=model.denoiser
        )
        self.givens = {f"{choice.qualified} {choice.options!r}": choice.create() for choice in config.givens}
        self.parameters = dict(learnable.parameters(self.models))
        if self.models.denoiser is not None:
            self.models.denoiser.set_attention(config.attention.create())
        if config.gradient_checkpointing:
            for module in self.models.roles().values():
                if getattr(module, "_supports_gradient_checkpointing", False):
                    module.enable_gradient_checkpointing()  # type: ignore[operator]
        loss = _LossModule(objective, self.models).to(self.accelerator.device)
        optimizer = make_optimizer(self.parameters, config.optim)
        self.loss, self.optimizer = self.accelerator.prepare(loss, optimizer)
        self.schedule = make_schedule(optimizer, config.optim, config.steps)
        self.ema = self._average()
        self.step = 0
        self.started = time.monotonic()

    def _average(self) -> EMAModel | None:
        ema = self.config.ema
        if ema is None:
            return None
        # diffusers' own warm-up, (1 + n) / (10 + n), is what it does without `use_ema_warmup`.
        return EMAModel(list(self.parameters.values()), decay=ema.decay, min_decay=0.0 if ema.warmup else ema.decay)

    def run(self, *, resume: bool = False) -> Path:
        """Train to the last step.

        Args:
            resume: go on from the newest checkpoint in the output folder.

        Returns:
            The folder `final/` with the result in the released layout.

        Raises:
            Cancelled: the run was stopped; a checkpoint has been written.
            ExecutionError: the loss is not finite, or the folder holds another run.
            CheckpointError: resuming is not possible.
        """
        config = self.config
        if resume:
            self._resume(latest_snapshot(config.output))
        elif any(config.output.glob("checkpoint-*")):
            raise ExecutionError(f"'{config.output}' holds an earlier run", "Resume it, or choose another output.")
        else:
            self.objective.begin(self.models)
        config.output.mkdir(parents=True, exist_ok=True)
        order = DataOrder(
            self.dataset, config.seed, config.batch_size, self._latents(), givens=tuple(self.givens.values())
        )
        # Only one process writes; the others step along.
        recorded = self.accelerator.is_main_process
        with Recorder(config.output, self.events, tensorboard=config.tensorboard and recorded) as recorder:
            self._steps(order, recorder if recorded else None)
        self._write()
        return self._finish(order)

    def _steps(self, order: DataOrder, recorder: Recorder | None) -> None:
        config = self.config
        first, began = self.step, time.monotonic()
        while self.step < config.steps:
            if self.cancel.cancelled:
                self._write()
                self.cancel.check()
            loss, values = self._take_step(order)
            if recorder is not None and (self.step % config.log_every == 0 or self.step == config.steps):
                pace = (time.monotonic() - began) / (self.step - first)
                recorder.write(self.step, {"loss": loss, **values, "seconds_per_step": round(pace, 4)})
            self.events.emit(Step(index=self.step - 1, total=config.steps, stage="train"))
            if self.step % config.checkpoint.every == 0 and self.step < config.steps:
                self._write()

    def _take_step(self, order: DataOrder) -> tuple[float, dict[str, float]]:
        """One optimiser step over all micro-steps."""
        accumulate, world = self.config.optim.accumulate, self.accelerator.num_processes
        total, logged = 0.0, {}
        for micro in range(accumulate):
            number = (self.step * accumulate + micro) * world + self.accelerator.process_index
            batch = self._given(_moved(order.batch(number), self.accelerator.device))
            # Layers that draw for themselves (dropout) follow the position too.
            torch.manual_seed(generator(self.config.seed, "layers", number).initial_seed())
            with self.accelerator.autocast():
                loss, values = self.loss(batch, generator(self.config.seed, "loss", number))
            self.accelerator.backward(loss / accumulate)
            total += float(loss.detach()) / accumulate
            logged = {name: float(value.detach()) for name, value in values.items()}
        if not torch.isfinite(torch.tensor(total)):
            raise ExecutionError(
                f"the loss is '{total}' at step {self.step + 1}",
                "Lower the learning rate, or resume from a checkpoint.",
            )
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.optim.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(list(self.parameters.values()))
        self.step += 1
        return total, {**logged, "grad_norm": float(norm), "lr": self.schedule.get_last_lr()[0]}

    def _given(self, batch: Batch) -> Batch:
        """The batch with values for inlets, where they were not cached."""
        if not batch.drawn or batch.pixels is None:
            return batch
        encoder = ClipEncoder(self.models.vae)
        latents = encoder(batch.pixels)
        inlets: dict[str, Tensor] = {}
        for given, drawn in zip(self.givens.values(), batch.drawn, strict=True):
            inlets.update(given.encode(encoder, batch.pixels, latents, drawn))
        return replace(batch, latents=latents, inlets=inlets)

    def _latents(self) -> Mapping[str, Tensor] | None:
        config = self.config
        if config.cache is None:
            return None
        vae = self.models.vae
        for number in range(self.accelerator.num_processes):
            if number == self.accelerator.process_index:
                cache = cached_latents(
                    config.cache.folder or config.output / "cache",
                    self.dataset,
                    vae,
                    config.cache,
                    config.seed,
                    lambda done, total: self.events.emit(Step(index=done - 1, total=total, stage="encode")),
                    givens=self.givens,
                )
            self.accelerator.wait_for_everyone()
        return cache

    def _write(self) -> None:
        """Write a checkpoint of this step."""
        if self.accelerator.is_main_process:
            target = Snapshot(self.config.output / f"checkpoint-{self.step}")
            state = {"step": self.step, "schedule": self.schedule.state_dict()["last_epoch"], "recipe": self._recipe()}
            target.write(
                {name: p.detach() for name, p in self.parameters.items()},
                self.optimizer.state_dict(),
                None if self.ema is None else self.ema.state_dict(),
                state,
            )
            prune(self.config.output, self.config.checkpoint.keep)
        self.accelerator.wait_for_everyone()

    def _recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = self.config.model_dump(mode="json")
        return recipe

    def _resume(self, snapshot: Snapshot) -> None:
        state = snapshot.state()
        changed = [key for key, value in self._recipe().items() if state["recipe"].get(key) != value]
        if unsafe := [key for key in changed if key not in ("checkpoint", "log_every", "output", "tensorboard")]:
            raise CheckpointMismatch(
                f"'{snapshot.folder}' was made by a recipe with another {', '.join(unsafe)}",
                "Resume with the recipe of the run, or start a new output folder.",
            )
        stored = snapshot.weights()
        if stored.keys() != self.parameters.keys():
            raise CheckpointMismatch(f"'{snapshot.folder}' holds other parameters", "Resume with the run's own recipe.")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(stored[name])
        self.optimizer.load_state_dict(snapshot.optimizer())
        # The rate follows from the step alone.
        self.schedule.load_state_dict({**self.schedule.state_dict(), "last_epoch": state["schedule"]})
        for group, rate in zip(self.optimizer.param_groups, self._rates(state["schedule"]), strict=True):
            group["lr"] = rate
        if self.ema is not None and (ema := snapshot.ema()) is not None:
            self.ema.load_state_dict(ema)
        self.step = int(state["step"])
        self.events.emit(Notice(message=f"resumed from {snapshot.folder} at step {self.step}"))

    def _rates(self, step: int) -> list[float]:
        return [base * f(step) for base, f in zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)]

    def _finish(self, order: DataOrder) -> Path:
        """Write the result: averages where there are any."""
        config = self.config
        final = config.output / "final"
        if self.ema is not None:
            self.ema.store(self.parameters.values())
            self.ema.copy_to(self.parameters.values())
        with torch.no_grad():
            self.objective.finish(self.models, _moved(order.batch(0), self.accelerator.device))
        if self.accelerator.is_main_process:
            save_models(self.models, final, {}, torch.float32)
        if self.ema is not None:
            self.ema.restore(self.parameters.values())
        self.accelerator.wait_for_everyone()
        self.events.emit(JobFinished(config.output.name, time.monotonic() - self.started, (str(final),)))
        return final


def _moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device."""
    return replace(
        batch,
        pixels=None if batch.pixels is None else batch.pixels.to(device),
        latents=None if batch.latents is None else batch.latents.to(device),
        drawn=tuple({name: value.to(device) for name, value in drawn.items()} for drawn in batch.drawn),
        inlets={name: value.to(device) for name, value in batch.inlets.items()},
    )
