! A host that calls PETSc as ground-water codes do (MODFLOW 6, in parallel mode): rows for active cells only, numbered
! in lexicographic order; KSPSetUp while the matrix is all zero; a block Jacobi preconditioner around one of its own; a
! convergence test of its own that remembers the last x; rows of +1 for given heads in a negative definite matrix;
! floating-point traps on; error codes looked at, options from the database only. Two models, one after the other.
!
!   -nx 14 -ny 12 -nz 5   cells of the first model; the second has two more along each axis
!   -holes                some cells are not active and have no row
!   -steps 3              time steps
!   -rhs_nan              the right-hand side of the last step has a NaN
!
! The heads are made up and the right-hand sides from them; each step prints how far its answer is from them.
module closure_module
#include <petsc/finclude/petscksp.h>
  use petscksp
  implicit none

  type closure
    Vec :: old, change
    PetscReal :: dvclose, rclose
    PetscInt :: asked
  end type closure

#if PETSC_VERSION_LT(3, 22, 0)
  interface
    subroutine KSPSetConvergenceTest(ksp, test, context, destroy, ierr)
      import :: tKSP, closure
      type(tKSP) :: ksp
      external :: test, destroy
      type(closure) :: context
      PetscErrorCode :: ierr
    end subroutine KSPSetConvergenceTest
  end interface
#endif

contains

  subroutine heads_have_settled(ksp, its, rnorm, reason, context, ierr)
    KSP :: ksp
    PetscInt :: its
    PetscReal :: rnorm, moved, of_residual
    KSPConvergedReason :: reason
    type(closure) :: context
    PetscErrorCode :: ierr
    Vec :: x, r

    call KSPBuildSolution(ksp, PETSC_NULL_VEC, x, ierr)
    CHKERRQ(ierr)
    call KSPBuildResidual(ksp, PETSC_NULL_VEC, PETSC_NULL_VEC, r, ierr)
    CHKERRQ(ierr)
    call VecNorm(r, NORM_INFINITY, of_residual, ierr)
    CHKERRQ(ierr)
    call VecDestroy(r, ierr)
    CHKERRQ(ierr)
    context%asked = context%asked + 1
    reason = KSP_CONVERGED_ITERATING
    if (its == 0) then
      if (rnorm < 1.0d-15) reason = KSP_CONVERGED_HAPPY_BREAKDOWN
    else
      call VecWAXPY(context%change, -1.0d0, context%old, x, ierr)
      CHKERRQ(ierr)
      call VecNorm(context%change, NORM_INFINITY, moved, ierr)
      CHKERRQ(ierr)
      if (moved <= context%dvclose .and. of_residual <= context%rclose) reason = KSP_CONVERGED_HAPPY_BREAKDOWN
      if (reason == KSP_CONVERGED_ITERATING .and. its >= 300) reason = KSP_DIVERGED_ITS
    end if
    call VecCopy(x, context%old, ierr)
    CHKERRQ(ierr)
  end subroutine heads_have_settled

  ! The program's own preconditioner.
  subroutine own_preconditioner(pc, r, z, ierr)
    PC :: pc
    Vec :: r, z
    PetscErrorCode :: ierr

    call VecCopy(r, z, ierr)
  end subroutine own_preconditioner

end module closure_module

program ground_water
#include <petsc/finclude/petscksp.h>
  use petscksp
  use ieee_exceptions
  use closure_module
  implicit none

  PetscErrorCode :: ierr
  PetscInt :: nx, ny, nz, steps
  PetscBool :: given, holes, rhs_nan
  PetscMPIInt :: rank, ranks

  call ieee_set_halting_mode(ieee_usual, .true.)
  call PetscInitialize(ierr)
  CHKERRA(ierr)
  call MPI_Comm_rank(PETSC_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(PETSC_COMM_WORLD, ranks, ierr)
  nx = 14; ny = 12; nz = 5; steps = 3
  call PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-nx', nx, given, ierr)
  call PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-ny', ny, given, ierr)
  call PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-nz', nz, given, ierr)
  call PetscOptionsGetInt(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-steps', steps, given, ierr)
  call PetscOptionsHasName(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-holes', holes, ierr)
  call PetscOptionsHasName(PETSC_NULL_OPTIONS, PETSC_NULL_CHARACTER, '-rhs_nan', rhs_nan, ierr)
  call run_model(1, nx, ny, nz)
  call run_model(2, nx + 2, ny + 2, nz + 2)
  call PetscFinalize(ierr)

contains

  logical function is_active(i, j, k)
    PetscInt, intent(in) :: i, j, k

    is_active = .not. holes .or. (mod(3*i + 5*j + 7*k, 11) /= 0 .and. (i - nx/2)**2 + (j - ny/2)**2 > 4)
  end function is_active

  ! Hydraulic conductivity: layers, and lenses in them.
  PetscReal function conductivity(i, j, k)
    PetscInt, intent(in) :: i, j, k

    conductivity = 10.0d0**(1.5d0*sin(2.1d0*k) - 3.0d0)*(1.0d0 + 0.9d0*sin(0.7d0*i)*cos(0.5d0*j))
  end function conductivity

  PetscReal function head(i, j, k, step)
    PetscInt, intent(in) :: i, j, k, step

    head = 30.0d0 + 4.0d0*cos(0.3d0*i + step)*sin(0.2d0*j + 0.4d0) + 0.5d0*k
  end function head

  subroutine run_model(number, mx, my, mz)
    integer, intent(in) :: number
    PetscInt, intent(in) :: mx, my, mz
    Mat :: A
    Vec :: x, b, exact, difference
    KSP :: ksp
    PC :: pc, sub_pc
#if PETSC_VERSION_LT(3, 22, 0)
#define NUMBER(enumerated) enumerated
    KSP :: sub_ksp(1)
#else
#define NUMBER(enumerated) enumerated%v
#define VecGetArrayF90 VecGetArray
#define VecRestoreArrayF90 VecRestoreArray
    KSP, pointer :: sub_ksp(:)
#endif
    type(closure) :: context
    KSPConvergedReason :: reason
    character(len=64) :: kind
    PetscInt :: n_local, n_first, its, most, row, first, last, total, entries, at_diagonal, step, i, j, k, f, ii, jj, kk
    PetscInt, allocatable :: row_of(:, :, :), cell(:, :), ia(:), ja(:)
    PetscScalar, allocatable :: values(:), still_zero(:)
    PetscScalar :: w, diagonal, storage
    PetscReal :: error, worst, size_of_heads
    logical :: fixed, halting
    integer, parameter :: to(3, 6) = reshape([0, 0, -1, 0, -1, 0, -1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], [3, 6])

    allocate (row_of(0:mx + 1, 0:my + 1, 0:mz + 1), cell(3, mx*my*mz))
    row_of = -1
    total = 0
    do k = 1, mz
      do j = 1, my
        do i = 1, mx
          if (.not. is_active(i, j, k)) cycle
          row_of(i, j, k) = total
          total = total + 1
          cell(:, total) = [i, j, k]
        end do
      end do
    end do
    first = int(total*rank/ranks)
    last = int(total*(rank + 1)/ranks)
    allocate (ia(last - first + 1), ja(7*(last - first)), values(7*(last - first)), still_zero(7*(last - first)))

    ! Row by row: conductances, storage; given heads where x is least.
    storage = 1.0d-5
    entries = 0
    ia(1) = 0
    do row = first, last - 1
      i = cell(1, row + 1); j = cell(2, row + 1); k = cell(3, row + 1)
      fixed = i == 1
      diagonal = 0
      do f = 1, 6
        if (f == 4) then
          entries = entries + 1 ! the diagonal, whose value comes last
          at_diagonal = entries
          ja(entries) = row
        end if
        ii = i + to(1, f); jj = j + to(2, f); kk = k + to(3, f)
        if (row_of(ii, jj, kk) < 0) cycle
        w = 2/(1/conductivity(i, j, k) + 1/conductivity(ii, jj, kk))
        if (to(3, f) /= 0) w = 25*w ! thin layers
        diagonal = diagonal - w
        entries = entries + 1
        ja(entries) = row_of(ii, jj, kk)
        values(entries) = merge(0.0d0, w, fixed)
      end do
      values(at_diagonal) = merge(1.0d0, diagonal - storage, fixed)
      ia(row - first + 2) = entries
    end do
    still_zero = 0

    call MatCreateMPIAIJWithArrays(PETSC_COMM_WORLD, last - first, last - first, total, total, ia, ja, still_zero, A, ierr)
    CHKERRQ(ierr)
    call MatCreateVecs(A, x, b, ierr)
    CHKERRQ(ierr)
    call VecDuplicate(x, exact, ierr)
    CHKERRQ(ierr)
    call VecDuplicate(x, difference, ierr)
    CHKERRQ(ierr)
    call VecDuplicate(x, context%old, ierr)
    CHKERRQ(ierr)
    call VecDuplicate(x, context%change, ierr)
    CHKERRQ(ierr)
    context%dvclose = 1.0d-8
    context%rclose = 1.0d-8
    context%asked = 0
    call KSPCreate(PETSC_COMM_WORLD, ksp, ierr)
    CHKERRQ(ierr)
    call KSPSetOperators(ksp, A, A, ierr)
    CHKERRQ(ierr)
    call KSPSetInitialGuessNonzero(ksp, PETSC_TRUE, ierr)
    CHKERRQ(ierr)
    call KSPSetType(ksp, KSPCG, ierr)
    CHKERRQ(ierr)
    call KSPGetPC(ksp, pc, ierr)
    CHKERRQ(ierr)
    call PCSetType(pc, PCBJACOBI, ierr)
    CHKERRQ(ierr)
    call PCSetUp(pc, ierr)
    CHKERRQ(ierr)
    call PCBJacobiGetSubKSP(pc, n_local, n_first, sub_ksp, ierr)
    CHKERRQ(ierr)
    call KSPGetPC(sub_ksp(1), sub_pc, ierr)
    CHKERRQ(ierr)
    call PCSetType(sub_pc, PCSHELL, ierr)
    CHKERRQ(ierr)
    call PCShellSetApply(sub_pc, own_preconditioner, ierr)
    CHKERRQ(ierr)
    call KSPSetErrorIfNotConverged(ksp, PETSC_FALSE, ierr)
    CHKERRQ(ierr)
    call KSPSetFromOptions(ksp, ierr)
    CHKERRQ(ierr)
    call KSPSetUp(ksp, ierr)
    CHKERRQ(ierr)
    call KSPSetConvergenceTest(ksp, heads_have_settled, context, PETSC_NULL_FUNCTION, ierr)
    CHKERRQ(ierr)

    worst = 0
    most = 0
    do step = 1, steps
      call MatUpdateMPIAIJWithArrays(A, last - first, last - first, total, total, ia, ja, values, ierr)
      CHKERRQ(ierr)
      do row = first, last - 1
        call VecSetValue(exact, row, head(cell(1, row + 1), cell(2, row + 1), cell(3, row + 1), step), INSERT_VALUES, ierr)
      end do
      call VecAssemblyBegin(exact, ierr)
      call VecAssemblyEnd(exact, ierr)
      call MatMult(A, exact, b, ierr)
      CHKERRQ(ierr)
      if (rhs_nan .and. step == steps .and. rank == 0) call spoil(b)
      call KSPSolve(ksp, b, x, ierr)
      CHKERRQ(ierr)
      call KSPGetConvergedReason(ksp, reason, ierr)
      CHKERRQ(ierr)
      call KSPGetIterationNumber(ksp, its, ierr)
      CHKERRQ(ierr)
      if (NUMBER(reason) <= 0) exit
      call VecWAXPY(difference, -1.0d0, exact, x, ierr)
      call VecNorm(difference, NORM_INFINITY, error, ierr)
      call VecNorm(exact, NORM_INFINITY, size_of_heads, ierr)
      worst = max(worst, error/size_of_heads)
      most = max(most, its)
    end do
    call KSPGetPC(ksp, pc, ierr)
    call PCGetType(pc, kind, ierr)
    call ieee_get_halting_mode(ieee_overflow, halting)
    if (rank == 0) print '(a, i0, a, i0, a, i0, a, i0, a, i0, a, es9.2, 4a)', 'model ', number, ': ', total, &
      ' rows, reason ', NUMBER(reason), ', at most ', most, ' iterations, asked ', context%asked, ' times, error ', worst, &
      ', pc ', trim(kind), ', traps ', merge('on ', 'off', halting)
    call KSPDestroy(ksp, ierr)
    call MatDestroy(A, ierr)
    call VecDestroy(x, ierr)
    call VecDestroy(b, ierr)
    call VecDestroy(exact, ierr)
    call VecDestroy(difference, ierr)
    call VecDestroy(context%old, ierr)
    call VecDestroy(context%change, ierr)
  end subroutine run_model

  subroutine spoil(b)
    use ieee_arithmetic
    Vec :: b
    PetscScalar, pointer :: own(:)

    call VecGetArrayF90(b, own, ierr)
    own(size(own)/2) = ieee_value(own(1), ieee_quiet_nan)
    call VecRestoreArrayF90(b, own, ierr)
  end subroutine spoil

end program ground_water
