"""Lightweight speaker verification: BC-CMT encoders and their distillation, as a SpeechBrain extension."""

import lazy_loader

# Imported when first used: `bccmt --help` and the preparation of data have no need of torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "lobes.bccmt": ["BCCMT", "bccmt", "bccmt_base", "bccmt_small", "bccmt_tiny"],
        "lobes.token_embedder": ["TokenEmbedder", "token_bccmt_tiny"],
        "lobes.voice_phrase": ["VoicePhraseEmbedder"],
    },
)
