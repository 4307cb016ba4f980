"""The kernels' own threads (native/src/team/team.c): what OpenMP promises of regions, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from petsc_dcdm.native.build import SOURCE_DIRECTORY, about, library

PROGRAM = r"""
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); exit(1); } } while (0)

static void all(int threads) {
    long sum = 0, named = 0, nameless = 0, seen[64] = {0}, pieces = 0, teams = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
    for (int i = 0; i < 1000; i++) sum += i;
    CHECK(sum == 499500);
#pragma omp parallel num_threads(threads) reduction(+ : teams)
    {
        CHECK(omp_get_num_threads() == threads);
        teams += omp_get_num_threads();
        for (int round = 1; round <= 20; round++) { /* nobody may be a round behind */
            seen[omp_get_thread_num()] = round;
#pragma omp barrier
            for (int t = 0; t < threads; t++) CHECK(seen[t] == round);
#pragma omp barrier
        }
#pragma omp for schedule(dynamic, 3)
        for (int i = 0; i < 100; i++)
#pragma omp atomic
            pieces += i;
#pragma omp for schedule(dynamic, 1) nowait
        for (int i = 0; i < 50; i++)
#pragma omp atomic
            pieces += i;
#pragma omp critical(one)
        named++;
#pragma omp critical
        nameless++;
#pragma omp parallel num_threads(3) /* within another: of one */
        CHECK(omp_get_num_threads() == (threads == 1 ? 3 : 1));
    }
    CHECK(teams == (long)threads * threads && pieces == 4950 + 1225 && named == threads && nameless == threads);
}

static void *often(void *threads) {
    for (int i = 0; i < 300; i++) all(*(int *)threads);
    return NULL;
}

int main(void) {
    for (int threads = 1; threads <= 5; threads++) all(threads);
    int two = 2, three = 3;
    pthread_t other;
    CHECK(!pthread_create(&other, NULL, often, &two)); /* two threads of the program with regions of their own */
    often(&three);
    pthread_join(other, NULL);
    const pid_t child = fork();
    if (!child) { /* it has none of the threads */
        all(3);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    all(4);
    puts("all well");
}
"""


@pytest.mark.skipif(not about().startswith("gcc"), reason="other compilers' threads are their own")
def test_regions_are_those_of_openmp(tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(PROGRAM)
    command = ["gcc", "-std=gnu11", "-O1", "-fopenmp", "-pthread", "program.c", str(SOURCE_DIRECTORY / "team/team.c")]
    subprocess.run([*command, "-o", "program"], cwd=tmp_path, check=True)
    symbols = subprocess.run(["nm", "-u", "program"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "GOMP_" not in symbols and "omp_get" not in symbols  # it is our own that is tested
    for policy in ({}, {"OMP_WAIT_POLICY": "passive"}, {"GOMP_SPINCOUNT": "5"}):
        ended = subprocess.run(
            ["./program"], cwd=tmp_path, env=os.environ | policy, capture_output=True, text=True, timeout=120
        )
        assert ended.stdout == "all well\n", (policy, ended)


@pytest.mark.skipif(not about().startswith("gcc"), reason="other compilers' threads are their own")
def test_the_library_takes_no_threads_of_others() -> None:
    """A function of OpenMP's that ours lacks would come from libgomp, which knows nothing of our threads."""
    command = ["nm", "-D", "--undefined-only", library()._name]
    symbols = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "memcpy" in symbols
    assert "GOMP_" not in symbols and "omp_" not in symbols


SCRIPT = """
import numpy as np
from petsc_dcdm.native.team import waiting_text
from petsc_dcdm.stencil.packed import PackedStencil

before = waiting_text()
cells = np.zeros((66, 66, 66), np.uint8)
PackedStencil(cells, cells, (1.0, 1.0, 1.0), np.zeros(256)).asymmetry(2)
print(repr(before), waiting_text())
"""
WOKEN = """
import os
from pathlib import Path
from time import sleep
from petsc_dcdm.native.team import wake


def turns():
    \"\"\"How often each thread but the first has come to run, and rested again.\"\"\"
    sleep(0.2)
    others = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
    return {task.name: (task / "schedstat").read_text().split()[2] for task in others}


wake(2)
first, second = turns(), turns()
wake(2)
third = turns()
print(first == second, second == third)
"""


@pytest.mark.skipif(not about().startswith("gcc"), reason="other compilers' threads are their own")
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({}, "awake for 0.2 ms after their work"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "that rest"),
        ({"OMP_WAIT_POLICY": "active"}, "that never rest"),
        ({"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1000"}, "awake for 0.02 ms after their work"),
        ({"GOMP_SPINCOUNT": "infinity"}, "that never rest"),
    ],
)
def test_what_the_user_says_of_waiting_is_heeded(policy: dict[str, str], words: str) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=clean | policy, capture_output=True, text=True, check=True, timeout=120
    )
    assert ended.stdout.startswith(f"''  {words}"), ended.stdout


@pytest.mark.skipif(not about().startswith("gcc"), reason="other compilers' threads are their own")
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this Linux does not count turns")
def test_threads_can_be_woken() -> None:
    ended = subprocess.run([sys.executable, "-c", WOKEN], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.split() == ["True", "False"]
