"""The diagram of the README can be read on light and on dark backgrounds."""

import re
from itertools import product
from xml.etree import ElementTree

import pytest

from tests.documents import ROOT

FILE = ROOT / "docs/overview.svg"
READABLE = 4.5
"""Contrast of text that WCAG 2 asks for (level AA)."""
STYLE = "".join(re.findall(r"<style>(.*?)</style>", FILE.read_text(), re.DOTALL))
CSS, _, DARK_CSS = STYLE.partition("@media (prefers-color-scheme: dark)")
GROUNDS = ("ground", "part", "store", "engine", "instance")


def fills(css: str) -> dict[str, str]:
    """Selector to fill colour."""
    rules = re.findall(r"\.?([a-z-]+) \{[^}]*?fill: (#[0-9a-f]{6})", css)
    return dict(rules)


def contrast(first: str, second: str) -> float:
    """Ratio of the luminances of two colours, as WCAG 2 defines it."""
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("text", "ground"), list(product(("text", "note"), GROUNDS)))
@pytest.mark.parametrize("css", [CSS, DARK_CSS], ids=["light", "dark"])
def test_each_text_stands_out_from_each_background(css: str, text: str, ground: str) -> None:
    colours = fills(css)
    assert contrast(colours[text], colours[ground]) >= READABLE


def test_the_diagram_has_its_own_background_a_title_and_a_description() -> None:
    root = ElementTree.parse(FILE).getroot()
    names = [element.tag.rpartition("}")[2] for element in root]
    assert {"title", "desc"} <= set(names)
    first = next(element for element in root if element.tag.endswith("rect"))
    assert first.get("class") == "ground"
    assert not [element for element in root.iter() if element.tag.endswith(("image", "script"))]
