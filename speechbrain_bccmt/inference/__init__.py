"""A trained model in use: loading, embedding, verification and stored embeddings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "embedding": ["embed_utterances"],
        "embedding_files": ["Embeddings", "read_embeddings"],
        "graph": ["GraphVerifier"],
        "loading": ["load_verifier"],
        "model_folder": ["SpeakerModel", "load_speaker_model"],
        "results": ["EmbeddedUtterance", "Verification"],
        "verification": ["SpeakerVerification"],
        "verifier": ["Verifier"],
    },
)
