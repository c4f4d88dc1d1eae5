"""`bccmt models`: list the models that come with the package."""

from __future__ import annotations

import json

import click

from speechbrain_bccmt.commands import inputs
from speechbrain_bccmt.models import DEFAULT, resolve_model, shipped_models


@click.command()
@inputs.json_option
def models(as_json):
    """List the models that come with the package.

    Any command accepts their names, as in `bccmt verify a.wav b.wav -m tiny`.
    """
    found = []
    for name in shipped_models():
        folder = resolve_model(name)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        size = sum(path.stat().st_size for path in folder.iterdir())
        found.append(
            {
                "name": name,
                "default": name == DEFAULT,
                "parameters": config["parameters"],
                "embedding_size": config["embedding_size"],
                "sample_rate": config["sample_rate"],
                "threshold": config["threshold"],
                "megabytes": round(size / 1e6, 2),
                "folder": str(folder),
            }
        )
    click.echo(json.dumps(found) if as_json else "\n".join(map(_line, found)))


def _line(model: dict) -> str:
    default = " (default)" if model["default"] else ""
    return (
        f"{model['name']}{default}: {model['parameters'] / 1000:,.2f} K parameters, embeddings of size "
        f"{model['embedding_size']}, {model['sample_rate']} Hz, threshold {model['threshold']:.3f}, "
        f"{model['megabytes']} MB\n  {model['folder']}"
    )
