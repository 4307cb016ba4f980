static char help[] = "Poisson's equation on a disc of cells in an n x n grid: only the cells of the disc have rows.\n\
Which cell each row is can be told with the index set 'dcdm_cells' (-tell); otherwise it is found in the couplings.\n";

#include <petscksp.h>

static PetscBool is_active(PetscInt n, PetscInt i, PetscInt j)
{
  PetscReal x = i - 0.5 * (n - 1), y = j - 0.5 * (n - 1);

  return (i >= 0 && i < n && j >= 0 && j < n && x * x + y * y < 0.23 * n * n) ? PETSC_TRUE : PETSC_FALSE;
}

int main(int argc, char **argv)
{
  PetscInt           n = 40, active = 0, *number, first, last, its;
  PetscBool          tell = PETSC_FALSE;
  Mat                A;
  Vec                x, b, r;
  KSP                ksp;
  KSPConvergedReason reason;
  PetscReal          norm, norm_b;

  PetscCall(PetscInitialize(&argc, &argv, NULL, help));
  PetscCall(PetscOptionsGetInt(NULL, NULL, "-n", &n, NULL));
  PetscCall(PetscOptionsGetBool(NULL, NULL, "-tell", &tell, NULL));

  /* the row of each cell, x fastest, and the cell of each row */
  PetscInt *cell;
  PetscCall(PetscMalloc2(n * n, &number, n * n, &cell));
  for (PetscInt j = 0; j < n; j++)
    for (PetscInt i = 0; i < n; i++) {
      number[j * n + i] = is_active(n, i, j) ? active : -1;
      if (is_active(n, i, j)) cell[active++] = j * n + i;
    }

  PetscCall(MatCreate(PETSC_COMM_WORLD, &A));
  PetscCall(MatSetSizes(A, PETSC_DECIDE, PETSC_DECIDE, active, active));
  PetscCall(MatSetFromOptions(A));
  PetscCall(MatSetUp(A));
  PetscCall(MatGetOwnershipRange(A, &first, &last));
  for (PetscInt row = first; row < last; row++) {
    PetscInt    i = cell[row] % n, j = cell[row] / n, step[4][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}};
    PetscScalar diagonal = 0;

    for (int k = 0; k < 4; k++) {
      PetscInt  there = (j + step[k][1]) * n + i + step[k][0];
      PetscBool inside = is_active(n, i + step[k][0], j + step[k][1]);

      diagonal += inside ? 1 : 2; /* a wall with a given value is half a cell away */
      if (inside) PetscCall(MatSetValue(A, row, number[there], -1, INSERT_VALUES));
    }
    PetscCall(MatSetValue(A, row, row, diagonal, INSERT_VALUES));
  }
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));

  if (tell) { /* the cells of the local rows; the matrix keeps the index set */
    IS cells;

    PetscCall(ISCreateGeneral(PETSC_COMM_WORLD, last - first, cell + first, PETSC_COPY_VALUES, &cells));
    PetscCall(PetscObjectCompose((PetscObject)A, "dcdm_cells", (PetscObject)cells));
    PetscCall(ISDestroy(&cells));
  }

  PetscCall(MatCreateVecs(A, &x, &b));
  PetscCall(VecSet(b, 1));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetOperators(ksp, A, A));
  PetscCall(KSPSetFromOptions(ksp));
  PetscCall(KSPSolve(ksp, b, x));
  PetscCall(KSPGetIterationNumber(ksp, &its));
  PetscCall(KSPGetConvergedReason(ksp, &reason));
  PetscCall(VecDuplicate(b, &r));
  PetscCall(MatMult(A, x, r));
  PetscCall(VecAYPX(r, -1, b));
  PetscCall(VecNorm(r, NORM_2, &norm));
  PetscCall(VecNorm(b, NORM_2, &norm_b));
  PetscCall(PetscPrintf(PETSC_COMM_WORLD, "rows %" PetscInt_FMT " reason %d iterations %" PetscInt_FMT " residual %.3e\n", active, (int)reason, its, (double)(norm / norm_b)));

  PetscCall(KSPDestroy(&ksp));
  PetscCall(VecDestroy(&x));
  PetscCall(VecDestroy(&b));
  PetscCall(VecDestroy(&r));
  PetscCall(MatDestroy(&A));
  PetscCall(PetscFree2(number, cell));
  PetscCall(PetscFinalize());
  return 0;
}
