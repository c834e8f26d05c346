"""Hypothesis draws the same examples everywhere, so that a failure here is a failure there."""

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.cuda_functions")  # its failures say what was compared, as those of tests do
settings.register_profile("project", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("project")
