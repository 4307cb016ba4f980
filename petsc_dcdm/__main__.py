"""``python -m petsc_dcdm``: the command `petsc-dcdm`, where scripts of the environment are not in PATH."""

import sys

from petsc_dcdm.cli import main

sys.exit(main())
