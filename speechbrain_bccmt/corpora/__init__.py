"""Corpora on disk to the CSVs and dev trials that training and evaluation read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "deepmine": ["prepare_deepmine"],
        "phrase_csv": ["prepare_phrase_csv"],
        "preparation": ["Preparation", "prepare_corpus"],
        "rsr2015": ["prepare_rsr2015"],
        "voxceleb": ["prepare_voxceleb"],
    },
)
