"""Packaging of bccmt-runtime: the modules of speechbrain_bccmt that need no PyTorch, from the one source beside.

Build it where the full package is installed, for the network of silero-vad: `make runtime` in the folder above.
"""

import ast
import importlib.util
import re
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGE = "speechbrain_bccmt"
COMMANDS = ("embed", "enroll", "identify", "listen", "models", "verify", "voiceprints")
ENTRIES = ["__main__", "cli", *(f"commands.{name}" for name in COMMANDS)]
REQUIRED = ["click>=8.1", "lazy_loader", "numpy", "onnxruntime>=1.16.1", "soundfile", "tqdm"]
IMPORTED = {re.match(r"\w+", name)[0] for name in REQUIRED} | set(sys.stdlib_module_names)


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Return what a module imports when it is imported, and what its functions import when they are called."""
    at_once, later = set(), set()

    def visit(node: ast.AST, found: set[str]) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        for child in ast.iter_child_nodes(node):
            visit(child, later if isinstance(node, ast.FunctionDef) else found)

    visit(ast.parse(path.read_text(encoding="utf-8")), at_once)
    return at_once, later


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the modules that the entries reach, without those that need more than `REQUIRED`, and their files."""

    def path_of(name: str) -> Path | None:
        place = root.joinpath(*name.split("."))
        return next(
            (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None
        )

    usable: dict[str, bool] = {}

    def is_usable(name: str) -> bool:
        if name not in usable:
            usable[name] = True  # of a circle
            needed = {
                one for one in imports(path_of(name))[0] if path_of(one) or not one.startswith(PACKAGE + ".")
            }
            usable[name] = all(
                is_usable(one) if path_of(one) else one.split(".")[0] in IMPORTED for one in needed
            )
        return usable[name]

    found: dict[str, Path] = {}
    waiting = [f"{PACKAGE}.{entry}" for entry in ENTRIES]
    while waiting:
        name = waiting.pop()
        if name in found or path_of(name) is None or not is_usable(name):
            continue
        found[name] = path_of(name)
        parents = name.split(".")[:-1]
        waiting += [".".join(parents[:depth]) for depth in range(1, len(parents) + 1)]
        waiting += [one for group in imports(found[name]) for one in group if one.startswith(PACKAGE)]
    return dict(sorted(found.items()))


class BuildSubset(build_py):
    """Packs the modules alone, and the network of silero-vad beside `audio/silero.py`."""

    def find_package_modules(self, package, package_dir):
        """List the modules of a package that are packed."""
        every = super().find_package_modules(package, package_dir)
        return [module for module in every if Path(module[2]).resolve() in MODULES.values()]

    def run(self):
        """Build, and copy the network."""
        super().run()
        package = importlib.util.find_spec("silero_vad")
        if package is None:
            sys.exit(
                "bccmt-runtime is built where silero-vad is installed, for its network: pip install silero-vad"
            )
        network = Path(package.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
        self.copy_file(str(network), str(Path(self.build_lib, PACKAGE, "audio", network.name)))


MODULES = modules()
VERSION = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))[1]

if __name__ == "__main__":
    setup(
        name="bccmt-runtime",
        version=VERSION,
        description="Lightweight speaker verification without PyTorch: BC-CMT Tiny on ONNX Runtime",
        long_description=(ROOT / "docs" / "runtime.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        license="Apache-2.0 AND MIT",
        license_files=["NOTICE"],
        package_dir={"": ".."},
        packages=sorted(name for name, path in MODULES.items() if path.name == "__init__.py"),
        package_data={PACKAGE: ["models/*/*"]},
        exclude_package_data={PACKAGE: ["models/*/*.safetensors"]},
        cmdclass={"build_py": BuildSubset},
        python_requires=">=3.10,<3.14",
        install_requires=REQUIRED,
        extras_require={
            "containers": ["av>=14"],
            "hub": ["huggingface_hub"],
            "live": ["sounddevice"],
            "safetensors": ["safetensors"],
        },
        entry_points={"console_scripts": ["bccmt=speechbrain_bccmt.cli:main"]},
    )
