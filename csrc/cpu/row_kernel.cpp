// Row kernels: dot products and weighted sums of rows, accumulated in float (double for double).
//
// Bytes per output row of a sum: (terms + 1) * width * element size; the accumulator stays in the first-level
// cache up to a width of about 8000 floats. The loops of the sums are plain so that the compiler vectorises
// them for the instruction set of this translation unit (GOAL_KERNELS_ROW_TABLE names its table).
#include "row_kernel.h"

#include "wide_lanes.h"

namespace goal_kernels {
namespace {

// Independent chains of a dot product, added pairwise at the end: it rounds as about D / 64 additions.
constexpr int kChains = 64;

// body(Element{}) for the element type behind `dtype` when accumulating in T.
template <typename T, typename Body>
inline auto with_element(Dtype dtype, const Body& body) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return body(double{});
  } else {
    if (dtype == Dtype::float32) return body(float{});
    if (dtype == Dtype::bfloat16) return body(bfloat16{});
    return body(float16{});
  }
}

template <typename Element>
inline const Element* row_of(const Matrix& matrix, std::int64_t row) {
  return static_cast<const Element*>(matrix.data) + row * matrix.stride;
}

template <typename T>
inline T scale_of(const Matrix& matrix, std::int64_t row) {
  return matrix.scale == nullptr ? T(1) : static_cast<const T*>(matrix.scale)[row];
}

template <typename T, typename Element>
T dot_as(const Element* left, T left_scale, const Element* right, T right_scale, std::int64_t width) {
  constexpr int kCount = Lanes<T>::count, kVectors = kChains / kCount;
  Vec<T> sum[kVectors] = {};
  // Each factor is scaled, not their product, which may overflow where normalised rows do not.
  const auto add_chunk = [&](const Element* a, const Element* b) {
#pragma GCC unroll 32
    for (int v = 0; v < kVectors; ++v)
      sum[v] += (load_wide<T>(a + v * kCount) * left_scale) * (load_wide<T>(b + v * kCount) * right_scale);
  };
  const std::int64_t whole = width / kChains * kChains;
  for (std::int64_t d = 0; d < whole; d += kChains) add_chunk(left + d, right + d);
  if (whole < width) {
    const std::size_t bytes = static_cast<std::size_t>(width - whole) * sizeof(Element);
    Element rest[2][kChains] = {};
    std::memcpy(rest[0], left + whole, bytes);
    std::memcpy(rest[1], right + whole, bytes);
    add_chunk(rest[0], rest[1]);
  }
#pragma GCC unroll 8
  for (int half = kVectors / 2; half > 0; half /= 2)
#pragma GCC unroll 32
    for (int v = 0; v < half; ++v) sum[v] += sum[v + half];
  return add_lanes<T>(sum[0]);
}

template <typename T>
T dot(const Matrix& a, std::int64_t i, const Matrix& b, std::int64_t j) {
  return with_element<T>(a.dtype, [&](auto element) {
    using Element = decltype(element);
    return dot_as<T>(row_of<Element>(a, i), scale_of<T>(a, i), row_of<Element>(b, j),
                     scale_of<T>(b, j), a.width);
  });
}

template <typename T, typename Source>
void sum_from(const Matrix& source, const Term<T>* terms, std::int64_t count,
              T* __restrict__ accumulator) {
  for (std::int64_t d = 0; d < source.width; ++d) accumulator[d] = T(0);
  for (std::int64_t t = 0; t < count; ++t) {
    const Source* row = row_of<Source>(source, terms[t].source);
    const T weight = terms[t].weight;
    for (std::int64_t d = 0; d < source.width; ++d) accumulator[d] += weight * widen(row[d]);
  }
}

template <typename T>
void sum_terms(const Matrix& source, const Term<T>* terms, std::int64_t count, T* accumulator) {
  with_element<T>(source.dtype, [&](auto element) {
    sum_from<T, decltype(element)>(source, terms, count, accumulator);
  });
}

template <typename T>
void add(const T* __restrict__ addend, std::int64_t width, T* __restrict__ accumulator) {
  for (std::int64_t d = 0; d < width; ++d) accumulator[d] += addend[d];
}

template <typename T, typename Element>
void store_as(const T* __restrict__ accumulator, T scale, std::int64_t width, void* out) {
  Element* __restrict__ row = static_cast<Element*>(out);
  for (std::int64_t d = 0; d < width; ++d) narrow(scale * accumulator[d], row[d]);
}

template <typename T>
void store_row(const T* accumulator, T scale, std::int64_t width, Dtype dtype, void* out) {
  with_element<T>(dtype, [&](auto element) {
    store_as<T, decltype(element)>(accumulator, scale, width, out);
  });
}

template <typename T>
constexpr RowKernel<T> kTable{dot<T>, sum_terms<T>, add<T>, store_row<T>};

}  // namespace

extern constexpr RowKernels GOAL_KERNELS_ROW_TABLE{kTable<float>, kTable<double>};

}  // namespace goal_kernels
