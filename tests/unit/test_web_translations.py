"""The catalogues of the web app are whole: each text of a template has a translation with the same placeholders."""

from __future__ import annotations

import gettext
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.utils.translation import override

import signalbus.web
from signalbus.web.doctor_texts import doctor_text
from tests.unit.test_judgements import UNWELL, WELL

if TYPE_CHECKING:
    from signalbus.doctor.findings import Finding

ROOT = Path(signalbus.web.__file__).parent
TEMPLATES = "".join(path.read_text() for path in sorted(ROOT.rglob("*.html")))
# Some of the texts that `makemessages` finds: those without variables.
TEXTS = {match[1] for match in re.finditer(r"""\{% translate ["'](.+?)["'] %\}""", TEMPLATES)}
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%")


def catalogue(language: str) -> dict[object, str]:
    """Return the texts of a compiled catalogue."""
    with (ROOT / "locale" / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
        found = gettext.GNUTranslations(file)
    return {key: text for key, text in found._catalog.items() if key}  # type: ignore[attr-defined]


@pytest.mark.parametrize("language", ["de", "es"])
def test_each_text_of_a_template_is_translated(language: str):
    """A text that was added or changed needs its line: `python -m django makemessages`, then `compilemessages`."""
    assert len(TEXTS) > 200
    assert TEXTS - set(catalogue(language)) == set()


@pytest.mark.parametrize("language", ["de", "es"])
def test_translations_have_the_placeholders_of_their_texts(language: str):
    """A missing placeholder would leave out a number; one too many would be an error of the page."""
    for key, text in catalogue(language).items():
        original = key[0] if isinstance(key, tuple) else str(key)
        assert sorted(PLACEHOLDER.findall(original)) == sorted(PLACEHOLDER.findall(text)), original
        assert text.strip() == text != "", original


@pytest.mark.parametrize("finding", [*WELL, *(each[0] for each in UNWELL)], ids=lambda finding: finding.name)
def test_the_findings_of_the_doctor_are_said_in_the_language_of_the_reader(finding: Finding):
    """A new text, or one that was changed, needs its form in `web/doctor_texts.py`, and a translation."""
    for text in filter(None, (finding.text, finding.remedy)):
        if text == "Start it.":  # of the test
            continue
        with override("en"):
            assert doctor_text(text) == text
        for language in ("de", "es"):
            with override(language):
                assert doctor_text(text) != text, text
                assert sorted(re.findall(r"\d+", doctor_text(text))) == sorted(re.findall(r"\d+", text))


def test_a_text_that_the_doctor_does_not_write_is_shown_as_it_is():
    """A message of a system check, for example."""
    with override("de"):
        assert doctor_text("Two signals are called 'shop.paid'.") == "Two signals are called 'shop.paid'."
