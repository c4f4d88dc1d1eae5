"""Experiments, tables and plots over trial lists."""
