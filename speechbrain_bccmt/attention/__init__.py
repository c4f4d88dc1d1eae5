"""Attention maps over recordings, as arrays and plots."""
