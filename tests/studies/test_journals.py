"""The studies behind the tables of docs/measurements that no other test runs, small: they end, and print their rows."""

from __future__ import annotations

import re
import sys

import pytest
from harness import ROOT, run_program
from systems import needs_hypre

STUDIES = {
    "small mixed 12 --times 2 --beside 1": r"mixed 12, new +set-up .* total .* ms\n(.*\n)*mixed 12, same ",
    "small dam_break 16 --flat --fluid-only --times 1": r"dam_break 16, values +set-up",
    "reach --rings 8 --orders 10 --runs 1": r"periodic, all axes .* \d\n(.*\n)*RCM .* \d\nrandom .* \d\n",
    "compact --size 6 --far 10 6 --runs 1": r"\| dcdm \| smooth \| \d \|(.*\n)*\| 5 points - 1\.4 lowest .* \| \d",
    "floor --system plates --size 8 --seed 3": r"\| plates \| random \| (\d.\de.\d\d \| ){2}\d.\de-1\d \|",
    "robustness --size 12 --system box --seed 11": r"\| box \| 12x12x12 \| \d / \d \| \d / \d \| 7 / 7 \|",
    "media.beside_amg --size 12 --system box gyroid": r"\| box \| 12x12x12 \| random \| \d / \d+ \|(.*\n)*\| gyroid ",
    "scaling --size 12 --repeats 1 --head": r"\| ranks x threads \|.*\n[-|]*\n\| 1 x 1 \| 1 1 1 \| \d \| 0 ",
    "profile mixed 16": r"\| down \| \d(.*\n)*\| coarse solve \| \d(.*\n)*\| extract \| (.*\n)*\| CoarseSolver \| \d",
}
TOGETHER = """
import importlib, sys
for command in sys.argv[1:]:
    name, *words = command.split()
    sys.argv[1:] = words
    study = importlib.import_module(f"petsc_dcdm.studies.{name}")
    print("begins:", command, flush=True)
    study.main(words) if name != "scaling" else study.main()
    print("ends", flush=True)
"""
"""In one process, which imports once. The last one takes kernels apart and leaves them so."""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("scipy")
    where = {"cwd": tmp_path_factory.mktemp("studies"), "env": {"PYTHONPATH": str(ROOT)}}
    return run_program([sys.executable, "-c", TOGETHER, *STUDIES], **where)


@needs_hypre
@pytest.mark.parametrize("command", STUDIES)
def test_a_study(output: str, command: str) -> None:
    (printed,) = re.findall(rf"begins: {re.escape(command)}\n(.*?)ends\n", output, re.DOTALL)
    assert re.search(STUDIES[command], printed), printed
