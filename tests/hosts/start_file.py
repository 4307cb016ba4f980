"""The file that Python reads when it starts inside of another program (setup.py), for hosts under test."""

from __future__ import annotations

import runpy
import sys
import sysconfig
from pathlib import Path

from harness import ROOT


def environment_with_start_file(folder: Path) -> dict[str, str]:
    """Variables with which an embedded Python reads it: none where it is installed, else it is written to ``folder``,
    as the user's own site-packages.
    """
    source = runpy.run_path(str(ROOT / "setup.py"))
    if Path(sysconfig.get_path("purelib"), source["NAME"]).exists():
        return {}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    site.mkdir(parents=True, exist_ok=True)
    (site / source["NAME"]).write_text(source["LINE"])
    return {"PYTHONUSERBASE": str(folder)}
