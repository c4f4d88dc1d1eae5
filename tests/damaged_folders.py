"""Ways to damage a hub folder, and what the error message for each must name."""

import torch

from tests.tiny_hub_folder import YAML


def damage(folder, what):
    """Damage a hub folder; return what the error message must name."""
    weights = folder / "embedding_model.ckpt"
    content = weights.read_bytes()
    if what == "missing checkpoint":
        weights.unlink()
    elif what == "truncated checkpoint":
        weights.write_bytes(content[: len(content) // 2])
    elif what == "checkpoint cut early":  # torch raises an OSError without a file name
        weights.write_bytes(content[:5000])
    elif what == "empty checkpoint":
        weights.write_bytes(b"")
    elif what == "text checkpoint":
        weights.write_text("no checkpoint")
    elif what == "flipped checkpoint":
        weights.write_bytes(b"\0" * 300 + content[300:])
    elif what == "foreign checkpoint":
        torch.save(torch.nn.Linear(2, 2).state_dict(), weights)
    elif what == "list checkpoint":
        torch.save([1, 2], weights)
    elif what == "number checkpoint":
        torch.save(1.0, weights)
    elif what == "folder checkpoint":
        weights.unlink()
        weights.mkdir()
    elif what == "missing classifier":
        (folder / "classifier.ckpt").unlink()
        return "classifier"
    elif what == "missing yaml":
        (folder / "hyperparams.yaml").unlink()
        return "hyperparams.yaml"
    elif "yaml" in what:
        texts = {
            "empty yaml": "",
            "list yaml": "- 1\n- 2\n",
            "broken yaml": "a: [",
            "binary yaml": "\x00\x01",
            "yaml without model": "a: 1\n",
            "yaml of an unknown class": YAML.replace("BCCMT", "NOSUCH"),
            "yaml of an unknown option": YAML.replace("    groups: 2", "    gruops: 2"),
            "yaml of an impossible option": YAML.replace("    groups: 2", "    groups: 3"),
            "yaml of no stage": YAML.replace("    depths: [1, 1, 1, 1]", "    depths: []"),
            "yaml of no sample rate": YAML.replace(
                "    sample_rate: !ref <sample_rate>", "    sample_rate: 0"
            ),
            "yaml of text": YAML.replace("!new:speechbrain_bccmt.BCCMT\n", "\n"),
        }
        (folder / "hyperparams.yaml").write_text(texts[what])
        return "hyperparams.yaml"
    elif what == "broken calibration":
        (folder / "calibration.json").write_text('{"scale": 1')
        return "calibration.json"
    return "embedding_model"


DAMAGES = [
    *(
        "missing checkpoint",
        "truncated checkpoint",
        "checkpoint cut early",
        "empty checkpoint",
        "text checkpoint",
        "flipped checkpoint",
    ),
    *(
        "foreign checkpoint",
        "list checkpoint",
        "number checkpoint",
        "folder checkpoint",
        "missing classifier",
    ),
    *("missing yaml", "empty yaml", "list yaml", "broken yaml", "binary yaml", "yaml without model"),
    *("yaml of an unknown class", "yaml of an unknown option", "yaml of an impossible option"),
    *(
        "yaml of no stage",
        "yaml of no sample rate",
        "yaml of text",
        "broken calibration",
    ),
]
