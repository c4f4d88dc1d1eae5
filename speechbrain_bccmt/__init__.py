"""Lightweight speaker verification: BC-CMT encoders and their distillation, as a SpeechBrain extension."""

import importlib

# Imported when first used: `bccmt --help` and the data preparation have no need of torch.
_MODULES = {
    "BCCMT": "speechbrain_bccmt.lobes.bccmt",
    "bccmt_base": "speechbrain_bccmt.lobes.bccmt",
    "bccmt_small": "speechbrain_bccmt.lobes.bccmt",
    "bccmt_tiny": "speechbrain_bccmt.lobes.bccmt",
    "TokenEmbedder": "speechbrain_bccmt.lobes.token_embedder",
    "token_bccmt_tiny": "speechbrain_bccmt.lobes.token_embedder",
    "PhoneticTokenEmbedder": "speechbrain_bccmt.lobes.phonetic",
}

__all__ = list(_MODULES)


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
