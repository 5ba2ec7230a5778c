"""Checkpoints: weights on disk, with the variant they belong to."""
