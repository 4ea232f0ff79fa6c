"""The release script refuses versions that must not be released, and finds a version's notes."""

from __future__ import annotations

import pytest

from scripts.release import ROOT, ReleaseError, notes_for, version_of
from signalbus import __version__

CHANGELOG = """# Changelog

## 1.1

Added:

- A thing.

## 1.0

First.
"""


def test_the_notes_of_a_release_are_its_section_of_the_changelog():
    """The notes have the version's own lines, and no other version's."""
    assert notes_for("1.1", CHANGELOG) == "Added:\n\n- A thing.\n"
    assert notes_for("1.0", CHANGELOG) == "First.\n"


def test_a_version_without_a_changelog_section_is_not_released():
    """The error names the section to write."""
    with pytest.raises(ReleaseError, match=r'no section "## 1\.2"'):
        notes_for("1.2", CHANGELOG)


def test_unreleased_changes_are_not_released_under_an_old_version():
    """A section "Unreleased" above the version's own stops the release, and the error says what to rename."""
    with pytest.raises(ReleaseError, match=r'rename it to "1\.1"'):
        notes_for("1.1", CHANGELOG.replace("## 1.1", "## Unreleased\n\n- More.\n\n## 1.1"))


def test_the_version_is_read_from_the_source_tree():
    """The release has the version that the package declares."""
    assert version_of(ROOT) == __version__
