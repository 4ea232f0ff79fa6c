"""Hostile texts for the columns of the ledger, and what a page must not have of them."""

from __future__ import annotations

import re

from hypothesis import strategies

VERY_LONG = "long " * 600
HOSTILE = [
    "' OR 1=1 --",
    "<script>alert(1)</script>", "\x1b[31mred\x1b]0;title\x07", "\u202egnp.exe\u2066", '"><img src=x onerror=alert(1)>',
    "{{ 7|add:7 }}{% debug %}", "javascript:alert(1)", VERY_LONG, "\x00\x7f\x85\u2028\ufeff", "\ud800",
    "</pre></title><h1>",
]  # fmt: skip
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
HOSTILE_TEXT = strategies.sampled_from(HOSTILE) | strategies.text(max_size=60)


def assert_is_harmless(text: str) -> None:
    """Fail if a page has markup, or a character, that came from a row."""
    assert "<script>alert" not in text
    assert "<img" not in text.replace('<img src="/static/', "")
    assert "<h1>\n" not in text
    found = FORBIDDEN.search(text)
    assert found is None, (found, text[max(0, found.start() - 80) : found.end() + 80])
