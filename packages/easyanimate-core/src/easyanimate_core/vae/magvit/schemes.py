"""The temporal schemes of the released VAEs: in which runs a clip is coded, and what one run knows of the others.

| scheme | released with | coded | decoded | f latent frames become |
|---|---|---|---|---|
| `CachedCausal` | V5, V5.1 | 1, 4, 4 … | 1, 1, 1 … | 1 + 4·(f − 1) frames |
| `CachedRuns` | V4 | (1,) 8, 8 … | 2, 2 … | 4·f frames; one becomes one |
| `ContextRuns` | V3 | (1,) 8, 8 … | (1,) 2, 2 … | 4·f frames; 1 + 4·(f − 1) if f is odd |
| `LoneRuns` | V2 | 9, 9 … | 3, 3 … | 1 + 4·(n − 1) frames of each run of n |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from easyanimate_core.errors import CheckpointMismatch, InvalidRequest
from easyanimate_core.vae.base import CausalCompression, RunCompression
from easyanimate_core.vae.magvit.passes import CausalPass, CentredPass, TimePass

__all__ = ["CachedCausal", "CachedRuns", "ContextRuns", "LoneRuns", "Run", "TemporalScheme", "scheme_of"]


@dataclass(frozen=True, slots=True)
class Run:
    """Frames, or latent frames, that go through the network together.

    Attributes:
        frames: which of the clip.
        time: the pass that they are part of.
        before: frames in front of these that the first layers of the decoder see, too.
        after: the same behind.
    """

    frames: slice
    time: TimePass
    before: int = 0
    after: int = 0

    @property
    def seen(self) -> slice:
        """The frames with those around them."""
        return slice(self.frames.start - self.before, self.frames.stop + self.after)

    @property
    def own(self) -> slice:
        """Where the frames themselves are among those seen."""
        return slice(self.before, self.before + self.frames.stop - self.frames.start)


class TemporalScheme(Protocol):
    """Cuts a clip into runs. Frozen: what a pass remembers is in the pass, so one scheme serves many at once."""

    @property
    def compression(self) -> CausalCompression | RunCompression:
        """How frames become latent frames."""
        ...

    @property
    def smooths(self) -> bool:
        """Runs do not know of each other, so the seams between them are smoothed in finished videos."""
        ...

    @property
    def lone_first(self) -> bool:
        """The first frame of a clip is a latent frame by itself."""
        ...

    def encoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """Runs of frames; with `whole` one run where the scheme's cache makes that the same.

        Raises:
            InvalidRequest: a number of frames that the scheme cannot code.
        """
        ...

    def decoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """Runs of latent frames; `whole` as in `encoding`."""
        ...


@dataclass(frozen=True, slots=True)
class CachedCausal:
    """`cache_mag_vae`: one causal pass. Convolutions remember; norms look at single frames. So runs only bound memory.

    Attributes:
        compression: how frames become latent frames.
        encoder_run: frames per run after the first.
        decoder_run: latent frames per run after the first.
    """

    compression: CausalCompression
    encoder_run: int
    decoder_run: int
    smooths = False
    lone_first = True

    def encoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """The first frame, then `encoder_run` at a time."""
        fitting = self.compression.round_frames(frames)
        if frames != fitting:
            raise InvalidRequest(
                f"this VAE encodes 1 + {self.compression.temporal}k frames, not '{frames}'", f"Use {fitting} frames."
            )
        return self._runs(frames, self.encoder_run, whole)

    def decoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """The first latent frame, then `decoder_run` at a time."""
        return self._runs(frames, self.decoder_run, whole)

    def _runs(self, length: int, size: int, whole: bool) -> Iterator[Run]:
        if whole or length == 1:
            yield Run(slice(0, length), CausalPass(remember=False))
            return
        time = CausalPass(split=True)
        yield Run(slice(0, 1), time)
        for frames in _cuts(1, length, size):
            yield Run(frames, time)


@dataclass(frozen=True, slots=True)
class _Runs:
    """What schemes of runs have in common.

    Attributes:
        compression: how frames become latent frames.
        encoder_run: frames per run.
        decoder_run: latent frames per run.
    """

    compression: RunCompression
    encoder_run: int
    decoder_run: int


@dataclass(frozen=True, slots=True)
class LoneRuns(_Runs):
    """`slice_mag_vae`: causal runs without any memory."""

    smooths = True
    lone_first = False

    def encoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """`encoder_run` frames at a time."""
        return (Run(cut, CausalPass(remember=False)) for cut in _cuts(0, frames, self.encoder_run))

    def decoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """`decoder_run` latent frames at a time."""
        return (Run(cut, CausalPass(remember=False)) for cut in _cuts(0, frames, self.decoder_run))


@dataclass(frozen=True, slots=True)
class ContextRuns(_Runs):
    """`slice_compression_vae`: runs between zeros. The first layers of the decoder see the runs around theirs."""

    smooths = True
    lone_first = False

    def encoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """The first frame of an odd number, then `encoder_run` at a time."""
        return _centred(frames, self.encoder_run)

    def decoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """The first latent frame of an odd number, then `decoder_run` at a time, each with its neighbours."""
        start = frames % 2
        for run in _centred(frames, self.decoder_run):
            cut = run.frames
            # The lone first one is nobody's context.
            before = min(self.decoder_run, cut.start - start) if cut.stop > start else 0
            after = min(self.decoder_run, frames - cut.stop) if cut.stop > start else 0
            yield Run(cut, run.time, before, after)


@dataclass(frozen=True, slots=True)
class CachedRuns(_Runs):
    """`cache_compression_vae`: coded as `ContextRuns`, decoded in one causal pass that doubles every frame.

    Norms look at all frames of a run, so results depend on how long runs are.
    """

    smooths = False
    lone_first = False

    def encoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """The first frame of an odd number, then `encoder_run` at a time."""
        return _centred(frames, self.encoder_run)

    def decoding(self, frames: int, *, whole: bool) -> Iterator[Run]:
        """`decoder_run` latent frames at a time; a single one stays single. With `whole` all in one run."""
        if frames == 1:
            yield Run(slice(0, 1), CentredPass(lone=True))
            return
        time = CausalPass(lone_first=False, remember=not whole)
        for cut in _cuts(0, frames, frames if whole else self.decoder_run):
            yield Run(cut, time)


def scheme_of(config: Mapping[str, Any], *, channels: int, spatial: int, temporal: int) -> TemporalScheme:
    """The scheme that a released `vae/config.json` names.

    Args:
        config: complete; of several switches the first in the order of the four names below counts.
        channels: latent channels.
        spatial: pixels per latent pixel along each side.
        temporal: frames per latent frame.

    Raises:
        CheckpointMismatch: the switches contradict the norms.
    """
    runs = int(config["mini_batch_encoder"]), int(config["mini_batch_decoder"])
    if config["cache_mag_vae"]:
        if not config["spatial_group_norm"]:
            raise CheckpointMismatch(
                "this VAE config sets 'cache_mag_vae' to 'True' and 'spatial_group_norm' to 'False'",
                "The scheme needs norms over single frames. Fetch the VAE's config.json again.",
            )
        return CachedCausal(CausalCompression(channels, spatial, temporal), *runs)
    compression = RunCompression(channels, spatial, temporal, runs[0])
    if config["cache_compression_vae"]:
        return CachedRuns(compression, *runs)
    if config["slice_compression_vae"]:
        return ContextRuns(compression, *runs)
    if not config["slice_mag_vae"]:
        raise CheckpointMismatch(
            "this VAE config names no temporal scheme",
            "Set one of cache_mag_vae, cache_compression_vae, slice_compression_vae, slice_mag_vae to true.",
        )
    return LoneRuns(RunCompression(channels, spatial, temporal, runs[0], odd_alone=False), *runs)


def _cuts(start: int, stop: int, size: int) -> Iterator[slice]:
    """`size` frames at a time; the last ones may be fewer."""
    return (slice(i, min(i + size, stop)) for i in range(start, stop, size))


def _centred(length: int, size: int) -> Iterator[Run]:
    """Runs between zeros; the first frame of an odd number is one of its own."""
    if length % 2:
        yield Run(slice(0, 1), CentredPass(lone=True))
    for cut in _cuts(length % 2, length, size):
        yield Run(cut, CentredPass())
