// The elements of S = rows . columns^T that reach the bound of their row or of their column.
#pragma once

#include <cstdint>

#include "isa.h"

namespace goal_kernels {

// Values are double for double matrices, else float.
struct AboveJob {
  Matrix rows;                      // [R, D], no scales
  Matrix columns;                   // [N, D], same dtype and width
  const std::int64_t* target;       // [R], column that is none of the row's elements; outside [0, N): all are
  const std::int64_t* row_ids;      // [R], or both null; elements of equal ids are left out
  const std::int64_t* column_ids;   // [N]
  const void* row_bound;            // [R]
  const void* column_bound;         // [N]
  bool exact;                       // all values are; else those that are surely above may be of rounded rows
  std::int64_t room;                // how many elements the output can take
  std::int64_t* row;                // out [room], ascending
  std::int64_t* column;             // out [room], ascending within a row
  void* value;                      // out [room]
};

// The number of elements, or -1 where there may be no room for them: then the output means nothing. NaN reaches every
// bound. As float decides (double for double matrices), also where a product of rounded values chose candidates.
// Throws std::invalid_argument for sizes it cannot take, std::bad_alloc. Bit-equal for any `threads`.
std::int64_t above(const AboveJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
