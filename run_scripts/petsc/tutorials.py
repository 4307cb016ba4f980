"""PETSc's own tutorials (C; of ksp, snes and ts), unmodified: what petsc_dcdm.KSP, chosen by options, makes of each.

    .venv/bin/python run_scripts/petsc/tutorials.py [--kind ksp snes ts] [--only ex2 ...] [--json FILE] [--page FILE]

Each is compiled and run with its own solver and ours, on 1 and 2 ranks, without arguments of its own. Those that need
files or arguments, or solve nothing that options reach, are counted and left out. A run ends in one of these ways:

    converged   all its solves did, and where the true residual was shown it is no larger than a solve claims
    refused     the program ended with a sentence of this package; where that names -pc_dcdm_fallback it is run again so
    stopped     a solve did not converge, for the reason given
    broken      a crash, a hang, an error without a sentence: exit status 1 of this script
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from harness import mpirun_program, run_program
from petsc_sources import flags, folders

KINDS = {"ksp": "ksp/ksp/tutorials", "snes": "snes/tutorials", "ts": "ts/tutorials"}
OURS = ("-python", "-ksp_type", "python", "-ksp_python_type", "petsc_dcdm.KSP")
WATCH = ("-ksp_converged_reason", "-snes_converged_reason", "-options_left", "-ts_max_steps", "3")
LINEAR = re.compile(r"^ *Linear .*solve (converged|did not converge) due to (\w+) iterations (\d+)", re.MULTILINE)
NONLINEAR = re.compile(r"^ *Nonlinear .*solve (converged|did not converge) due to (\w+)", re.MULTILINE)
TRUE = re.compile(r"^ *(\d+) KSP .*true resid norm \S+ \|\|r\(i\)\|\|/\|\|b\|\| (\S+)", re.MULTILINE)
REMEDY = re.compile(r"-pc_dcdm_fallback (\w+)")
SENTENCE = re.compile(r"petsc_dcdm\.(?:KSP|PC): (.*)")
SECONDS = 600.0


@dataclass
class Run:
    """One run of a tutorial with our solver."""

    ended: str
    solves: int = 0
    most_iterations: int = 0
    worst_residual: float = 0.0
    """Of the solves that claim to have converged: |b - A x| / |b| at the end."""
    why: str = ""
    remedy: str = ""
    """Of a refused run: the fallback that the sentence names."""
    remedied: str = ""
    """How the run ended with that fallback."""


def output_of(ranks: int, program: Path, *options: str) -> tuple[bool, str]:
    """(whether it ended with status 0, what it printed); "" where it did not end."""
    command = [program, *options]
    try:
        if ranks == 1:
            return True, run_program(command, timeout=SECONDS, cwd=program.parent)
        return True, mpirun_program(ranks, command, timeout=SECONDS, cwd=program.parent)
    except AssertionError as problem:
        text = str(problem)
        return False, "" if text.startswith("still running") else text


def compiled(source: Path, folder: Path, petsc: list[str]) -> Path | None:
    """The program; None where it needs more than its own file."""
    program = folder / source.stem
    command = ["mpicc", "-w", str(source), "-o", str(program), *petsc, "-lm"]
    return program if subprocess.run(command, capture_output=True, cwd=folder).returncode == 0 else None


def judged(good: bool, said: str, usual: str) -> Run:
    """What became of a run that printed `said`; `usual`: what the tutorial's own solver makes it print."""
    if not said:
        return Run("broken", why=f"still running after {SECONDS:g} s")
    solves = LINEAR.findall(said)
    sentences = [line.strip() for line in SENTENCE.findall(said)]
    run = Run("converged", len(solves), max((int(n) for *_, n in solves), default=0))
    failed = [reason for how, reason, _ in solves if how != "converged"]
    run.worst_residual = max(last_residuals(said), default=0.0)
    if not good and sentences and "Caught signal" not in said:
        run.ended, run.why = "refused", sentences[-1]
    elif failed:
        why = re.sub(r"^stopped (at step \d+): ", r"\1, ", sentences[-1]) if sentences else failed[0]
        run.ended, run.why = "stopped", why
    elif not good:
        run.ended, run.why = "broken", " | ".join(said.splitlines()[-6:])[-500:]
    if run.ended == "stopped" and "did not converge" in usual:
        run.why += "; with its own solver it does not get through either"
    theirs, ours = ([how for how, _ in NONLINEAR.findall(text)] for text in (usual, said))
    if run.ended == "converged" and theirs[:1] == ["converged"] and "did not converge" in ours:
        run.ended, run.why = "stopped", "the nonlinear solve did not converge, with its own linear solver it does"
    return run


def last_residuals(said: str) -> list[float]:
    """The true relative residual at the end of each solve that converged and showed it."""
    found, last = [], None
    for line in said.splitlines():
        if shown := TRUE.match(line):
            last = float(shown.group(2))
        elif (ended := LINEAR.match(line)) and last is not None:
            found += [last] if ended.group(1) == "converged" else []
            last = None
    return found


def tried(source: Path, folder: Path, petsc: list[str]) -> dict[str, Run] | str:
    """The runs by number of ranks, or why there are none."""
    program = compiled(source, folder, petsc)
    if program is None:
        return "need more than their own source or this PETSc"
    runs: dict[str, Run] = {}
    for ranks in (1, 2):
        good, usual = output_of(ranks, program, *WATCH)
        if not good:
            if ranks == 1:
                return "need files or arguments"
            continue
        if not LINEAR.search(usual):
            return "solve nothing linear that options without a prefix reach"
        good, said = output_of(ranks, program, *OURS, *WATCH, "-ksp_monitor_true_residual")
        if "Option left: name:-ksp_python_type" in said:
            return "choose their solver themselves"
        run = runs[str(ranks)] = judged(good, said, usual)
        if run.ended == "refused" and (found := REMEDY.search(run.why)):
            run.remedy = found.group(1)
            again = output_of(ranks, program, *OURS, *WATCH, *found.group().split(), "-ksp_monitor_true_residual")
            run.remedied = cell(judged(*again, usual))
    program.unlink()
    return runs


def cell(run: Run | None) -> str:
    if run is None:
        return "does not run"
    if run.ended == "converged":
        residual = f", {run.worst_residual:.0e}" if run.worst_residual else ""
        return f"converged: {run.solves} solve{'s' * (run.solves > 1)}, {run.most_iterations} it{residual}"
    if run.ended == "refused":
        return f"refused: {run.why.partition(';')[0]}" + (f"; with {run.remedy} {run.remedied}" if run.remedy else "")
    return f"{run.ended}: {run.why}"


def sources(kinds: list[str], only: list[str]) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for kind in kinds:
        place = next((folder for folder in folders(KINDS[kind]) if folder.is_dir()), None)
        if place is None:
            sys.exit(f"tutorials.py: PETSc's tutorials {KINDS[kind]} are not here (Debian: libpetsc*-dev-examples)")
        paths = sorted(place.glob("*.c"), key=lambda path: (len(path.stem), path.stem))
        found += [(kind, path) for path in paths if not only or path.stem in only]
    return found


def page(results: dict[str, dict[str, Run]], left_out: dict[str, str]) -> str:
    """The table, and what was counted, in Markdown."""
    ended = Counter(run.ended for runs in results.values() for run in runs.values())
    lines = [f"{len(results)} tutorials: {', '.join(f'{count} runs {how}' for how, count in ended.most_common())}.", ""]
    lines += ["| tutorial | 1 rank | 2 ranks |", "|---|---|---|"]
    for name, runs in results.items():
        one, two = (cell(runs.get(ranks)).replace("|", "/") for ranks in ("1", "2"))
        lines.append(f"| {name} | {one} | {'the same' if one == two else two} |")
    lines += ["", "Left out:", ""]
    for why, count in Counter(left_out.values()).most_common():
        names = ", ".join(name for name, reason in left_out.items() if reason == why)
        lines.append(textwrap.fill(f"- {count} {why}: {names}", 118, subsequent_indent="  "))
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="ksp, snes, ts (default all)")
    parser.add_argument("--only", nargs="+", default=[], metavar="exN", help="only these")
    parser.add_argument("--json", type=Path, help="write the results as they come")
    parser.add_argument("--page", type=Path, help="write the table as Markdown (default: print it)")
    args = parser.parse_args()
    petsc = flags()
    results: dict[str, dict[str, Run]] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, source in sources(args.kind, args.only):
            name, found = f"{kind} {source.stem}", tried(source, Path(folder), petsc)
            if isinstance(found, str):
                left_out[name] = found
            else:
                results[name] = found
            shown = found if isinstance(found, str) else "; ".join(cell(run) for run in found.values())
            print(f"{name}: {shown}", file=sys.stderr, flush=True)
            if args.json:
                known = {name: {ranks: asdict(run) for ranks, run in runs.items()} for name, runs in results.items()}
                args.json.write_text(json.dumps({"runs": known, "left out": left_out}, indent=1) + "\n")
    text = page(results, left_out)
    if args.page:
        args.page.write_text(text)
    else:
        print(text)
    return int(any(run.ended == "broken" for runs in results.values() for run in runs.values()))


if __name__ == "__main__":
    sys.exit(main())
