"""The list of faults fits the sources, so that the script can plant each of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import FAULTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_can_be_planted(fault: Fault) -> None:
    text = Path(ROOT, "petsc_dcdm", fault.where).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1
    assert all(Path(ROOT, "tests", word.split("::")[0]).exists() for word in fault.tests.split())
