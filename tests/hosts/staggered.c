/* A host as flow codes on staggered grids are (PetIBM): the Poisson matrix is the product D B G of a divergence, the
   density on the faces and a gradient; its rows are in the order of a DMDA that is never attached; the constant null
   space is; one solver with the prefix poisson_ serves all time steps, its preconditioner is kept while the density
   changes a little.

   -nx 20 -ny 14 -nz 9   cells; nz 1 is 2D
   -split x              the axis that ranks share out among them: with z rows are in lexicographic order on all of them
   -steps 4              the density is another one from step 3 on

   Pressures are made up, the right-hand sides from them; each step prints how far its answer is from them.         */
#include <petscksp.h>

typedef struct {
  PetscInt n[3], low[3], size[3], axis; /* the grid, this rank's box, and the axis of the split */
} Box;

static PetscInt cut(PetscInt n, PetscMPIInt rank, PetscMPIInt ranks)
{
  return n * rank / ranks;
}

static Box box_of(const PetscInt n[3], PetscInt axis, PetscMPIInt rank, PetscMPIInt ranks)
{
  Box      box = {{n[0], n[1], n[2]}, {0, 0, 0}, {n[0], n[1], n[2]}, axis};
  PetscInt low = cut(n[axis], rank, ranks), high = cut(n[axis], rank + 1, ranks);

  box.low[axis] = low, box.size[axis] = high - low;
  return box;
}

/* The row of a cell: that of PETSc's ordering, box after box, x fastest within each. */
static PetscInt row_of(const PetscInt at[3], const PetscInt n[3], PetscInt axis, PetscMPIInt ranks)
{
  PetscMPIInt rank = 0;
  PetscInt    other = n[0] * n[1] * n[2] / n[axis];
  Box         box;

  while (at[axis] >= cut(n[axis], rank + 1, ranks)) rank++;
  box = box_of(n, axis, rank, ranks);
  return box.low[axis] * other + ((at[2] - box.low[2]) * box.size[1] + at[1] - box.low[1]) * box.size[0] + at[0] - box.low[0];
}

/* Widths of cells that are finer in the middle. */
static PetscReal width(PetscInt i, PetscInt n)
{
  return 1 + 0.8 * PetscSqr(2.0 * (i + 0.5) / n - 1);
}

static PetscReal pressure(const PetscInt at[3], PetscInt step)
{
  return PetscCosReal(0.3 * at[0] + step) * PetscSinReal(0.2 * at[1] + 0.1) + 0.5 * PetscCosReal(0.4 * at[2]);
}

int main(int argc, char **argv)
{
  PetscInt     n[3] = {20, 14, 9}, axis = 0, steps = 4, step, cells, faces, total, first, face, at[3], f, its, most = 0;
  PetscMPIInt  rank, ranks;
  char         split[8] = "x";
  Box          box;
  Mat          D, G, BG, A = NULL;
  Vec          b, x, exact, density;
  KSP          ksp;
  MatNullSpace constants;
  PetscReal    error, worst = 0, size;
  KSPConvergedReason reason = KSP_CONVERGED_ITERATING;

  PetscCall(PetscInitialize(&argc, &argv, NULL, NULL));
  PetscCallMPI(MPI_Comm_rank(PETSC_COMM_WORLD, &rank));
  PetscCallMPI(MPI_Comm_size(PETSC_COMM_WORLD, &ranks));
  PetscCall(PetscOptionsGetInt(NULL, NULL, "-nx", &n[0], NULL));
  PetscCall(PetscOptionsGetInt(NULL, NULL, "-ny", &n[1], NULL));
  PetscCall(PetscOptionsGetInt(NULL, NULL, "-nz", &n[2], NULL));
  PetscCall(PetscOptionsGetInt(NULL, NULL, "-steps", &steps, NULL));
  PetscCall(PetscOptionsGetString(NULL, NULL, "-split", split, sizeof(split), NULL));
  axis  = split[0] - 'x';
  box   = box_of(n, axis, rank, ranks);
  cells = box.size[0] * box.size[1] * box.size[2];
  total = n[0] * n[1] * n[2];

  /* Inner faces belong to the rank of the cell below them. */
  faces = 0;
  for (f = 0; f < 3; f++) {
    PetscInt high = box.low[f] + box.size[f] < n[f] ? box.size[f] : box.size[f] - 1;
    faces += cells / box.size[f] * high;
  }
  PetscCall(MatCreateAIJ(PETSC_COMM_WORLD, cells, faces, total, PETSC_DETERMINE, 6, NULL, 6, NULL, &D));
  PetscCall(MatSetOption(D, MAT_NEW_NONZERO_ALLOCATION_ERR, PETSC_FALSE));
  PetscCall(MatGetOwnershipRangeColumn(D, &face, NULL));
  PetscCall(MatCreateVecs(D, &density, NULL));
  for (step = 0; step < cells; step++) {
    at[0] = box.low[0] + step % box.size[0], at[1] = box.low[1] + step / box.size[0] % box.size[1], at[2] = box.low[2] + step / box.size[0] / box.size[1];
    for (f = 0; f < 3; f++) {
      PetscInt  next[3] = {at[0], at[1], at[2]};
      PetscReal area    = width(at[0], n[0]) * width(at[1], n[1]) * width(at[2], n[2]) / width(at[f], n[f]), distance;

      if (at[f] == n[f] - 1) continue;
      next[f]++;
      distance = 0.5 * (width(at[f], n[f]) + width(next[f], n[f]));
      PetscCall(MatSetValue(D, row_of(at, n, axis, ranks), face, area, INSERT_VALUES));
      PetscCall(MatSetValue(D, row_of(next, n, axis, ranks), face, -area, INSERT_VALUES));
      PetscCall(VecSetValue(density, face, 1 / (area * distance), INSERT_VALUES));
      face++;
    }
  }
  PetscCall(MatAssemblyBegin(D, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(D, MAT_FINAL_ASSEMBLY));
  PetscCall(VecAssemblyBegin(density));
  PetscCall(VecAssemblyEnd(density));
  PetscCall(MatTranspose(D, MAT_INITIAL_MATRIX, &G));
  PetscCall(MatScale(G, -1));

  PetscCall(MatDuplicate(G, MAT_COPY_VALUES, &BG));
  PetscCall(MatDiagonalScale(BG, density, NULL));
  PetscCall(MatMatMult(D, BG, MAT_INITIAL_MATRIX, PETSC_DEFAULT, &A));
  PetscCall(MatNullSpaceCreate(PETSC_COMM_WORLD, PETSC_TRUE, 0, NULL, &constants));
  PetscCall(MatSetNullSpace(A, constants));
  PetscCall(MatCreateVecs(A, &x, &b));
  PetscCall(VecDuplicate(x, &exact));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(KSPSetOptionsPrefix(ksp, "poisson_"));
  PetscCall(KSPSetOperators(ksp, A, A));
  PetscCall(KSPSetInitialGuessNonzero(ksp, PETSC_TRUE));
  PetscCall(KSPSetReusePreconditioner(ksp, PETSC_TRUE));
  PetscCall(KSPSetTolerances(ksp, 1e-10, PETSC_DEFAULT, PETSC_DEFAULT, 200));
  PetscCall(KSPSetFromOptions(ksp));
  for (step = 1; step <= steps; step++) {
    if (step == 3) { /* another density: the product again, into the same matrix */
      PetscInt     own, i;
      PetscScalar *values;

      PetscCall(VecGetLocalSize(density, &own));
      PetscCall(VecGetArray(density, &values));
      for (i = 0; i < own; i++) values[i] *= 1 + 0.2 * PetscSinReal((PetscReal)i);
      PetscCall(VecRestoreArray(density, &values));
      PetscCall(MatCopy(G, BG, SAME_NONZERO_PATTERN));
      PetscCall(MatDiagonalScale(BG, density, NULL));
      PetscCall(MatMatMult(D, BG, MAT_REUSE_MATRIX, PETSC_DEFAULT, &A));
    }
    PetscCall(VecGetOwnershipRange(exact, &first, NULL));
    for (f = 0; f < cells; f++) {
      at[0] = box.low[0] + f % box.size[0], at[1] = box.low[1] + f / box.size[0] % box.size[1], at[2] = box.low[2] + f / box.size[0] / box.size[1];
      PetscCall(VecSetValue(exact, first + f, pressure(at, step), INSERT_VALUES));
    }
    PetscCall(VecAssemblyBegin(exact));
    PetscCall(VecAssemblyEnd(exact));
    PetscCall(MatNullSpaceRemove(constants, exact));
    PetscCall(MatMult(A, exact, b));
    PetscCall(KSPSolve(ksp, b, x));
    PetscCall(KSPGetConvergedReason(ksp, &reason));
    PetscCall(KSPGetIterationNumber(ksp, &its));
    if (reason <= 0) break;
    PetscCall(MatNullSpaceRemove(constants, x));
    PetscCall(VecNorm(exact, NORM_INFINITY, &size));
    PetscCall(VecAXPY(exact, -1, x));
    PetscCall(VecNorm(exact, NORM_INFINITY, &error));
    worst = PetscMax(worst, error / size);
    most  = PetscMax(most, its);
  }
  PetscCall(PetscPrintf(PETSC_COMM_WORLD, "flow: %d rows, %d steps, reason %d, at most %d iterations, error %.3e\n", (int)total, (int)step - 1, (int)reason, (int)most, (double)worst));
  PetscCall(KSPDestroy(&ksp));
  PetscCall(MatNullSpaceDestroy(&constants));
  PetscCall(MatDestroy(&A));
  PetscCall(MatDestroy(&BG));
  PetscCall(MatDestroy(&G));
  PetscCall(MatDestroy(&D));
  PetscCall(VecDestroy(&density));
  PetscCall(VecDestroy(&x));
  PetscCall(VecDestroy(&b));
  PetscCall(VecDestroy(&exact));
  PetscCall(PetscFinalize());
  return 0;
}
