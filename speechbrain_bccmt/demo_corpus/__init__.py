"""A corpus of synthetic speakers in VoxCeleb's layout, for demos and tests."""
