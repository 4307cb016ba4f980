/* A C host with its makefile

   -u" = f on the unit square, on a DMDA and any number of ranks. Nothing in it knows of the plugin.

       make && mpirun -n 2 ./poisson -python -ksp_type python -ksp_python_type petsc_dcdm.KSP

   u = x (1 - x) y (1 - y) is met exactly, since second differences of a quadratic are. */
#include <petscdmda.h>
#include <petscksp.h>

int main(int argc, char **argv)
{
  DM da;
  Mat A;
  Vec x, b, exact;
  KSP ksp;
  DMDALocalInfo box;
  PetscScalar **f, **u;
  PetscReal error;
  PetscInt its;
  PetscCall(PetscInitialize(&argc, &argv, NULL, NULL));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, 64, 64, PETSC_DECIDE,
                         PETSC_DECIDE, 1, 1, NULL, NULL, &da)); /* -da_grid_x, -da_grid_y: another size */
  PetscCall(DMSetFromOptions(da));
  PetscCall(DMSetUp(da));
  PetscCall(DMCreateMatrix(da, &A));
  PetscCall(MatCreateVecs(A, &x, &b));
  PetscCall(VecDuplicate(x, &exact));
  PetscCall(DMDAGetLocalInfo(da, &box));
  PetscCall(DMDAVecGetArray(da, b, &f));
  PetscCall(DMDAVecGetArray(da, exact, &u));
  for (PetscInt j = box.ys; j < box.ys + box.ym; j++) {
    for (PetscInt i = box.xs; i < box.xs + box.xm; i++) {
      MatStencil  row = {.i = i, .j = j}, col[5] = {row, row, row, row, row}; /* negative columns are left out */
      PetscReal   hx = 1.0 / (box.mx + 1), hy = 1.0 / (box.my + 1), px = (i + 1) * hx, py = (j + 1) * hy;
      PetscScalar v[5] = {2 * (hy / hx + hx / hy), -hy / hx, -hy / hx, -hx / hy, -hx / hy};
      col[1].i = i - 1, col[2].i = i + 1 < box.mx ? i + 1 : -1, col[3].j = j - 1, col[4].j = j + 1 < box.my ? j + 1 : -1;
      PetscCall(MatSetValuesStencil(A, 1, &row, 5, col, v, INSERT_VALUES));
      u[j][i] = px * (1 - px) * py * (1 - py);
      f[j][i] = 2 * hx * hy * (px * (1 - px) + py * (1 - py));
    }
  }
  PetscCall(DMDAVecRestoreArray(da, b, &f));
  PetscCall(DMDAVecRestoreArray(da, exact, &u));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &ksp));
  PetscCall(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY));
  PetscCall(KSPSetOperators(ksp, A, A));
  PetscCall(KSPSetTolerances(ksp, 1e-8, PETSC_DEFAULT, PETSC_DEFAULT, PETSC_DEFAULT));
  PetscCall(KSPSetFromOptions(ksp));
  PetscCall(KSPSolve(ksp, b, x));
  PetscCall(KSPGetIterationNumber(ksp, &its));
  PetscCall(VecAXPY(x, -1, exact));
  PetscCall(VecNorm(x, NORM_INFINITY, &error));
  PetscCall(KSPDestroy(&ksp)); /* before PETSc ends; the rest goes with the program */
  PetscCall(PetscPrintf(PETSC_COMM_WORLD, "%s: %d iterations, %.1e from the exact answer\n",
                        error < 1e-7 ? "right" : "WRONG", (int)its, (double)error));
  return PetscFinalize() || error >= 1e-7;
}
