"""Lightweight speaker verification: BC-CMT encoders and their distillation, as a SpeechBrain extension."""

from speechbrain_bccmt.lobes.bccmt import BCCMT, bccmt_base, bccmt_small, bccmt_tiny

__all__ = ["BCCMT", "bccmt_base", "bccmt_small", "bccmt_tiny"]
