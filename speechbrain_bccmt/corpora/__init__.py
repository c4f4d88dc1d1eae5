"""Corpora on disk to the CSVs that training and evaluation read."""
