"""Enrolled speakers and the store that keeps them."""
