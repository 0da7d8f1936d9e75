// Elements of embeddings: packs of neighbours loaded, widened to float, rounded and stored by every lane.
#pragma once

#include "cpu/types.h"
#include "cuda/warp.h"
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace goal_kernels::cuda {

// [rows, width] on the device of the stream, elements of a row adjacent.
struct Rows {
  const void* data;
  std::int64_t count;
  std::int64_t stride;  // elements
};

#if defined(__CUDACC__)
GOAL_KERNELS_WARP float to_float(float value) { return value; }
GOAL_KERNELS_WARP float to_float(bfloat16 value) {
  return __uint_as_float(static_cast<std::uint32_t>(value.bits) << 16);
}
GOAL_KERNELS_WARP float to_float(float16 value) { return __half2float(__ushort_as_half(value.bits)); }
// To nearest, ties to even.
GOAL_KERNELS_WARP void round_to(float value, float& out) { out = value; }
GOAL_KERNELS_WARP void round_to(float value, bfloat16& out) {
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
GOAL_KERNELS_WARP void round_to(float value, float16& out) {
  out.bits = __half_as_ushort(__float2half_rn(value));
}
// As float, rounded to what an Element can hold.
template <typename Element>
GOAL_KERNELS_WARP float rounded(float value) {
  Element element;
  round_to(value, element);
  return to_float(element);
}
#else
template <typename Element>
float to_float(Element value) {
  return widen(value);
}
template <typename Element>
void round_to(float value, Element& out) {
  narrow(value, out);
}
template <typename Element>
Lanes<float> rounded(const Lanes<float>& values) {
  return each_lane<float>(values, [](float value) {
    Element element;
    round_to(value, element);
    return to_float(element);
  });
}
#endif

constexpr int kPackBytes = 16;

// kPack neighbours per lane, aligned to their size, in one memory access of at most 16 bytes.
template <typename Warp, typename Element, int kPack>
struct Packs {
  template <typename T>
  using Value = typename Warp::template Value<T>;
  static constexpr int kSpan = kWarpLanes * kPack;  // elements that a warp holds in one pack per lane

  struct alignas(kPack * sizeof(Element)) Stored {
    Element element[kPack];
  };

  // First element of each lane's pack, counted from the first of the warp.
  static GOAL_KERNELS_WARP Value<int> first_column() { return Warp::lane() * kPack; }

#if defined(__CUDACC__)
  // base[offset + c], zero outside the mask.
  static GOAL_KERNELS_WARP void load(const Element* base, std::int64_t offset, bool mask, float (&out)[kPack]) {
    Stored stored;
    if constexpr (sizeof(Stored) == kPackBytes) {
      uint4 words{0, 0, 0, 0};
      if (mask) words = __ldg(reinterpret_cast<const uint4*>(base + offset));
      memcpy(&stored, &words, sizeof stored);
    } else {
      stored = mask ? *reinterpret_cast<const Stored*>(base + offset) : Stored{};
    }
    GOAL_KERNELS_UNROLL
    for (int c = 0; c < kPack; ++c) out[c] = to_float(stored.element[c]);
  }
  static GOAL_KERNELS_WARP void store(Element* base, std::int64_t offset, bool mask, const float (&in)[kPack]) {
    Stored stored;
    GOAL_KERNELS_UNROLL
    for (int c = 0; c < kPack; ++c) round_to(in[c], stored.element[c]);
    if (mask) *reinterpret_cast<Stored*>(base + offset) = stored;
  }
#else
  static void load(const Element* base, const Value<std::int64_t>& offset, const Value<bool>& mask,
                   Value<float> (&out)[kPack]) {
    for (int lane = 0; lane < kWarpLanes; ++lane)
      for (int c = 0; c < kPack; ++c)
        out[c][lane] = mask[lane] ? to_float(base[offset[lane] + c]) : 0.0f;
  }
  static void store(Element* base, const Value<std::int64_t>& offset, const Value<bool>& mask,
                    const Value<float> (&in)[kPack]) {
    for (int lane = 0; lane < kWarpLanes; ++lane)
      for (int c = 0; c < kPack; ++c)
        if (mask[lane]) round_to(in[c][lane], base[offset[lane] + c]);
  }
#endif
};

template <typename Element>
constexpr int kWholePack = kPackBytes / static_cast<int>(sizeof(Element));

}  // namespace goal_kernels::cuda
