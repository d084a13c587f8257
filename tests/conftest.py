"""What holds for every test: no network, no settings of the person who runs them, repeatable arithmetic."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports these libraries: tests never ask the network, nor what somebody downloaded before.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = os.environ["MODELSCOPE_CACHE"] = str(Path(__file__).with_name("no-such-cache"))

import torch

from environments import borrow_libraries, build_wheel
from workspace import PACKAGES


def pytest_configure(config: pytest.Config) -> None:
    # One thread: sums are added in one order on every machine, and tiny models are not faster with more.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        for mark in item.iter_markers("feature"):
            if not mark.args or not all(re.fullmatch(r"[A-Z]\d{3}", str(feature)) for feature in mark.args):
                raise pytest.UsageError(f"{item.nodeid}: '{mark.args}' are not ids of the feature matrix, such as C023")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see the SDK as it comes, whatever is set in the shell."""
    for name in [name for name in os.environ if name.startswith("EASYANIMATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EASYANIMATE_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Weights of tiny models are the same in every run, in any order of tests, and no test disturbs the next."""
    torch.manual_seed(0)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each of our distributions."""
    return {name: build_wheel(source, tmp_path_factory.mktemp(name)) for name, source in PACKAGES.items()}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that is installed here but our own distributions."""
    return borrow_libraries(tmp_path_factory.mktemp("libraries"))
