// The check of indices that a caller passes.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace goal_kernels {

// Throws std::invalid_argument for an index outside [lowest, limit). remedy: what to pass instead.
inline void check_range(const char* name, const std::int64_t* index, std::int64_t count, std::int64_t lowest,
                        std::int64_t limit, const char* remedy) {
  for (std::int64_t i = 0; i < count; ++i)
    if (index[i] < lowest || index[i] >= limit)
      throw std::invalid_argument(std::string(name) + ": expected indices in [" + std::to_string(lowest) + ", " +
                                  std::to_string(limit) + "), got " + std::to_string(index[i]) + " at position " +
                                  std::to_string(i) + "; " + remedy);
}

}  // namespace goal_kernels
