"""What pyproject.toml cannot say: beside the package goes a file that Python reads when it starts.

petsc_dcdm.pth does nothing in a Python interpreter. In another program that has started Python it calls
petsc_dcdm.native.traps.at_start: where that program traps floating-point exceptions the import of numpy would end it.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NAME = "petsc_dcdm.pth"
LINE = (
    'import os; exe = "/proc/self/exe"; os.path.islink(exe) and "python" not in os.path.basename(os.readlink(exe)) '
    'and __import__("petsc_dcdm.native.traps", fromlist=["traps"]).at_start()\n'
)


class BuildWithStart(build_py):
    """Modules, and the file, which ``pip install`` and ``pip install -e`` put into site-packages."""

    def run(self) -> None:
        super().run()
        target = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        Path(target).mkdir(parents=True, exist_ok=True)
        Path(target, NAME).write_text(LINE)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithStart})
