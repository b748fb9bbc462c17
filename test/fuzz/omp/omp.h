// What the sources ask of OpenMP. The fuzzers' clang has no header of its own and does not
// read g++'s; the functions come from libgomp, and the pragmas do nothing: one thread.
#pragma once

extern "C" {
int omp_get_max_threads(void);
int omp_get_num_threads(void);
int omp_get_thread_num(void);
int omp_in_parallel(void);
void omp_set_num_threads(int);
}
