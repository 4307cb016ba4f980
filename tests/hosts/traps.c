/* A host that traps floating-point exceptions from its first line on, as codes compiled with gfortran's -ffpe-trap do.

   -n 12        cells along each axis
   -nan_matrix  one entry of the matrix is NaN
   -nan_rhs     one of the right-hand side is                                                                        */
#define _GNU_SOURCE
#include <fenv.h>
#include <petscksp.h>

static const int TRAPS = FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW;

int main(int argc, char **argv)
{
  Mat                A;
  Vec                x, b;
  KSP                ksp;
  PetscInt           n = 12, row, first, last, its = -1;
  PetscBool          nan_matrix = PETSC_FALSE, nan_rhs = PETSC_FALSE;
  KSPConvergedReason reason = KSP_CONVERGED_ITERATING;
  PetscErrorCode     error;
  PetscReal          residual = -1;

  (void)feenableexcept(TRAPS);
  feraiseexcept(FE_INEXACT);
  if (PetscInitialize(&argc, &argv, NULL, NULL)) return 1;
  (void)PetscOptionsGetInt(NULL, NULL, "-n", &n, NULL);
  (void)PetscOptionsHasName(NULL, NULL, "-nan_matrix", &nan_matrix);
  (void)PetscOptionsHasName(NULL, NULL, "-nan_rhs", &nan_rhs);
  (void)MatCreateAIJ(PETSC_COMM_WORLD, PETSC_DECIDE, PETSC_DECIDE, n * n * n, n * n * n, 7, NULL, 7, NULL, &A);
  (void)MatGetOwnershipRange(A, &first, &last);
  for (row = first; row < last; row++) {
    const PetscInt at[3] = {row % n, row / n % n, row / n / n}, stride[3] = {1, n, n * n};
    PetscInt       axis;

    for (axis = 0; axis < 3; axis++) {
      if (at[axis]) (void)MatSetValue(A, row, row - stride[axis], -1, INSERT_VALUES);
      if (at[axis] < n - 1) (void)MatSetValue(A, row, row + stride[axis], -1, INSERT_VALUES);
    }
    (void)MatSetValue(A, row, row, nan_matrix && row == n ? (PetscScalar)__builtin_nan("") : 6, INSERT_VALUES);
  }
  (void)MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY);
  (void)MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY);
  (void)MatCreateVecs(A, &x, &b);
  (void)VecSet(b, 1);
  if (nan_rhs && first == 0) (void)VecSetValue(b, n, (PetscScalar)__builtin_nan(""), INSERT_VALUES);
  (void)VecAssemblyBegin(b);
  (void)VecAssemblyEnd(b);
  (void)KSPCreate(PETSC_COMM_WORLD, &ksp);
  (void)KSPSetOperators(ksp, A, A);
  (void)KSPSetFromOptions(ksp);
  error = KSPSolve(ksp, b, x);
  (void)KSPGetConvergedReason(ksp, &reason);
  (void)KSPGetIterationNumber(ksp, &its);
  (void)PetscPrintf(PETSC_COMM_WORLD, "error %d reason %d its %d traps %s flag %s\n", error ? 1 : 0, (int)reason, (int)its, fegetexcept() == TRAPS ? "on" : "changed", fetestexcept(FE_INEXACT) ? "kept" : "lost");
  if (!nan_matrix && !nan_rhs) {
    (void)VecScale(b, -1);
    (void)MatMultAdd(A, x, b, b);
    (void)VecNorm(b, NORM_2, &residual);
    (void)PetscPrintf(PETSC_COMM_WORLD, "residual %.3e\n", (double)residual);
  }
  (void)KSPDestroy(&ksp);
  (void)MatDestroy(&A);
  (void)VecDestroy(&x);
  (void)VecDestroy(&b);
  (void)PetscFinalize();
  return 0;
}
