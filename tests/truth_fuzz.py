"""Random systems against what the package promises: ``python tests/truth_fuzz.py [--wide] [CASES [SEED]]``.

On 1 to 3 ranks; the wide ones (`truth_cases.WIDE`) on 1 to 4.
Exits with 1 when a promise is broken, or when too few of the cases that must converge do (not converging is always
honest, but it is no solver). Each broken promise comes with the command that repeats that one case.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness import ROOT, mpirun
from truth_cases import WIDE

SCRIPT = ROOT / "tests" / "mpi" / "fuzz_truth.py"
ENOUGH = 0.9
"""Of the cases that must converge; those that do not are counted by reason."""
ENOUGH_REUSED = 0.75
"""The same where the preconditioner is that of another matrix."""


WORST_FIRST = {
    "failed": "failed",
    "missed": "not converged where it should have",
    "stopped": "stopped with a true reason",
    "refused": "refused",
    "right": "right",
}
"""How a case can end, the worst first, in the words of the last line."""


@dataclass
class Summary:
    reasons: Counter[str] = field(default_factory=Counter)
    expected: Counter[str] = field(default_factory=Counter)
    """Solves that must converge, "fresh" and "reused", and those of them that did, "fresh +" and "reused +"."""
    broken: list[str] = field(default_factory=list)
    """Each begins with the letter of the promise: a residual, b norm, c identity rows, d singular, f scales,
    h refusals, j sentences.
    """
    missed: list[str] = field(default_factory=list)
    """Solves that must converge and did not."""
    cases: Counter[str] = field(default_factory=Counter)
    """Of each case the worst of its solves, a key of `WORST_FIRST`."""

    def add(self, ranks: int, found: dict[str, Any]) -> None:
        self.cases[min(map(verdict, found["solves"]), key=list(WORST_FIRST).index)] += 1
        for solve in found["solves"]:
            self.reasons[solve["ended"]] += 1
            kind = "reused" if solve["which"] == "reused" else "fresh"
            about = f"{solve['which']} solve, {solve['ended']} after {solve['iterations']}"
            again = f"{found['words']}\n    {repeat(ranks, found['seed'])}"
            if solve["expected"]:
                converged = solve["ended"].startswith("CONVERGED")
                self.expected.update([kind, kind + " +"] if converged else [kind])
                if not converged:
                    self.missed.append(f"{about}: {again}")
            self.broken += [f"{promise} ({about}): {again}" for promise in solve["broken"]]

    def share(self, kind: str) -> float:
        return self.expected[kind + " +"] / max(self.expected[kind], 1)

    def good(self) -> bool:
        few = self.expected["reused"] < 10  # no share to speak of
        return not self.broken and self.share("fresh") >= ENOUGH and (few or self.share("reused") >= ENOUGH_REUSED)

    def text(self) -> str:
        kinds = {"positive": "CONVERGED", "diverged": "DIVERGED", "refused": "refused"}
        lines = [f"{self.cases.total()} cases, {sum(self.reasons.values())} solves"]
        for kind, start in kinds.items():
            found = [f"{name} {count}" for name, count in self.reasons.most_common() if name.startswith(start)]
            lines.append(f"  {kind}: {', '.join(found) or 'none'}")
        for kind in ("fresh", "reused"):
            lines.append(f"  must converge ({kind}): {self.expected[kind]}, did: {self.share(kind):.1%}")
        lines += [f"not converged: {line}" for line in self.missed]
        promises = Counter(line.split(":")[0] for line in self.broken)
        lines += [f"  broken: {', '.join(f'{name} {count}' for name, count in promises.most_common()) or 'nothing'}"]
        lines += [f"BROKEN {line}" for line in self.broken]
        return "\n".join(lines)

    def last_line(self) -> str:
        """How the cases ended, each counted once, and whether that is good enough."""
        ends = ", ".join(f"{self.cases[kind]} {words}" for kind, words in reversed(WORST_FIRST.items()))
        return f"{self.cases.total()} cases: {ends}: {'PASSED' if self.good() else 'FAILED'}"


def verdict(solve: dict[str, Any]) -> str:
    """The key of `WORST_FIRST` for one solve."""
    if solve["broken"]:
        return "failed"
    if solve["ended"].startswith("CONVERGED"):
        return "right"
    if solve["expected"]:
        return "missed"
    return "refused" if solve["ended"].startswith("refused") else "stopped"


def repeat(ranks: int, seed: int) -> str:
    return f"mpirun --oversubscribe -n {ranks} .venv/bin/python tests/mpi/runner.py tests/mpi/fuzz_truth.py {seed} 1"


def stretch(ranks: int, first: int, count: int, timeout: float) -> Iterator[dict[str, Any] | str]:
    """What was found for each seed, or, where the program hung or crashed, what it printed last."""
    while count:
        try:
            output = mpirun(ranks, SCRIPT, str(first), str(count), timeout=timeout, expect=0)
        except AssertionError as problem:
            output = str(problem)
        found = [json.loads(line) for line in re.findall(r"^found (.*)$", output, re.MULTILINE)]
        yield from found
        first, count = first + len(found), count - len(found)
        if count:  # the next one did not come back
            tail = [line for line in output.splitlines() if not line.startswith(("found ", "case "))]
            late = "still running" in output
            yield f"{'hangs' if late else 'crashes'}: {' | '.join(tail[-12:])[-1500:]}\n    {repeat(ranks, first)}"
            first, count = first + 1, count - 1


def survey(ranks: int, first: int, count: int, timeout: float = 120) -> Summary:
    summary = Summary()
    for found in stretch(ranks, first, count, timeout):
        if isinstance(found, str):
            summary.cases["failed"] += 1
            summary.reasons["crashed or hung"] += 1
            summary.broken.append(found)
        else:
            summary.add(ranks, found)
    return summary


def merged(parts: list[Summary]) -> Summary:
    whole = Summary()
    for part in parts:
        whole.reasons += part.reasons
        whole.expected += part.expected
        whole.broken += part.broken
        whole.missed += part.missed
        whole.cases += part.cases
    return whole


def main(cases: int = 2000, seed: int = 0, length: int = 50, wide: bool = False) -> int:
    parts, start = [], time.monotonic()
    seed += WIDE if wide else 0
    for number, first in enumerate(range(seed, seed + cases, length)):
        ranks = 1 + number % (4 if wide else 3)
        parts.append(survey(ranks, first, min(length, seed + cases - first), timeout=1200))
        so_far = merged(parts)
        took = time.monotonic() - start
        done = so_far.cases.total()
        left = took / done * (cases - done)
        progress = f"{done}/{cases} cases, {len(so_far.broken)} broken, {took:.0f} s, {left:.0f} s to go"
        print(progress, file=sys.stderr, flush=True)
    whole = merged(parts)
    print(whole.text())
    print(f"{whole.last_line()} ({time.monotonic() - start:.0f} s)")
    return 0 if whole.good() else 1


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word != "--wide"]
    sys.exit(main(*numbers, wide="--wide" in sys.argv))
