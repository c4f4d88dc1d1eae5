"""The networks: building blocks and encoders from features to embeddings, pure PyTorch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bccmt": ["BCCMT", "bccmt_base", "bccmt_small", "bccmt_tiny"],
        "memory": ["Memory"],
        "pooling": ["FrequencyStatisticsPooling"],
        "token_embedder": ["TokenEmbedder", "token_bccmt_tiny"],
        "voice_phrase": ["VoicePhraseEmbedder"],
    },
)
