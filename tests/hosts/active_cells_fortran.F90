! Poisson's equation on a disc of cells in an n x n grid: only the cells of the disc have rows. Which cell each row is
! can be told with the index set 'dcdm_cells' (-tell); otherwise it is found in the couplings.
program active_cells
#include <petsc/finclude/petscksp.h>
  use petscksp
  implicit none

  Mat :: A
  Vec :: x, b, r
  KSP :: solver
  IS :: cells
  KSPConvergedReason :: reason
  PetscErrorCode :: ierr
  PetscBool :: tell, given
  PetscInt :: n, rows, first, last, row, i, j, k, its
  PetscInt, parameter :: one = 1
  PetscInt, allocatable :: number(:, :), cell(:)
  PetscScalar :: diagonal
  PetscReal :: norm, norm_b
  PetscInt, parameter :: step(2, 4) = reshape([-1, 0, 1, 0, 0, -1, 0, 1], [2, 4])

  PetscCallA(PetscInitialize(ierr))
  n = 40
  tell = .false.
  PetscCallA(PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-n', n, given, ierr))
  PetscCallA(PetscOptionsGetBool(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-tell', tell, given, ierr))

  ! the row of each cell, and the cell of each row: both from 0 on, x fastest
  allocate (number(0:n - 1, 0:n - 1), cell(0:n * n - 1))
  rows = 0
  do j = 0, n - 1
    do i = 0, n - 1
      number(i, j) = -1
      if (is_active(i, j)) then
        number(i, j) = rows
        cell(rows) = j * n + i
        rows = rows + 1
      end if
    end do
  end do

  PetscCallA(MatCreate(PETSC_COMM_WORLD, A, ierr))
  PetscCallA(MatSetSizes(A, PETSC_DECIDE, PETSC_DECIDE, rows, rows, ierr))
  PetscCallA(MatSetFromOptions(A, ierr))
  PetscCallA(MatSetUp(A, ierr))
  PetscCallA(MatGetOwnershipRange(A, first, last, ierr))
  do row = first, last - 1
    i = mod(cell(row), n)
    j = cell(row) / n
    diagonal = 0
    do k = 1, 4
      if (is_active(i + step(1, k), j + step(2, k))) then
        diagonal = diagonal + 1
        PetscCallA(MatSetValue(A, row, number(i + step(1, k), j + step(2, k)), real(-1, kind(diagonal)), INSERT_VALUES, ierr))
      else ! a wall with a given value is half a cell away
        diagonal = diagonal + 2
      end if
    end do
    PetscCallA(MatSetValue(A, row, row, diagonal, INSERT_VALUES, ierr))
  end do
  PetscCallA(MatAssemblyBegin(A, MAT_FINAL_ASSEMBLY, ierr))
  PetscCallA(MatAssemblyEnd(A, MAT_FINAL_ASSEMBLY, ierr))

  if (tell) then ! the cells of the local rows; the matrix keeps the index set
    PetscCallA(ISCreateGeneral(PETSC_COMM_WORLD, last - first, cell(first:last - 1), PETSC_COPY_VALUES, cells, ierr))
    PetscCallA(PetscObjectCompose(A, 'dcdm_cells', cells, ierr))
    PetscCallA(ISDestroy(cells, ierr))
  end if

  PetscCallA(MatCreateVecs(A, x, b, ierr))
  PetscCallA(VecSet(b, real(one, kind(diagonal)), ierr))
  PetscCallA(KSPCreate(PETSC_COMM_WORLD, solver, ierr))
  PetscCallA(KSPSetOperators(solver, A, A, ierr))
  PetscCallA(KSPSetFromOptions(solver, ierr))
  PetscCallA(KSPSolve(solver, b, x, ierr))
  PetscCallA(KSPGetIterationNumber(solver, its, ierr))
  PetscCallA(KSPGetConvergedReason(solver, reason, ierr))
  PetscCallA(VecDuplicate(b, r, ierr))
  PetscCallA(MatMult(A, x, r, ierr))
  PetscCallA(VecAYPX(r, real(-1, kind(diagonal)), b, ierr))
  PetscCallA(VecNorm(r, NORM_2, norm, ierr))
  PetscCallA(VecNorm(b, NORM_2, norm_b, ierr))
  if (first == 0) print '(a, i0, a, i0, a, i0, a, es9.3)', 'rows ', rows, ' reason ', reason, ' iterations ', its, &
    ' residual ', norm / norm_b

  PetscCallA(KSPDestroy(solver, ierr))
  PetscCallA(VecDestroy(x, ierr))
  PetscCallA(VecDestroy(b, ierr))
  PetscCallA(VecDestroy(r, ierr))
  PetscCallA(MatDestroy(A, ierr))
  PetscCallA(PetscFinalize(ierr))

contains

  logical function is_active(i, j)
    PetscInt, intent(in) :: i, j
    real :: x, y

    x = i - 0.5 * (n - 1)
    y = j - 0.5 * (n - 1)
    is_active = i >= 0 .and. i < n .and. j >= 0 .and. j < n .and. x * x + y * y < 0.23 * n * n
  end function is_active

end program active_cells
