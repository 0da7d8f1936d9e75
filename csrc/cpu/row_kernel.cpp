// Row kernels: dot products and weighted sums of rows, accumulated in float (double for double).
//
// Bytes per output row of a sum: (terms + 1) * width * element size, one more row when projected. A sum of more
// than kFewTerms terms goes through an accumulator that stays in the first-level cache up to a width of about
// 8000 floats. GOAL_KERNELS_ROW_TABLE names the table of the instruction set that this is compiled for.
#include "row_kernel.h"

#include "wide_lanes.h"

namespace goal_kernels {
namespace {

// Independent chains of a dot product, added pairwise at the end: it rounds as about D / 64 additions.
constexpr int kChains = 64;

template <typename Element>
inline const Element* row_of(const Matrix& matrix, std::int64_t row) {
  return static_cast<const Element*>(matrix.data) + row * matrix.stride;
}

template <typename T>
inline T scale_of(const Matrix& matrix, std::int64_t row) {
  return matrix.scale == nullptr ? T(1) : static_cast<const T*>(matrix.scale)[row];
}

template <typename T, typename Left, typename Right>
T dot_as(const Left* left, T left_scale, const Right* right, T right_scale, std::int64_t width) {
  constexpr int kCount = Lanes<T>::count, kVectors = kChains / kCount;
  Vec<T> sum[kVectors] = {};
  // Each factor is scaled, not their product, which may overflow where normalised rows do not.
  const auto add_chunk = [&](const Left* a, const Right* b) {
#pragma GCC unroll 32
    for (int v = 0; v < kVectors; ++v)
      sum[v] += (load_wide(a + v * kCount, Vec<T>{}) * left_scale) *
                (load_wide(b + v * kCount, Vec<T>{}) * right_scale);
  };
  const std::int64_t whole = width / kChains * kChains, rest = width - whole;
  for (std::int64_t d = 0; d < whole; d += kChains) add_chunk(left + d, right + d);
  if (rest > 0) {
    Left left_rest[kChains] = {};
    Right right_rest[kChains] = {};
    std::memcpy(left_rest, left + whole, static_cast<std::size_t>(rest) * sizeof(Left));
    std::memcpy(right_rest, right + whole, static_cast<std::size_t>(rest) * sizeof(Right));
    add_chunk(left_rest, right_rest);
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

// out = factor * the sum of kTerms terms, which begins with `from` unless that is null.
template <int kTerms, typename T, typename Source, typename Element>
void sum_few(const Matrix& source, const Term<T>* terms, const T* from, T factor, Element* out) {
  const Source* rows[kTerms > 0 ? kTerms : 1];
  T weights[kTerms > 0 ? kTerms : 1];
  for (int t = 0; t < kTerms; ++t) {
    rows[t] = row_of<Source>(source, terms[t].source);
    weights[t] = terms[t].weight;
  }
  const auto add_terms = [&](std::int64_t d, auto sum) {
#pragma GCC unroll 4
    for (int t = 0; t < kTerms; ++t) sum += weights[t] * load_wide(rows[t] + d, sum);
    return factor * sum;
  };
  if (from == nullptr)
    write_row<T>(source.width, out, [&](std::int64_t d, auto zero) { return add_terms(d, zero); });
  else
    write_row<T>(source.width, out,
                 [&](std::int64_t d, auto lane) { return add_terms(d, load_wide(from + d, lane)); });
}

template <typename T, typename Source, typename Element>
void sum_some(const Matrix& source, const Term<T>* terms, std::int64_t count, const T* from, T factor,
              Element* out) {
  static_assert(kFewTerms == 4, "one case for each number of terms");
  switch (count) {
    case 0:
      return sum_few<0, T, Source>(source, terms, from, factor, out);
    case 1:
      return sum_few<1, T, Source>(source, terms, from, factor, out);
    case 2:
      return sum_few<2, T, Source>(source, terms, from, factor, out);
    case 3:
      return sum_few<3, T, Source>(source, terms, from, factor, out);
    default:
      return sum_few<4, T, Source>(source, terms, from, factor, out);
  }
}

template <typename T>
void sum_terms(const Matrix& source, const Term<T>* terms, std::int64_t count, T* sum) {
  with_element<T>(source.dtype, [&](auto element) {
    const T* from = nullptr;
    std::int64_t done = 0;
    do {
      const std::int64_t some = count - done < kFewTerms ? count - done : kFewTerms;
      sum_some<T, decltype(element)>(source, terms + done, some, from, T(1), sum);
      from = sum;
      done += some;
    } while (done < count);
  });
}

template <typename T>
void gather(const Matrix& source, const Term<T>* terms, std::int64_t count, T factor, void* out) {
  with_element<T>(source.dtype, [&](auto element) {
    using Element = decltype(element);
    sum_some<T, Element>(source, terms, count, nullptr, factor, static_cast<Element*>(out));
  });
}

template <typename T>
void pack_slice(const Matrix& source, std::int64_t row, std::int64_t rows, std::int64_t first, T* packed) {
  constexpr int kCount = Lanes<T>::count;
  const std::int64_t width = source.width - first < kSlice<T> ? source.width - first : kSlice<T>;
  with_element<T>(source.dtype, [&](auto element) {
    using Element = decltype(element);
    for (std::int64_t r = 0; r < rows; ++r, packed += kSlice<T>) {
      const Element* from = row_of<Element>(source, row + r) + first;
      // Hardware does not foresee short pieces of rows that lie far apart.
      const Element* ahead = row_of<Element>(source, row + (r + kRowsAhead < rows ? r + kRowsAhead : rows - 1)) + first;
      for (std::int64_t d = 0; d < width; d += 64 / static_cast<std::int64_t>(sizeof(Element)))
        __builtin_prefetch(ahead + d);
      Element rest[kSlice<T>] = {};
      if (width < kSlice<T>) {
        std::memcpy(rest, from, static_cast<std::size_t>(width) * sizeof(Element));
        from = rest;
      }
#pragma GCC unroll 16
      for (std::int64_t d = 0; d < kSlice<T>; d += kCount) store(packed + d, load_wide(from + d, Vec<T>{}));
    }
  });
}

// A sum of this many terms is finished before it is added to the sum of all: less rounding in long ones.
constexpr std::int64_t kSliceRun = 256;

template <typename T>
void add_slice(const T* packed, const SliceTerm<T>* terms, std::int64_t count, T* sum, std::int64_t width) {
  constexpr int kCount = Lanes<T>::count, kVectors = kSlice<T> / kCount;
  Vec<T> total[kVectors] = {};
  for (const SliceTerm<T>* const end = terms + count; terms < end;) {
    const SliceTerm<T>* const stop = end - terms > kSliceRun ? terms + kSliceRun : end;
    Vec<T> part[kVectors] = {};
    for (; terms < stop; ++terms) {
      const T* const row = packed + terms->source * kSlice<T>;
      const Vec<T> weight = splat<T>(terms->weight);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) part[v] += weight * load<Vec<T>>(row + v * kCount);
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) total[v] += part[v];
  }
  T slice[kSlice<T>];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) store(slice + v * kCount, total[v]);
  for (std::int64_t d = 0; d < width; ++d) sum[d] += slice[d];
}

template <typename T>
void add(const T* addend, std::int64_t width, T* sum) {
  write_row<T>(width, sum, [&](std::int64_t d, auto lane) {
    return load_wide(sum + d, lane) + load_wide(addend + d, lane);
  });
}

template <typename T>
void store_sum(const T* sum, T factor, std::int64_t width, Dtype dtype, void* out) {
  with_element<T>(dtype, [&](auto element) {
    write_row<T>(width, static_cast<decltype(element)*>(out), [&](std::int64_t d, auto lane) {
      return factor * load_wide(sum + d, lane);
    });
  });
}

template <typename T>
void store_projected(const T* sum, T factor, const Matrix& own, std::int64_t row, void* out) {
  const T scale = scale_of<T>(own, row);
  with_element<T>(own.dtype, [&](auto element) {
    using Element = decltype(element);
    if (scale >= T(1 / kShortestLength))
      return sum_few<0, T, Element>(own, nullptr, nullptr, T(1), static_cast<Element*>(out));
    const Element* raw = row_of<Element>(own, row);
    const T along = dot_as<T>(sum, T(1), raw, scale, own.width) * scale;
    const T outer = factor * scale;
    write_row<T>(own.width, static_cast<Element*>(out), [&](std::int64_t d, auto lane) {
      return outer * (load_wide(sum + d, lane) - along * load_wide(raw + d, lane));
    });
  });
}

RoundingLoss rounding_loss(const Matrix& matrix, std::int64_t row) {
  constexpr int kCount = Lanes<float>::count, kVectors = kChains / kCount;
  const float scale = scale_of<float>(matrix, row);
  Vec<float> length[kVectors] = {}, loss[kVectors] = {};
  with_element<float>(matrix.dtype, [&](auto element) {
    using Element = decltype(element);
    const auto add_chunk = [&](const Element* source) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const Vec<float> value = load_wide(source + v * kCount, Vec<float>{}) * scale;
        const Vec<float> lost = value - round_to_bfloat16(value);
        length[v] += value * value;
        loss[v] += lost * lost;
      }
    };
    const Element* source = row_of<Element>(matrix, row);
    const std::int64_t whole = matrix.width / kChains * kChains, rest = matrix.width - whole;
    for (std::int64_t d = 0; d < whole; d += kChains) add_chunk(source + d);
    Element end[kChains] = {};
    std::memcpy(end, source + whole, static_cast<std::size_t>(rest) * sizeof(Element));
    add_chunk(end);
  });
#pragma GCC unroll 16
  for (int v = 1; v < kVectors; ++v) {
    length[0] += length[v];
    loss[0] += loss[v];
  }
  return {add_lanes<float>(length[0]), add_lanes<float>(loss[0])};
}

// log(1 + u) = 2 artanh(t) with t = u / (2 + u) <= 1/3: terms of its series in t^2.
template <typename T>
constexpr int kLogTerms = sizeof(T) == sizeof(float) ? 7 : 16;  // the next one is below 2^-26, 2^-55 of the sum

// A vector of values in place; returns log(1 + exp z) of each.
template <typename T>
inline Vec<T> logistic_lanes(T* values) {
  const Vec<T> z = load<Vec<T>>(values), zero = {};
  const Mask<T> above = less(zero, z);
  const Vec<T> u = exp_flushed<T>(select(above, -z, z));
  const Vec<T> inverse = T(1) / ((T(1) + u) * (T(2) + u));  // of both, since division is slow
  const Vec<T> share = inverse * (T(2) + u), t = u * (inverse * (T(1) + u)), square = t * t;
  Vec<T> series = splat<T>(T(2) / T(2 * kLogTerms<T> - 1));
#pragma GCC unroll 16
  for (int k = kLogTerms<T> - 2; k >= 0; --k) series = series * square + T(2) / T(2 * k + 1);
  store(values, select(above, share, u * share));
  return select(above, z, zero) + t * series;
}

template <typename T>
double logistic(T* values, std::int64_t count) {
  constexpr int kCount = Lanes<T>::count;
  constexpr std::int64_t kRun = 64 * kCount;  // values that are summed in T
  double total = 0;
  std::int64_t done = 0;
  while (done + kCount <= count) {
    const std::int64_t end = done + kRun < count ? done + kRun : count;
    Vec<T> sum = {};
    for (; done + kCount <= end; done += kCount) sum += logistic_lanes<T>(values + done);
    total += double(add_lanes<T>(sum));
  }
  for (; done < count; ++done) {
    T few[kCount] = {values[done]};
    total += double(logistic_lanes<T>(few)[0]);
    values[done] = few[0];
  }
  return total;
}

template <typename T>
constexpr RowKernel<T> kTable{dot<T>, sum_terms<T>, gather<T>, pack_slice<T>, add_slice<T>, add<T>, store_sum<T>,
                           store_projected<T>, logistic<T>};

}  // namespace

extern constexpr RowKernels GOAL_KERNELS_ROW_TABLE{kTable<float>, kTable<double>, rounding_loss};

}  // namespace goal_kernels
