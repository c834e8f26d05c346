"""The page of `minimrcnn explain` in a real browser: it draws itself without errors and asks the network for nothing,
follows clicks and keys, and fits a phone."""

import pytest

from minimrcnn import MaskRCNN
from minimrcnn.explain import make_page, tell, trace_picture
from tests.browser import CHROMIUM, Browser
from tests.test_explain import KINDS, NASTY, SCORE, SMALL, draw_picture

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")

ALL = {  # fields of the model, least score
    **{kind: (fields, SCORE) for kind, fields in KINDS.items()},
    "strict": ({"rpn_nms_thresh": 0.1}, SCORE),
    "nothing found": ({}, 1.0),
    "no proposals": ({"rpn_post_nms_top_n_test": 0}, SCORE),
    "nasty names": ({"class_names": ("background", NASTY, "<!--", "]]>")}, SCORE),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of each kind of model, as a file; made when first asked for."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def get(kind):
        if kind not in made:
            fields, score = ALL[kind]
            model = MaskRCNN(**{**SMALL, **fields}, seed=1)
            made[kind] = folder / f"{kind}.html"
            story = tell(trace_picture(model, draw_picture(), score), NASTY if "nasty" in kind else "photo.png")
            made[kind].write_text(make_page(story), encoding="utf-8")
        return made[kind]

    return get


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def status(browser):
    return browser.run("document.getElementById('status').textContent")


@pytest.mark.parametrize("kind", ALL)
def test_every_page_draws_itself(kind, pages, browser):
    browser.look(1200, 900)
    browser.open(pages(kind))
    assert browser.errors() == []
    assert browser.requests() == [pages(kind).resolve().as_uri()]
    assert browser.run("document.getElementById('foot').textContent").startswith("Made by minimrcnn explain")
    text = browser.run("document.body.innerText")
    assert not [word for word in ("undefined", "NaN", "[object", "Infinity") if word in text]
    followed = browser.run("document.querySelectorAll('#picker input').length")
    assert (followed == 0) == (kind in ("nothing found", "no proposals"))
    assert ("there is nothing to follow here" in text) == (followed == 0)
    assert browser.run("document.querySelector('#masks [data-when=masks]').hidden") == (kind == "boxes only")
    for d in sorted({0, 1, followed - 1} & set(range(followed))):  # no detection trips over its own numbers
        browser.run(
            f"follow({d}), [...document.querySelectorAll('.choice input')].forEach((_, k) => "
            "document.querySelectorAll('.choice input')[k].click())"
        )
        assert status(browser).endswith(f"{d + 1} of {followed}")
    assert browser.errors() == []


@pytest.mark.parametrize("kind", ["pyramid", "c4", "nothing found"])
def test_every_picture_has_words(kind, pages, browser):
    browser.open(pages(kind))
    assert browser.run("""[...document.querySelectorAll('img')].every(i => i.alt.length > 3)""")
    assert browser.run(
        """[...document.querySelectorAll('svg')].every(s => s.getAttribute('aria-label')?.length > 5 ||
        s.closest('[aria-hidden]') !== null)"""
    )
    assert browser.run("""[...document.querySelectorAll('input')].every(i => i.ariaLabel || i.labels.length)""")
    assert browser.run("[...document.querySelectorAll('img')].every(i => i.complete && i.naturalWidth > 0)")
    headings = browser.run("[...document.querySelectorAll('h1,h2,h3')].filter(h => !h.hidden).map(h => h.tagName)")
    assert headings[0] == "H1" and headings.count("H1") == 1
    for link in browser.run("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"):
        assert browser.run(f"document.querySelector('{link}').offsetHeight > 50"), link


def test_keys(pages, browser):
    browser.look(1200, 900)
    browser.open(pages("pyramid"))
    total = browser.run("data.followed.length")
    assert status(browser).endswith(f"1 of {total}")
    browser.press("ArrowRight", 39)  # anywhere on the page
    assert status(browser).endswith(f"2 of {total}")
    browser.press("ArrowLeft", 37)
    browser.press("ArrowLeft", 37)  # there is none before the first
    assert status(browser).endswith(f"1 of {total}")

    seen, outlines = [], []
    for _ in range(60):
        browser.press("Tab", 9)
        seen.append(browser.run("document.activeElement.name || document.activeElement.tagName"))
        outlines.append(
            browser.run(
                """(() => { const a = document.activeElement, l = a.closest('label');
                return [a, l].some(n => n && getComputedStyle(n).outlineStyle !== 'none') })()"""
            )
        )
        if seen[-1] == "BODY":
            break
        if seen[-1] == "detection":  # the radio buttons are one stop, gone through by arrows
            browser.press("ArrowRight", 39)
            assert status(browser).endswith(f"2 of {total}")
    assert seen[0] == "A" and seen.count("detection") == 1 and {"head", "rule"} <= set(seen)
    assert all(outlines[: seen.index("BODY") if "BODY" in seen else None]), "where the keyboard is must be seen"


def test_a_click_follows_a_detection(pages, browser):
    browser.look(1200, 900)
    browser.open(pages("pyramid"))
    total = browser.run("data.followed.length")
    assert total > 2
    browser.run("document.querySelector('#result').scrollIntoView({block: 'start', behavior: 'instant'})")
    place = """(() => { for (const hit of document.querySelectorAll('#result .hit')) {
        const box = hit.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
        if (document.elementFromPoint(x, y) === hit && !hit.textContent.startsWith('1.'))
            return [x, y, hit.textContent]; } return null })()"""
    x, y, words = browser.run(place)
    before = browser.run("document.querySelector('[data-one=classes]').textContent")
    browser.click(x, y)
    assert words in status(browser)
    assert browser.run("document.querySelector('#picker :checked').value") == str(int(words.split(".")[0]) - 1)
    assert browser.run("document.querySelector('[data-one=classes]').textContent") != before
    assert browser.errors() == []


def test_the_slider_steps_through_suppression(pages, browser):
    browser.open(pages("strict"))
    browser.run("document.querySelector('#proposals input[type=range]').focus()")
    browser.press("Home", 36)
    said = "document.querySelector('#proposals [data-all] p').textContent"
    assert browser.run(said).startswith("Candidate 1,") and "kept" in browser.run(said)
    steps = browser.run("data.nms.steps.map(step => step.winner)")
    loser = next(number for number, winner in enumerate(steps) if winner is not None)
    for _ in range(loser):
        browser.press("ArrowRight", 39)
    assert f"dropped by candidate {steps[loser] + 1} " in browser.run(said)
    assert status(browser).endswith("1 of " + str(browser.run("data.followed.length")))  # the arrows were the slider's


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["pyramid", "nasty names", "nothing found"])
def test_a_phone(kind, dark, pages, browser):
    browser.look(360, 740, dark=dark, phone=True)
    browser.open(pages(kind))
    assert browser.run("document.documentElement.scrollWidth") <= 360, "nothing reaches out to the right"
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 22, 27)" if dark else "rgb(251, 250, 247)"
    )
    assert browser.errors() == []
    browser.look(1200, 900)


def test_without_scripts_the_page_says_so(pages, browser):
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(pages("pyramid"))
    browser.ask("Emulation.setScriptExecutionDisabled", value=False)
    assert "Switch JavaScript on" in browser.run("document.body.innerText")
