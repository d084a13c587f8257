"""What this package tells the plugin host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easyanimate_control.slots import PREPROCESSORS
from easyanimate_core.plugins import hookimpl
from easyanimate_core.slots import COMMANDS, CONDITIONERS

if TYPE_CHECKING:
    from easyanimate_core.registry import Registrar, Slot

__all__ = ["easyanimate_register", "easyanimate_slots"]


@hookimpl
def easyanimate_slots() -> tuple[Slot[Any], ...]:
    """Open `preprocessors`."""
    return (PREPROCESSORS,)


@hookimpl
def easyanimate_register(registrar: Registrar) -> None:
    """Register conditioners, preprocessors and the command `control`."""
    for name, target, options, inlet, summary in (
        ("control-video", "control_video:ControlVideo", "ControlVideoOptions", "control", "a video to follow"),
        ("reference", "reference:ReferenceImage", "ReferenceOptions", "reference", "a picture that says what it shows"),
        ("camera", "camera.conditioner:Camera", "CameraOptions", "camera", "a path that the camera follows"),
        ("trajectory", "trajectory.conditioner:Trajectory", "TrajectoryOptions", "control", "paths of moving things"),
    ):
        registrar.add(
            CONDITIONERS,
            name,
            f"easyanimate_control.{target}",
            options=f"easyanimate_control.options:{options}",
            summary=summary,
            tags=[f"inlet:{inlet}"],
        )
    for name, summary, aliases, extras in (
        ("canny", "thin edges", (), ("preprocess",)),
        ("depth", "near is bright, far is dark, by a network of transformers", (), ()),
        ("lines", "straight lines, for models trained on M-LSD", ("mlsd",), ("preprocess",)),
        ("pose", "stick figures of people, by rtmlib", ("openpose",), ("pose",)),
    ):
        registrar.add(
            PREPROCESSORS,
            name,
            f"easyanimate_control.preprocess.{name}:{name.capitalize()}",
            options=f"easyanimate_control.preprocess.options:{name.capitalize()}Options",
            aliases=aliases,
            summary=summary,
            requires=extras,
        )
    # A slot of easyanimate-train; parked where that is not installed.
    registrar.add(
        "givens",
        "camera",
        "easyanimate_control.training:CameraGiven",
        options="easyanimate_control.options:CameraGivenOptions",
        summary="the path of the clip's camera",
    )
    registrar.add(
        COMMANDS,
        "control",
        "easyanimate_control.cli:command",
        summary="make camera paths, trajectories, control videos",
    )
