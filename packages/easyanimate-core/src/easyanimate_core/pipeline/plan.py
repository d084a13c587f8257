"""The stages of a run, in order, and the check that they fit before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from easyanimate_core.errors import InvalidPlan
from easyanimate_core.interfaces import Stage
from easyanimate_core.validation import did_you_mean

__all__ = ["Plan"]


class Plan:
    """An ordered list of stages with names; plugins edit it in the hook `easyanimate_plan`.

    ```python
    plan.insert(Watermark(), after="decode")
    plan.replace("denoise", MyDenoise())
    plan.drop("upscale")
    ```
    """

    def __init__(self, stages: Iterable[Stage] = ()) -> None:
        self._stages: list[Stage] = []
        for stage in stages:
            self.append(stage)

    def __iter__(self) -> Iterator[Stage]:
        return iter(tuple(self._stages))

    def __len__(self) -> int:
        return len(self._stages)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __str__(self) -> str:
        return " → ".join(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the stages, in order."""
        return tuple(stage.name for stage in self._stages)

    def append(self, stage: Stage) -> None:
        """Add a stage at the end.

        Raises:
            InvalidPlan: a stage of this name is there already.
        """
        self._put(len(self._stages), stage)

    def insert(self, stage: Stage, *, before: str | None = None, after: str | None = None) -> None:
        """Add a stage next to another; give exactly one of `before` and `after`.

        Raises:
            InvalidPlan: no stage is called like that, a stage of the new name is there already, or both or neither
                of `before` and `after` are given.
        """
        if before is not None and after is None:
            self._put(self._index(before), stage)
        elif after is not None and before is None:
            self._put(self._index(after) + 1, stage)
        else:
            raise InvalidPlan(f"the place of stage '{stage.name}' is not clear", "Give one of before= and after=.")

    def replace(self, name: str, stage: Stage) -> None:
        """Put another stage in the place of one; the new one may have another name.

        Raises:
            InvalidPlan: no stage is called `name`, or the new name is taken by a third stage.
        """
        index = self._index(name)
        removed = self._stages.pop(index)
        try:
            self._put(index, stage)
        except InvalidPlan:
            self._stages.insert(index, removed)
            raise

    def drop(self, name: str) -> None:
        """Take a stage out.

        Raises:
            InvalidPlan: no stage is called like that.
        """
        del self._stages[self._index(name)]

    def check(self, filled: Iterable[str] = ()) -> None:
        """Prove that every stage finds what it needs.

        Args:
            filled: fields of the state that are there before the first stage.

        Raises:
            InvalidPlan: a stage needs a field that nothing before it gives.
        """
        there = set(filled)
        for stage in self._stages:
            if lacking := sorted(stage.needs - there):
                givers = [other.name for other in self._stages if set(lacking) & (other.gives - other.needs)]
                raise InvalidPlan(
                    f"stage '{stage.name}' needs '{lacking[0]}', which no stage before it gives (plan: {self})",
                    f"Move '{givers[0]}' before it." if givers else f"Add a stage that gives '{lacking[0]}'.",
                )
            there |= stage.gives

    def _put(self, index: int, stage: Stage) -> None:
        if stage.name in self.names:
            raise InvalidPlan(f"two stages are called '{stage.name}' (plan: {self})", "Replace one, or rename it.")
        self._stages.insert(index, stage)

    def _index(self, name: str) -> int:
        if name not in self.names:
            hint = did_you_mean(name, self.names) or f"The plan is {self}."
            raise InvalidPlan(f"no stage is called '{name}'", hint)
        return self.names.index(name)
