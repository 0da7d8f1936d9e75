// Row kernels of `apply`: weighted sums of rows, accumulated in float (double for double), and rounded.
//
// Bytes per output row: (terms + 1) * width * element size; the accumulator stays in the first-level cache
// up to a width of about 8000 floats. The loops are plain so that the compiler vectorises them for
// the instruction set of this translation unit (GOAL_KERNELS_ROW_TABLE names its table).
#include "row_kernel.h"

namespace goal_kernels {
namespace {

template <typename T, typename Source>
void sum_from(const Matrix& source, const Term<T>* terms, std::int64_t count,
              T* __restrict__ accumulator) {
  for (std::int64_t d = 0; d < source.width; ++d) accumulator[d] = T(0);
  for (std::int64_t t = 0; t < count; ++t) {
    const Source* row = static_cast<const Source*>(source.data) + terms[t].source * source.stride;
    const T weight = terms[t].weight;
    for (std::int64_t d = 0; d < source.width; ++d) accumulator[d] += weight * widen(row[d]);
  }
}

void sum_terms(const Matrix& source, const Term<float>* terms, std::int64_t count,
               float* accumulator) {
  if (source.dtype == Dtype::float32)
    sum_from<float, float>(source, terms, count, accumulator);
  else if (source.dtype == Dtype::bfloat16)
    sum_from<float, bfloat16>(source, terms, count, accumulator);
  else
    sum_from<float, float16>(source, terms, count, accumulator);
}

void sum_terms(const Matrix& source, const Term<double>* terms, std::int64_t count,
               double* accumulator) {
  sum_from<double, double>(source, terms, count, accumulator);
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

void store(const float* accumulator, float scale, std::int64_t width, Dtype dtype, void* out) {
  if (dtype == Dtype::float32)
    store_as<float, float>(accumulator, scale, width, out);
  else if (dtype == Dtype::bfloat16)
    store_as<float, bfloat16>(accumulator, scale, width, out);
  else
    store_as<float, float16>(accumulator, scale, width, out);
}

void store(const double* accumulator, double scale, std::int64_t width, Dtype, void* out) {
  store_as<double, double>(accumulator, scale, width, out);
}

}  // namespace

extern constexpr RowKernels GOAL_KERNELS_ROW_TABLE{{sum_terms, add<float>, store},
                                                   {sum_terms, add<double>, store}};

}  // namespace goal_kernels
