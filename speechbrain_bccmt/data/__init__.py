"""Corpora to CSV, trial lists, crops, augmentation and the demo corpus."""
