"""Training loops, crops, augmentation, teachers and checkpoints."""
