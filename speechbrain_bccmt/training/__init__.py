"""Training loops, crops, augmentation, teachers, stored targets and checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["AtomicCheckpointer"],
        "crops": ["TrainingCrops"],
        "distillation_brain": ["DistillationBrain"],
        "recipe": ["run_training"],
        "speaker_brain": ["SpeakerBrain"],
        "targets": ["StoredTargets"],
        "teachers": ["FrozenTeacher", "LearningTeacher", "load_teacher"],
    },
)
