// The one place that starts threads.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace goal_kernels {

// Below this many multiply-adds a parallel region (1 to 5 us) costs more than it saves.
constexpr double kSerialWork = 1 << 20;

inline int worker_count(double work, int threads) {
  return work < kSerialWork ? 1 : std::max(1, threads);
}

// Calls body(item, worker) for every item in [0, count), worker in [0, workers). Items must be independent:
// which worker takes which is left open. One worker, or a call from inside a parallel region, starts no
// region, which also keeps forked children clear of the parent's thread pool. The body must not throw.
template <typename Body>
void parallel_for(std::int64_t count, int workers, const Body& body) {
#ifdef _OPENMP
  const int team = static_cast<int>(std::min<std::int64_t>(workers, count));
  if (team > 1 && !omp_in_parallel()) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
    for (std::int64_t item = 0; item < count; ++item) body(item, omp_get_thread_num());
    return;
  }
#else
  static_cast<void>(workers);
#endif
  for (std::int64_t item = 0; item < count; ++item) body(item, 0);
}

// Calls body(i) for every i in [0, count), `work` multiply-adds in all. As parallel_for otherwise.
template <typename Body>
void parallel_rows(std::int64_t count, double work, int threads, const Body& body) {
  constexpr std::int64_t run = 32;
  parallel_for((count + run - 1) / run, worker_count(work, threads), [&](std::int64_t item, int) {
    const std::int64_t end = std::min((item + 1) * run, count);
    for (std::int64_t i = item * run; i < end; ++i) body(i);
  });
}

}  // namespace goal_kernels
