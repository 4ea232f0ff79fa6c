"""The models hold, and notice each defect that is put into them. ``make models`` runs them within larger bounds."""

from __future__ import annotations

import os
import re

import pytest

from tests.other_servers import programs
from tests.protocol_models import check

LIBRARY = check.FOLDER.parents[1] / "signalbus"


@pytest.fixture(scope="module", autouse=True)
def spin():
    """Skip the models if SPIN is not installed; .ci/run installs and requires it."""
    try:
        programs.find("models")
    except programs.MissingProgramError as error:
        if os.environ.get("SIGNALBUS_MODELS") == "required":
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("run", [run for run in check.SHORT if run.holds], ids=str)
def test_a_model_holds(run):
    """All assertions hold in every state that can be reached."""
    assert check.check(run).violation == ""


@pytest.mark.parametrize("run", [run for run in check.SHORT if not run.holds], ids=str)
def test_a_model_notices_a_defect(run):
    """A model without violations under a defect would prove nothing."""
    assert check.check(run).violation


@pytest.mark.parametrize("model", sorted({run.model for run in check.SHORT}))
def test_a_model_names_modules_that_exist(model):
    """The modules that a model's comments name must exist."""
    modules = {path.name for path in LIBRARY.rglob("*.py")}
    text = (check.FOLDER / f"{model}.pml").read_text()
    named = set(re.findall(r"(?<!kombu/transport/)\b\w+\.py\b", text))
    assert named
    assert named <= modules


def test_each_model_is_checked():
    """A new file in the folder is run as well."""
    assert {run.model for run in check.SHORT} == {path.stem for path in check.FOLDER.glob("*.pml")}
