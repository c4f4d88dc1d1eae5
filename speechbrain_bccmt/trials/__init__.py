"""Trial lists, score files and keys: reading, writing and drawing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "draw": ["make_trials"],
        "read": ["read_trials"],
        "scores": ["ScoredTrials", "read_scores"],
        "trial_list": ["EnrolmentModel", "Trials"],
        "write": ["write_models", "write_trials"],
    },
)
