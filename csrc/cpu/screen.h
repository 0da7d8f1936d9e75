// Exact mining of float32 embeddings at the speed of bfloat16 products.
//
// A product of rounded inputs decides which few elements can be the largest of a row or a column; those are
// computed again in float and decide. See docs/cpu.md, section 3 for the bound.
#pragma once

#include "isa.h"
#include "mine.h"

namespace goal_kernels {

// Whether the job's values and indices are written. Not so, or not to be relied on, when the job asks for
// sums, the instruction set has no bfloat16 product, the sizes are too small to gain, the numbers too large,
// too small or not finite for the bound, or too many elements are too close to the largest. Depends on
// the inputs alone; bit-equal for any `threads`.
bool screen(const MineJob& job, const Isa& isa, int threads);

}  // namespace goal_kernels
