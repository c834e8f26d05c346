"""Hypothesis draws the same examples everywhere, so that a failure here is a failure there."""

from hypothesis import settings

settings.register_profile("project", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("project")
