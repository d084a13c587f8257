"""Rule 2: what only names things loads no model library. Counted in modules, because seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "av", "PIL", "numpy", "triton"}
FACES = {"click", "rich", "gradio", "fastapi"}

# What `import easyanimate_core` may bring along, standard library included. A bare interpreter has about 60.
MOST_MODULES = 150

CONTRACTS = ("errors", "events", "registry", "slots", "interfaces", "data", "schema", "request", "plugins")


def loaded_by(code: str) -> set[str]:
    """Names of all modules that a fresh interpreter has after running `code`."""
    report = "import atexit, json, sys\natexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n"
    done = subprocess.run([sys.executable, "-c", report + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def run_command(*arguments: str) -> str:
    return f"sys.argv = {['easyanimate', *arguments]!r}\nfrom easyanimate_core.cli.main import main\nsys.exit(main())\n"


def test_importing_the_package_is_nearly_free():
    loaded = loaded_by("import easyanimate_core")
    assert not loaded & (HEAVY | FACES)
    assert not loaded & {"pydantic", "pluggy"}, "names are resolved when they are used"
    assert len(loaded) <= MOST_MODULES


@pytest.mark.parametrize("module", CONTRACTS)
def test_the_contracts_load_no_model_library(module: str):
    assert not loaded_by(f"import easyanimate_core.{module}") & (HEAVY | FACES)


def test_discovering_plugins_loads_no_model_library():
    code = "from easyanimate_core.plugins import Host\nassert [p for r in Host().registries for p in r]"
    assert not loaded_by(code) & (HEAVY | FACES)


def test_writing_a_schema_reads_the_options_and_not_the_components():
    code = (
        "from easyanimate_core.request import GenerationRequest\n"
        "from easyanimate_core.schema import export_schema\n"
        "assert 'shift' in str(export_schema(GenerationRequest))\n"
    )
    loaded = loaded_by(code)
    assert "easyanimate_core.samplers.options" in loaded
    assert not loaded & (HEAVY | FACES)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("generate", "--help"),
        ("presets", "--help"),
        ("presets", "list"),
        ("presets", "show", "nano"),
        ("presets", "schema"),
        ("jobs", "list"),
        ("batch", "--help"),
        ("decode", "--help"),
        ("replay", "--help"),
        ("plugins", "list"),
        ("plugins", "info", "easyanimate-core"),
        ("checkpoint", "--help"),
        ("models", "--help"),
        ("train", "--help"),
    ],
    ids=" ".join,
)
def test_commands_that_only_tell_load_no_model_library(arguments: tuple[str, ...]):
    assert not loaded_by(run_command(*arguments)) & HEAVY


def test_the_measure_sees_what_is_loaded():
    assert "torch" in loaded_by("import torch")
