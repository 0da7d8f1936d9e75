// What is multiplied in the place of rows: padded copies of 16-bit rows, and float32 rows as two bfloat16 parts.
#pragma once

#include "cuda/element.h"

namespace goal_kernels::cuda {

template <typename Element>
struct OperandElement {
  using type = Element;
};
template <>
struct OperandElement<float> {
  using type = bfloat16;
};

// x [width] times `scale` -> out [operand_width], padded with zeros; with `split` what rounding left follows as
// out [operand_width, 2 operand_width). By one warp.
template <typename Warp, typename Element, int kPack>
GOAL_KERNELS_WARP void write_operand(const Element* x, int width, float scale, bool split,
                                     typename OperandElement<Element>::type* out, int operand_width) {
  using Operand = typename OperandElement<Element>::type;
  using Pack = Packs<Warp, Element, kPack>;
  using OperandPack = Packs<Warp, Operand, kPack>;
  using Float = typename Warp::template Value<float>;
  for (int start = 0; start < operand_width; start += Pack::kSpan) {
    const auto column = Pack::first_column() + start;
    const auto offset = convert<std::int64_t>(column);
    const auto inside = column < operand_width;
    Float values[kPack], high[kPack];
    Pack::load(x, offset, column < width, values);
    GOAL_KERNELS_UNROLL
    for (int c = 0; c < kPack; ++c) {
      values[c] = values[c] * scale;
      high[c] = rounded<Operand>(values[c]);
    }
    OperandPack::store(out, offset, inside, high);
    if (!split) continue;
    GOAL_KERNELS_UNROLL
    for (int c = 0; c < kPack; ++c) values[c] = values[c] - high[c];
    OperandPack::store(out + operand_width, offset, inside, values);
  }
}

}  // namespace goal_kernels::cuda
