"""Rule 5: every hook, slot, error and preset is documented; links lead somewhere; the project stands alone."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import FunctionType

import pytest

from easyanimate_core import errors
from easyanimate_core.plugins import Host, hookspecs
from easyanimate_core.slots import PRESETS
from workspace import PACKAGES, ROOT, project_files

REFERENCE = ROOT / "docs" / "reference"
PAGES = list(project_files(".md"))
TEXTS = list(
    project_files("", ".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".yml", ".yaml", ".cfg", ".jinja", ".sh")
)

# Written so that this file does not match itself.
MACHINE_PATHS = re.compile(r"/[w]ork/|/[t]mp/|/[f]arm/|/opt/[w]heels|/opt/[p]ypi|/[r]oot/|\.\./[s]hared|/home/[a-z]")


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


HOOKS = [
    hook for name, hook in vars(hookspecs).items() if name.startswith("easyanimate_") and isinstance(hook, FunctionType)
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_is_documented_with_its_exact_arguments(hook: FunctionType):
    arguments = ", ".join(inspect.signature(hook).parameters)
    assert f"## `{hook.__name__}({arguments})`" in page("hooks.md")


def test_there_are_four_hooks():
    assert len(HOOKS) == 4


def test_every_slot_is_documented_with_its_owner():
    host, text = Host(), page("slots.md")
    for plugin in host.plugins:
        for slot in plugin.slots:
            row = re.search(rf"^\| `{slot.name}` \|.*\| {re.escape(plugin.distribution)} \|$", text, re.MULTILINE)
            assert row, f"slots.md has no row for '{slot.name}' of {plugin.distribution}"


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_documented_with_its_exit_code(name: str):
    kind = getattr(errors, name)
    assert re.search(rf"^\| `{name}` \| {kind.exit_code} \|", page("errors.md"), re.MULTILINE)


def test_no_error_is_documented_that_is_not_there():
    assert set(re.findall(r"^\| `(\w+)` \| \d \|", page("errors.md"), re.MULTILINE)) == set(errors.__all__)


def test_every_preset_is_documented():
    rows = set(re.findall(r"^\| `([^`]+)` \|", page("presets.md"), re.MULTILINE))
    assert rows == set(Host(discover=False).registries[PRESETS].names)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)[^)]*\)", text)
    assert not [target for target in targets if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_the_docs_compiles(path: Path):
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL):
        compile(block, str(path), "exec")


def test_no_file_names_a_place_on_somebodys_machine():
    named = {
        str(path.relative_to(ROOT)): found.group()
        for path in TEXTS
        if (found := MACHINE_PATHS.search(path.read_text(encoding="utf-8")))
    }
    assert not named


def test_every_package_carries_the_licence():
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert {folder.name for folder in PACKAGES.values() if (folder / "LICENSE").read_text("utf-8") != licence} == set()
