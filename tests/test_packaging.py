"""What is written in several places agrees, and the Makefile does what it says."""

import ast
import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setup_arguments():
    """Keyword arguments of setup(), read without running it."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    call = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    values = {}
    for keyword in call.keywords:
        try:
            values[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue  # computed, such as the list of packages
    return values


def test_torch_and_torchaudio_are_held_to_one_range(setup_arguments):
    ranges = dict(
        re.fullmatch(r"([\w-]+)(.*)", entry).groups() for entry in setup_arguments["install_requires"]
    )
    assert ranges["torch"] == ranges["torchaudio"] != ""
    import torch
    import torchaudio

    assert torch.__version__.split(".")[:2] == torchaudio.__version__.split(".")[:2]


def test_version_is_the_same_everywhere(setup_arguments):
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert setup_arguments["version"] in changelog
    try:
        assert version("speechbrain_bccmt") == setup_arguments["version"]
    except PackageNotFoundError:
        pytest.skip("run from a checkout that is not installed")


def test_every_import_of_the_package_is_required(setup_arguments):
    """Every third-party module that the package imports is listed in setup.py, at least in an extra."""
    provided = {entry.split("[")[0] for entry in map(str.lower, setup_arguments["install_requires"])}
    provided |= {entry for entries in setup_arguments["extras_require"].values() for entry in entries}
    provided = {re.match(r"[\w-]+", entry)[0].replace("-", "_") for entry in provided}
    provided = {{"scikit_learn": "sklearn", "pyyaml": "yaml"}.get(name, name) for name in provided}
    imported = set()
    for path in (ROOT / "speechbrain_bccmt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    missing = imported - provided - set(sys.stdlib_module_names) - {"speechbrain_bccmt"}
    assert not missing


def test_the_runtime_requires_what_the_package_requires(setup_arguments):
    """The same versions, and nothing else."""
    tree = ast.parse((ROOT / "runtime" / "setup.py").read_text(encoding="utf-8"))
    (required,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "REQUIRED"
    )
    assert set(required) < set(setup_arguments["install_requires"])


def test_every_folder_of_the_package_is_a_package():
    folders = {path.parent for path in (ROOT / "speechbrain_bccmt").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_public_names_import():
    import speechbrain_bccmt

    for name in ("BCCMT", "bccmt_tiny", "bccmt_small", "bccmt_base"):
        assert callable(getattr(speechbrain_bccmt, name))


def run_as_from_a_shell(command, cwd):
    """Run without the variables of an outer make: these tests run under `make test` themselves."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_ci_runs_make_test_and_passes_its_exit_code_through(tmp_path):
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text(script, encoding="utf-8")
    (tmp_path / "Makefile").write_text("test:\n\t@echo 3 passed; exit 7\n", encoding="utf-8")
    done = run_as_from_a_shell(["bash", tmp_path / ".ci" / "run"], cwd="/")
    assert done.returncode == 2  # make ends with 2 for any failure
    assert done.stdout.strip().endswith("3 passed")


def test_makefile_names_the_python_versions_it_wants(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    for name in ("Makefile", "setup.py"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    done = run_as_from_a_shell(["make", "lint", f"PYTHON={old}"], cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "3.10 to 3.13" in done.stderr and "Python 3.9.2" in done.stderr and "PYTHON=python3.12" in done.stderr
    )
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    "layer", sorted(path.parent.name for path in (ROOT / "speechbrain_bccmt").glob("*/__init__.py"))
)
def test_every_public_name_of_a_layer_is_there(layer):
    module = importlib.import_module(f"speechbrain_bccmt.{layer}")
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None
