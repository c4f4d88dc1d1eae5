"""A corpus of synthetic speakers in VoxCeleb's layout, for demos and tests.

From the command line: `python -m speechbrain_bccmt.demo_corpus OUT`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "phrases": ["DemoPhraseSettings", "make_phrase_corpus"],
        "sentences": ["DemoCorpusSettings", "make_demo_corpus"],
    },
)
