"""The systems of a comparison in hypre's structured format are the operators that PETSc has, on any ranks."""

from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.compare.systems import build, structured

RANKS = (1, 3)
NEEDS = "hypre"
KINDS = (
    SystemSpec("family", "mixed", (10, 9, 12), seed=2),
    SystemSpec("family", "neumann", (6, 14, 12)),
    SystemSpec("vertex", shape=(7, 9, 8)),
)


def test_structured_format_is_the_same_operator():
    for spec in KINDS:
        problem = build(spec)
        H = structured(problem.A, problem.dm)
        x, y, z = (problem.b.duplicate() for _ in range(3))
        x.setRandom()
        problem.A.mult(x, y)
        H.mult(x, z)
        z.axpy(-1.0, y)
        assert z.norm() <= 1e-13 * y.norm()
