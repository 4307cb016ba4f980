! A Fortran host
!
! The same equation as in C, its rows in lexicographic order, with nothing said about the grid: it is found in the
! matrix.
!     make && mpirun -n 2 ./poisson -python -ksp_type python -ksp_python_type petsc_dcdm.KSP
program poisson
#include <petsc/finclude/petscksp.h>
  use petscksp
  implicit none
  Mat :: A
  Vec :: x, b, exact
  KSP :: solver
  PetscErrorCode :: ierr
  PetscBool :: given
  PetscInt :: n, rows, first, last, row, i, j, its, col(5), none, one
  PetscScalar :: v(5), p, q, h, minus
  PetscReal :: error
  PetscCallA(PetscInitialize(ierr))
  n = 64
  none = -1
  one = 1
  minus = -1
  PetscCallA(PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-n', n, given, ierr))
  rows = n * n
  h = 1 / real(n + 1, kind(h))
  PetscCallA(MatCreate(PETSC_COMM_WORLD, A, ierr))
  PetscCallA(MatSetSizes(A, PETSC_DECIDE, PETSC_DECIDE, rows, rows, ierr))
  PetscCallA(MatSetFromOptions(A, ierr))
  PetscCallA(MatSetUp(A, ierr))
  PetscCallA(MatGetOwnershipRange(A, first, last, ierr))
  PetscCallA(MatCreateVecs(A, x, b, ierr))
  PetscCallA(VecDuplicate(x, exact, ierr))
  do row = first, last - 1
    i = mod(row, n)
    j = row / n
    ! negative columns are left out
    col = [row, merge(row - 1, none, i > 0), merge(row + 1, none, i < n - 1), &
           merge(row - n, none, j > 0), merge(row + n, none, j < n - 1)]
    v = [4, -1, -1, -1, -1]
    PetscCallA(MatSetValues(A, one, [row], 5 * one, col, v, INSERT_VALUES, ierr))
    p = (i + 1) * h
    q = (j + 1) * h
    PetscCallA(VecSetValue(exact, row, p * (1 - p) * q * (1 - q), INSERT_VALUES, ierr))
    PetscCallA(VecSetValue(b, row, 2 * h * h * (p * (1 - p) + q * (1 - q)), INSERT_VALUES, ierr))
  end do
  PetscCallA(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY, ierr))
  PetscCallA(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY, ierr))
  PetscCallA(KSPCreate(PETSC_COMM_WORLD, solver, ierr))
  PetscCallA(KSPSetOperators(solver, A, A, ierr))
  PetscCallA(KSPSetFromOptions(solver, ierr)) ! the tolerance is set by -ksp_rtol 1e-8
  PetscCallA(KSPSolve(solver, b, x, ierr))
  PetscCallA(KSPGetIterationNumber(solver, its, ierr))
  PetscCallA(VecAXPY(x, minus, exact, ierr))
  PetscCallA(VecNorm(x, NORM_INFINITY, error, ierr))
  if (first == 0) print '(a, i0, a, es7.1, a)', merge('right: ', 'WRONG: ', error < 1e-5), its, &
    ' iterations, ', error, ' from the exact answer'
  PetscCallA(KSPDestroy(solver, ierr)) ! before PETSc ends
  PetscCallA(PetscFinalize(ierr))
end program poisson
