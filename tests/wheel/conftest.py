"""Environments with wheels, made with pip from the package registry, as any project makes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.servers import CHECKOUT, Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Earlier versions that run beside this one during a deploy, with their last commits.
EARLIER = {"0.1": "9cbb37d6dd8689f02e4b8879a7e594d444320464", "0.4.1": "acdaa4631c68dc80eb7b103c79eddff79db407f6"}


def make_environment(directory: Path, *requirements: str) -> Path:
    """Make an environment, and return the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = str(directory / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    subprocess.run(install, check=True, cwd=directory)
    return directory / "bin"


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel that was built last."""
    wheels = sorted((CHECKOUT / "dist").glob("*.whl"))
    assert wheels, "there is no wheel in dist/: run `make wheel`, which builds it first"
    return wheels[-1]


@pytest.fixture(scope="session")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and its dependencies."""
    return make_environment(tmp_path_factory.mktemp("venv"), str(wheel))


@pytest.fixture(scope="session")
def binaries_on_postgres(binaries: Path, wheel: Path) -> Path:
    """The same, with PostgreSQL's dependencies."""
    python = str(binaries / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[postgres]"], check=True
    )
    return binaries


@pytest.fixture(params=EARLIER)
def earlier_version(request: pytest.FixtureRequest) -> str:
    """The earlier version."""
    return str(request.param)


@pytest.fixture
def earlier_binaries(earlier_version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the earlier version, built from its commit."""
    directory = tmp_path_factory.mktemp("earlier")
    git, commit = shutil.which("git"), EARLIER[earlier_version]
    archive = directory / "source.tar"
    found = git and subprocess.run(
        [git, "archive", "--output", str(archive), commit], cwd=CHECKOUT, capture_output=True, check=False
    )
    if not found or found.returncode:
        pytest.skip(f"The commit of {earlier_version}, {commit}, is not here: it takes git, and the whole history.")
    with tarfile.open(archive) as source:
        source.extractall(directory / "source", filter="data")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory)]
    subprocess.run([*build, str(directory / "source")], check=True, capture_output=True)
    (built,) = directory.glob("*.whl")
    return make_environment(directory / "venv", str(built))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A private PostgreSQL."""
    with Postgres() as server:
        yield server
