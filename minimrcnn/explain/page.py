"""One HTML file out of the template, the style, the script and the numbers.

File and class names come from users, and a page may be sent on. So numbers and names travel as JSON in which no
character can end the script, the script writes them as text only, and the page's own policy forbids every address but
data URIs and every script but the one that was written here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files

PARTS = ("page.html", "page.css", "elements.js", "photo.js", "detection.js", "cuts.js", "page.js")


def make_page(story: dict) -> str:
    """The page that tells a story, as `tell` makes one."""
    folder = files("minimrcnn.explain")
    template, style, *scripts = (folder.joinpath(name).read_text(encoding="utf-8") for name in PARTS)
    script = "\n" + "\n".join(scripts)  # exactly what stands between the tags is what the policy's hash is of
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": escape(f"{story['name']}: how the network saw it"),
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "style": style,
        "script": script,
        "photo": story["photo"],
        "data": to_script({name: value for name, value in story.items() if name != "photo"}),
    }
    pieces = template.split("@@")  # text, name, text, name, .., text
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def to_script(value) -> str:
    """JSON that may stand in a script element: nothing in it looks like a tag. NaN and infinity are refused."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
