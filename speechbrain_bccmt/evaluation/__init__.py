"""Experiments of the recipes, and tables and plots over trial lists."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration_plots": ["plot_calibration"],
        "conditions": ["read_conditions", "summarise_conditions"],
        "experiment": ["Experiment", "run_recipe", "verify_phrases"],
        "plots": ["plot_det", "plot_eer_by_duration", "plot_score_histogram"],
        "report": ["OperatingPoint", "evaluate_system"],
        "summary": ["eer_by_duration", "summarise"],
    },
)
