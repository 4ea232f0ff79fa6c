"""Build a release into dist/: wheel, sdist, SBOM, release notes and checksums; with `--tag`, also tag the commit.

Everything is built from the commit, not from the work tree, and twice: the two builds must be equal byte for byte, so
that anybody can build the published files again from the tag (https://reproducible-builds.org/docs/source-date-epoch/).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"


class ReleaseError(Exception):
    """The release cannot be made; the message says what to do."""


def git(*arguments: str) -> str:
    """Return what a git command prints in the checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def version_of(source: Path) -> str:
    """Return the version that a source tree declares."""
    found = re.search(r'^__version__ = "([^"]+)"$', (source / "signalbus" / "__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise ReleaseError("signalbus/__init__.py declares no __version__")
    return found[1]


def notes_for(version: str, changelog: str) -> str:
    """Return the changelog's section of a version.

    Args:
        version: as the changelog's headings spell it.
        changelog: its text.

    Raises:
        ReleaseError: the changelog has no such section, or an unreleased one stands above it.
    """
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL))
    if "Unreleased" in sections:
        raise ReleaseError(f'CHANGELOG.md has a section "Unreleased": rename it to "{version}"')
    if version not in sections:
        raise ReleaseError(f'CHANGELOG.md has no section "## {version}": write one')
    return str(sections[version]).strip() + "\n"


def export(commit: str, directory: Path) -> Path:
    """Write a commit's files into a directory, and return it."""
    archive = directory / "source.tar"
    git("archive", "--output", str(archive), commit)
    source = directory / "source"
    with tarfile.open(archive) as opened:
        opened.extractall(source, filter="data")
    return source


def build(source: Path, out: Path, epoch: str) -> list[Path]:
    """Build wheel and sdist with the time stamps of the commit, and return their paths."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(out), str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return sorted(out.iterdir())


def write_sbom(wheel: Path, out: Path, scratch: Path) -> None:
    """Write a CycloneDX SBOM of an environment that holds the wheel and what it requires."""
    environment = scratch / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip"], check=True)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON"]
    subprocess.run([*command, "--output-file", str(out), python], check=True)


def digest(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def release(commit: str, scratch: Path) -> str:
    """Build a commit's release into dist/, and return its version."""
    source = export(commit, scratch)
    version = version_of(source)
    notes = notes_for(version, (source / "CHANGELOG.md").read_text())
    epoch = git("show", "--no-patch", "--format=%ct", commit)
    first, second = (build(source, scratch / each, epoch) for each in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        if digest(one) != digest(other):
            raise ReleaseError(f"two builds of {one.name} differ: the build depends on something but the commit")
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    for each in first:
        shutil.copy2(each, DIST)
    wheel = next(each for each in DIST.iterdir() if each.suffix == ".whl")
    write_sbom(wheel, DIST / f"django_signalbus-{version}.cdx.json", scratch)
    (DIST / "NOTES.md").write_text(notes)
    sums = "".join(f"{digest(each)}  {each.name}\n" for each in sorted(DIST.iterdir()))
    (DIST / "SHA256SUMS").write_text(sums)
    return version


def main() -> int:
    """Make a release of HEAD; return 0 if it could be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", action="store_true", help="tag the commit; nothing is pushed or uploaded")
    arguments = parser.parse_args()
    commit = git("rev-parse", "HEAD")
    try:
        if arguments.tag and git("status", "--porcelain"):
            raise ReleaseError("the work tree has changes that the release would not contain: commit them")
        with tempfile.TemporaryDirectory() as scratch:
            version = release(commit, Path(scratch))
    except ReleaseError as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    print((DIST / "SHA256SUMS").read_text(), end="")
    if arguments.tag:
        git("tag", "--annotate", f"v{version}", "--message", f"signalbus {version}", commit)
        print(f"tagged {commit[:7]} as v{version}")
    else:
        print(f"dry run: `make release TAG=1` also tags {commit[:7]} as v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
