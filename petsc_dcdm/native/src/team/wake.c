/* Threads that are awake when work comes: to wake them takes longer than many a kernel. */

void dcdm_team_wake(int threads) {
#pragma omp parallel num_threads(threads)
    __asm__ volatile("");
}
