"""Makes the pages of docs/gallery from the scripts beside this file: text, picture, and what they print.

python run_scripts/gallery/make_pages.py [NAME ...]     runs them at their full size and writes page and picture
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = HERE.parents[1] / "docs" / "gallery"
HELPERS = ("picture", "make_pages")
SOURCES = {path.stem: path for path in HERE.glob("*.py") if path.stem not in HELPERS}
SOURCES |= {"c_host": HERE / "c" / "poisson.c", "fortran_host": HERE / "fortran" / "poisson.F90"}
PLUGIN = ["-python", "-ksp_type", "python", "-ksp_python_type", "petsc_dcdm.KSP", "-ksp_rtol", "1e-8"]
LANGUAGES = {".py": "python", ".c": "c", ".F90": "fortran"}


def introduction(source: Path) -> tuple[str, str]:
    """Title and text of a script, from the docstring or the comment that it begins with."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".py":
        lines = text.split('"""')[1].splitlines()
    elif source.suffix == ".c":
        lines = [line.removeprefix("   ") for line in text.split("*/")[0].removeprefix("/* ").splitlines()]
    else:
        comment = text[: text.index("program")].splitlines()
        lines = [line.removeprefix("!").removeprefix(" ") for line in comment if line.startswith("!")]
    words = [line for line in lines[1:] if not line.startswith("    ")]  # the command has a place of its own
    return lines[0].strip(), "\n".join(words).replace("\n\n\n", "\n\n").strip()


def page(name: str, printed: str) -> str:
    """The page of a script that has printed this."""
    source = SOURCES[name]
    title, text = introduction(source)
    script = source.relative_to(HERE.parents[1])
    command = f"python {script}"
    if source.suffix != ".py":
        command = f"cd {script.parent} && make\nmpirun -n 2 ./poisson {' '.join(PLUGIN)}"
    parts = [
        f"# {title}\n\n{text}\n",
        f"![{title}](pictures/{name}.png)\n",
        f"<!-- run by tests/gallery/test_gallery.py -->\n```bash\n{command}\n```\n",
        f"```text\n{printed.strip()}\n```\n",
    ]
    files = [source] if source.suffix == ".py" else [source, source.parent / "makefile"]
    for file in files:
        language = LANGUAGES.get(file.suffix, "make")
        parts.append(f"```{{literalinclude}} ../../{file.relative_to(HERE.parents[1])}\n:language: {language}\n```\n")
    return "\n".join(parts)


def run(name: str, folder: Path, *options: str) -> str:
    """Runs a script, small with ``options``, and leaves its picture in the folder; returns what it printed last."""
    source, picture = SOURCES[name], folder / f"{name}.png"
    env = {**os.environ, "MPLBACKEND": "Agg"}
    if source.suffix == ".py":
        command = [sys.executable, str(source), "-picture", str(picture), *options]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip().splitlines()[-1]
    for file in (source, source.parent / "makefile"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"))
    subprocess.run(["make"], cwd=folder, env=env, check=True, capture_output=True)
    command = ["./poisson", *PLUGIN, "-ksp_view_solution", f"binary:{folder}/x.bin", *options]
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    code = "import numpy as np; from petsc4py import PETSc; from picture import save; x = PETSc.Vec().load("
    code += f"PETSc.Viewer().createBinary('{folder}/x.bin')).array_r; n = int(x.size**0.5); "
    code += f"PETSc.Options()['picture'] = '{picture}'; save(x.reshape(n, n), 'Answer of the host')"
    subprocess.run(
        [sys.executable, "-c", code], env={**env, "PYTHONPATH": f"{HERE}:{env.get('PYTHONPATH', '')}"}, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    for name in sys.argv[1:] or sorted(SOURCES):
        with tempfile.TemporaryDirectory() as folder:
            printed = run(name, Path(folder))
            (PAGES / f"{name}.md").write_text(page(name, printed), encoding="utf-8")
            picture = Path(folder) / f"{name}.png"
            if picture.exists():
                (PAGES / "pictures" / picture.name).write_bytes(picture.read_bytes())
        print(f"{name}: {printed}")


if __name__ == "__main__":
    main()
