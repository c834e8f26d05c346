"""One photo followed through the whole network, as a page that opens from disk.

    photo -trace.py-> every array between pixels and masks -story.py-> numbers and small pictures -page.py-> HTML

`trace.py` runs the model and computes nothing of its own that the model does not; `cuts.py` says how RoIAlign and RoI
pooling lay their grids; `pictures.py` turns arrays into pictures that stand within the page. page.html, page.css and
the scripts are written by hand and put together by page.py.
"""

from __future__ import annotations

from minimrcnn.explain.page import make_page
from minimrcnn.explain.story import tell
from minimrcnn.explain.trace import trace_picture

__all__ = ["make_page", "tell", "trace_picture"]
