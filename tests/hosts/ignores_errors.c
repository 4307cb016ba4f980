/* A host as ground-water codes are: it ignores all error codes and looks at KSPGetConvergedReason only, has a
   convergence test of its own that remembers the last x, and a monitor; both ask for x and r where the solver keeps them.

   -n 12                cells along each axis
   -solves 1            how often it solves
   -skew_from 0         from this solve on (1 is the first) the matrix is not symmetric; 0: never
   -dvclose 1e-6        the largest change of x and ...
   -rclose 1e30         ... the largest residual that end its convergence test; without -dvclose PETSc's own test
   -watch               the monitor
   -null_space          closed walls, constants attached                                                              */
#include <petscksp.h>
#include <petscdmda.h>

typedef struct {
  Mat       A;
  Vec       b, old, work;
  PetscReal dvclose, rclose;
} Closure;

/* What is at (ksp, NULL, &x) and (ksp, NULL, NULL, &r), and whether it belongs together: | r - (b - A x) |. */
static Vec look(KSP ksp, Closure *c, const char *who, PetscInt its, PetscReal rnorm)
{
  Vec       x = NULL, r = NULL;
  PetscReal of_r = -1, apart = -1, of_x = -1;

  (void)KSPBuildSolution(ksp, NULL, &x);
  if (!x) {
    (void)PetscPrintf(PETSC_COMM_WORLD, "%s %d no x\n", who, (int)its);
    return NULL;
  }
  (void)VecNorm(x, NORM_2, &of_x);
  (void)MatMult(c->A, x, c->work);
  (void)VecAYPX(c->work, -1.0, c->b);
  (void)KSPBuildResidual(ksp, NULL, NULL, &r);
  if (r) {
    (void)VecNorm(r, NORM_2, &of_r);
    (void)VecAXPY(c->work, -1.0, r);
    (void)VecNorm(c->work, NORM_2, &apart);
    (void)VecDestroy(&r);
  }
  (void)PetscPrintf(PETSC_COMM_WORLD, "%s %d norm %.15e x %.15e r %.15e apart %.3e\n", who, (int)its, (double)rnorm, (double)of_x, (double)of_r, (double)apart);
  return x;
}

static PetscErrorCode test(KSP ksp, PetscInt its, PetscReal rnorm, KSPConvergedReason *reason, void *ctx)
{
  Closure  *c      = (Closure *)ctx;
  PetscReal change = 0;
  Vec       x      = look(ksp, c, "test", its, rnorm);

  *reason = x ? KSP_CONVERGED_ITERATING : KSP_DIVERGED_BREAKDOWN;
  if (!x) return 0;
  if (its) {
    (void)VecAXPY(c->old, -1.0, x);
    (void)VecNorm(c->old, NORM_INFINITY, &change);
    if (change <= c->dvclose && rnorm <= c->rclose) *reason = KSP_CONVERGED_HAPPY_BREAKDOWN;
    else if (its >= 200) *reason = KSP_DIVERGED_ITS;
  }
  (void)VecCopy(x, c->old);
  return 0;
}

static PetscErrorCode monitor(KSP ksp, PetscInt its, PetscReal rnorm, void *ctx)
{
  (void)look(ksp, (Closure *)ctx, "monitor", its, rnorm);
  return 0;
}

static void fill(DM da, Mat A, PetscInt n, PetscBool closed, PetscBool skew)
{
  PetscInt xs, ys, zs, xm, ym, zm, i, j, k, f, count;

  (void)DMDAGetCorners(da, &xs, &ys, &zs, &xm, &ym, &zm);
  for (k = zs; k < zs + zm; k++)
    for (j = ys; j < ys + ym; j++)
      for (i = xs; i < xs + xm; i++) {
        const PetscInt to[6][3] = {{i - 1, j, k}, {i + 1, j, k}, {i, j - 1, k}, {i, j + 1, k}, {i, j, k - 1}, {i, j, k + 1}};
        MatStencil     row = {k, j, i, 0}, col[7];
        PetscScalar    v[7], diagonal = 0;

        for (f = count = 0; f < 6; f++) {
          const PetscInt *p = to[f];
          if (p[0] < 0 || p[0] >= n || p[1] < 0 || p[1] >= n || p[2] < 0 || p[2] >= n) {
            if (!closed) diagonal += 2;
            continue;
          }
          col[count].i = p[0], col[count].j = p[1], col[count].k = p[2], col[count].c = 0;
          /* on every other line only: no scaling of the rows makes that symmetric */
          v[count++] = skew && f == 0 && j % 2 ? -1.5 : -1;
          diagonal += skew && f == 0 && j % 2 ? 1.5 : 1;
        }
        col[count] = row, v[count++] = diagonal;
        (void)MatSetValuesStencil(A, 1, &row, count, col, v, INSERT_VALUES);
      }
  (void)MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY);
  (void)MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY);
}

int main(int argc, char **argv)
{
  DM           da;
  KSP          ksp;
  Vec          x, guess;
  Closure      c;
  PetscInt     n = 12, solves = 1, skew_from = 0, solve;
  PetscBool    own = PETSC_FALSE, watch = PETSC_FALSE, closed = PETSC_FALSE;
  PetscRandom  random;
  MatNullSpace constants;

  if (PetscInitialize(&argc, &argv, NULL, NULL)) return 1;
  c.dvclose = 1e-6, c.rclose = 1e30;
  (void)PetscOptionsGetInt(NULL, NULL, "-n", &n, NULL);
  (void)PetscOptionsGetInt(NULL, NULL, "-solves", &solves, NULL);
  (void)PetscOptionsGetInt(NULL, NULL, "-skew_from", &skew_from, NULL);
  (void)PetscOptionsGetReal(NULL, NULL, "-dvclose", &c.dvclose, &own);
  (void)PetscOptionsGetReal(NULL, NULL, "-rclose", &c.rclose, NULL);
  (void)PetscOptionsHasName(NULL, NULL, "-watch", &watch);
  (void)PetscOptionsHasName(NULL, NULL, "-null_space", &closed);
  (void)DMDACreate3d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, n, n, n, PETSC_DECIDE, PETSC_DECIDE, PETSC_DECIDE, 1, 1, NULL, NULL, NULL, &da);
  (void)DMSetUp(da);
  (void)DMCreateMatrix(da, &c.A);
  (void)DMCreateGlobalVector(da, &c.b);
  (void)VecDuplicate(c.b, &c.old);
  (void)VecDuplicate(c.b, &c.work);
  (void)VecDuplicate(c.b, &x);
  (void)VecDuplicate(c.b, &guess);
  (void)VecSet(c.old, 0);
  (void)PetscRandomCreate(PETSC_COMM_WORLD, &random);
  (void)PetscRandomSetFromOptions(random);
  (void)VecSetRandom(c.b, random);
  (void)PetscRandomDestroy(&random);
  if (closed) {
    (void)MatNullSpaceCreate(PETSC_COMM_WORLD, PETSC_TRUE, 0, NULL, &constants);
    (void)MatSetNullSpace(c.A, constants);
    (void)MatNullSpaceRemove(constants, c.b);
    (void)MatNullSpaceDestroy(&constants);
  }
  (void)KSPCreate(PETSC_COMM_WORLD, &ksp);
  (void)KSPSetOperators(ksp, c.A, c.A);
  (void)KSPSetFromOptions(ksp);
  (void)KSPSetInitialGuessNonzero(ksp, PETSC_TRUE);
  if (own) (void)KSPSetConvergenceTest(ksp, test, &c, NULL);
  if (watch) (void)KSPMonitorSet(ksp, monitor, &c, NULL);
  for (solve = 1; solve <= solves; solve++) {
    PetscErrorCode     error;
    PetscInt           its    = -1;
    KSPConvergedReason reason = KSP_CONVERGED_ITERATING;
    PetscReal          moved, residual;

    fill(da, c.A, n, closed, (PetscBool)(skew_from && solve >= skew_from));
    (void)VecSet(guess, closed ? 0 : 7);
    (void)VecCopy(guess, x);
    error = KSPSolve(ksp, c.b, x);
    (void)KSPGetConvergedReason(ksp, &reason);
    (void)KSPGetIterationNumber(ksp, &its);
    (void)MatMult(c.A, x, c.work);
    (void)VecAYPX(c.work, -1.0, c.b);
    (void)VecNorm(c.work, NORM_2, &residual);
    (void)VecAXPY(guess, -1.0, x);
    (void)VecNorm(guess, NORM_INFINITY, &moved);
    (void)PetscPrintf(PETSC_COMM_WORLD, "solve %d error %d reason %d its %d residual %.15e moved %.3e\n", (int)solve, error ? 1 : 0, (int)reason, (int)its, (double)residual, (double)moved);
  }
  (void)KSPDestroy(&ksp);
  (void)VecDestroy(&x);
  (void)VecDestroy(&guess);
  (void)VecDestroy(&c.b);
  (void)VecDestroy(&c.old);
  (void)VecDestroy(&c.work);
  (void)MatDestroy(&c.A);
  (void)DMDestroy(&da);
  (void)PetscFinalize();
  return 0;
}
