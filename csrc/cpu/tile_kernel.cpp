// Mining micro-kernels: one micro-tile of S = rows . columns, reduced at once in both directions.
//
// In:  packed rows [depth][kMicroRows] and columns [depth][micro columns], float or double.
// Out: row and column states (tile_kernel.h). S lives in one tile on the stack (at most 3.5 KiB).
// Cost per tile: 2 * kMicroRows * columns * depth FLOPs; about 60 vector operations to find out that nothing
// improved; two exponentials per element at or above the threshold.
// Order: rows ascend for a column, columns ascend for a row, so a strict comparison keeps the lowest index.
//
// Compiled once per instruction set with GOAL_KERNELS_{VECTOR_BYTES, MICRO_ROWS, TILE_TABLE}. Everything
// but the table has internal linkage, see types.h; for the same reason no std template is used here.
#include "tile_kernel.h"

#include "lanes.h"

namespace goal_kernels {
namespace {

constexpr int kMicroRows = GOAL_KERNELS_MICRO_ROWS;
constexpr int kVectors = 2;
// Longest chain of additions in the accumulate dtype; longer dot products add up sums of such blocks.
constexpr std::int64_t kDepthBlock = 256;
// Values converted per row before moving on to the next row of the group: one cache line of floats.
constexpr std::int64_t kPackRun = 16;

template <typename T>
constexpr int kMicroColumns = kVectors * Lanes<T>::count;

template <typename T, typename Source, int kGroup>
void pack_from(const Matrix& source, std::int64_t first, std::int64_t count, T* packed) {
  const Source* rows = static_cast<const Source*>(source.data) + first * source.stride;
  for (std::int64_t begin = 0; begin < source.width; begin += kPackRun) {
    const std::int64_t left = source.width - begin;
    const std::int64_t run = left < kPackRun ? left : kPackRun;
    T* block = packed + begin * kGroup;
    for (std::int64_t r = 0; r < count; ++r) {
      const Source* row = rows + r * source.stride + begin;
      for (std::int64_t k = 0; k < run; ++k) block[k * kGroup + r] = widen(row[k]);
    }
    for (std::int64_t k = 0; k < run; ++k)
      for (std::int64_t r = count; r < kGroup; ++r) block[k * kGroup + r] = T(0);
  }
}

template <int kGroup>
void pack(const Matrix& source, std::int64_t first, std::int64_t count, float* packed) {
  if (source.dtype == Dtype::float32)
    pack_from<float, float, kGroup>(source, first, count, packed);
  else if (source.dtype == Dtype::bfloat16)
    pack_from<float, bfloat16, kGroup>(source, first, count, packed);
  else
    pack_from<float, float16, kGroup>(source, first, count, packed);
}

template <int kGroup>
void pack(const Matrix& source, std::int64_t first, std::int64_t count, double* packed) {
  pack_from<double, double, kGroup>(source, first, count, packed);
}

// similarity [kMicroRows][micro columns], 64-byte aligned.
template <typename T>
void multiply(const Tile<T>& tile, T* similarity) {
  const T* left = tile.packed_rows;
  const T* right = tile.packed_columns;
  for (std::int64_t begin = 0; begin < tile.depth; begin += kDepthBlock) {
    const std::int64_t rest = tile.depth - begin;
    const std::int64_t length = rest < kDepthBlock ? rest : kDepthBlock;
    Vec<T> sum[kMicroRows][kVectors] = {};
    for (std::int64_t k = 0; k < length; ++k) {
      const Vec<T> column0 = load<Vec<T>>(right);
      const Vec<T> column1 = load<Vec<T>>(right + Lanes<T>::count);
#pragma GCC unroll 16
      for (int r = 0; r < kMicroRows; ++r) {
        sum[r][0] += left[r] * column0;
        sum[r][1] += left[r] * column1;
      }
      left += kMicroRows;
      right += kMicroColumns<T>;
    }
#pragma GCC unroll 32
    for (int part = 0; part < kMicroRows * kVectors; ++part) {
      T* out = similarity + part * Lanes<T>::count;
      const Vec<T> block = sum[part / kVectors][part % kVectors];
      store(out, begin == 0 ? block : load<Vec<T>>(out) + block);
    }
  }
}

// Whether the lanes of vector v of row r are allowed as negatives, as a mask. Unmasked tiles have no
// exclusions and no padding, so the test disappears.
template <bool kMasked, typename T>
inline IntVec<T> allowed(const Tile<T>& tile, int r, int v) {
  if constexpr (!kMasked) {
    return ~IntVec<T>{};
  } else {
    const IntVec<T> lane = lane_numbers<T>() + Integer<T>(v * Lanes<T>::count);
    const IntVec<T> id = load<IntVec<T>>(tile.column_id + v * Lanes<T>::count);
    const Integer<T> positive = tile.target[r] - tile.first_column;
    return (lane < Integer<T>(tile.columns)) & (lane != positive) & (id != tile.row_id[r]);
  }
}

template <bool kMasked, typename T>
inline bool is_allowed(const Tile<T>& tile, int r, int column) {
  if constexpr (!kMasked) {
    return true;
  } else {
    return tile.first_column + column != tile.target[r] && tile.column_id[column] != tile.row_id[r];
  }
}

// Looks for a new largest element in row r and makes the row's state relative to it.
template <Relative kKind, bool kMasked, typename T>
void improve_row(const Tile<T>& tile, int r, const T* line) {
  const T old_value = tile.row.value[r];
  const Integer<T> old_index = tile.row.index[r];
  T value = old_value;
  Integer<T> index = old_index;
  for (int column = 0; column < tile.columns; ++column) {
    const T s = line[column];
    const bool wins = s > value || index < 0 || (s != s && value == value);
    if (wins && is_allowed<kMasked>(tile, r, column)) {
      value = s;
      index = tile.first_column + column;
    }
  }
  if (index == old_index) return;
  tile.row.value[r] = value;
  tile.row.index[r] = index;
  if constexpr (kKind == Relative::linear) tile.row.ties[r] = 0;
  if constexpr (kKind == Relative::exponential) {
    if (old_index < 0) return;
    const Vec<T> exponent = splat<T>(tile.relative.beta * (old_value - value));
    const double joins = old_value >= tile.relative.threshold ? 1.0 : 0.0;
    tile.row.sum[r] = (tile.row.sum[r] + joins) * double(exp_nonpositive<T>(exponent)[0]);
  }
}

// Adds the elements of row r at or above the threshold to the row's sums.
template <Relative kKind, bool kMasked, typename T>
void add_row(const Tile<T>& tile, int r, const T* line) {
  const RelativeTerms<T>& relative = tile.relative;
  const Vec<T> value = splat<T>(tile.row.value[r]);
  const Integer<T> hardest = tile.row.index[r] - tile.first_column;
  Vec<T> sum = {};
  IntVec<T> count = {};
  IntVec<T> ties = {};
  for (int v = 0; v < kVectors; ++v) {
    const Vec<T> s = load<Vec<T>>(line + v * Lanes<T>::count);
    const IntVec<T> over = allowed<kMasked>(tile, r, v) & (IntVec<T>)(s >= relative.threshold);
    if (!any(over)) continue;
    count -= over;
    if constexpr (kKind == Relative::linear) {
      sum += over ? s - relative.offset : Vec<T>{};
      ties -= over & (IntVec<T>)(s == value);
    } else {
      const IntVec<T> lane = lane_numbers<T>() + Integer<T>(v * Lanes<T>::count);
      const Vec<T> weight = exp_nonpositive<T>(relative.beta * (s - value));
      sum += (over & (lane != hardest)) ? weight : Vec<T>{};
    }
  }
  if (!any((IntVec<T>)(count != 0))) return;
  tile.row.count[r] += add_lanes<T>(count);
  tile.row.sum[r] += double(add_lanes<T>(sum));
  if constexpr (kKind == Relative::linear) tile.row.ties[r] += add_lanes<T>(ties);
}

template <Relative kKind, bool kMasked, typename T>
void reduce_rows(const Tile<T>& tile, const T* similarity) {
  for (int r = 0; r < tile.rows; ++r) {
    const T* line = similarity + r * kMicroColumns<T>;
    const Vec<T> value = splat<T>(tile.row.value[r]);
    IntVec<T> hit = {};
    for (int v = 0; v < kVectors; ++v) {
      const Vec<T> s = load<Vec<T>>(line + v * Lanes<T>::count);
      hit |= allowed<kMasked>(tile, r, v) & ~(IntVec<T>)(s <= value);  // true for NaN
    }
    if (tile.row.index[r] < 0 || any(hit)) improve_row<kKind, kMasked>(tile, r, line);
    if constexpr (kKind != Relative::none) add_row<kKind, kMasked>(tile, r, line);
  }
}

// Makes the sums of one vector of columns relative to their new largest elements.
template <Relative kKind, typename T>
void rebase_columns(const Tile<T>& tile, int first, Vec<T> value, IntVec<T> index) {
  const IntVec<T> old_index = load<IntVec<T>>(tile.column.index + first);
  const IntVec<T> changed = (IntVec<T>)(index != old_index);
  if constexpr (kKind == Relative::linear) {
    const IntVec<T> ties = load<IntVec<T>>(tile.column.ties + first);
    store(tile.column.ties + first, ties & ~changed);
  } else {
    const Vec<T> old_value = load<Vec<T>>(tile.column.value + first);
    const IntVec<T> replaced = changed & (IntVec<T>)(old_index >= 0);
    const IntVec<T> joins = replaced & (IntVec<T>)(old_value >= tile.relative.threshold);
    const Vec<T> shrink = exp_nonpositive<T>(tile.relative.beta * (old_value - value));
    const Vec<T> factor = replaced ? shrink : splat<T>(1);
    double* sum = tile.column.sum + first;
    for (int lane = 0; lane < Lanes<T>::count; ++lane)
      sum[lane] = (sum[lane] - double(joins[lane])) * double(factor[lane]);
  }
}

// Looks for new largest elements in one vector of columns.
template <Relative kKind, bool kMasked, typename T>
void improve_columns(const Tile<T>& tile, int v, const T* similarity) {
  const int first = v * Lanes<T>::count;
  Vec<T> value = load<Vec<T>>(tile.column.value + first);
  IntVec<T> index = load<IntVec<T>>(tile.column.index + first);
  for (int r = 0; r < tile.rows; ++r) {
    const Vec<T> s = load<Vec<T>>(similarity + r * kMicroColumns<T> + first);
    const IntVec<T> nan_wins = (IntVec<T>)(s != s) & (IntVec<T>)(value == value);
    const IntVec<T> wins = (IntVec<T>)(s > value) | (IntVec<T>)(index < 0) | nan_wins;
    const IntVec<T> take = wins & allowed<kMasked>(tile, r, v);
    value = take ? s : value;
    index = take ? splat_int<T>(tile.first_row + Integer<T>(r)) : index;
  }
  if constexpr (kKind != Relative::none) rebase_columns<kKind>(tile, first, value, index);
  store(tile.column.value + first, value);
  store(tile.column.index + first, index);
}

// Adds the elements of one vector of columns at or above the threshold to the columns' sums.
template <Relative kKind, bool kMasked, typename T>
void add_columns(const Tile<T>& tile, int v, const T* similarity) {
  const RelativeTerms<T>& relative = tile.relative;
  const int first = v * Lanes<T>::count;
  const Vec<T> value = load<Vec<T>>(tile.column.value + first);
  const IntVec<T> hardest = load<IntVec<T>>(tile.column.index + first) - tile.first_row;
  Vec<T> sum = {};
  IntVec<T> count = {};
  IntVec<T> ties = {};
  for (int r = 0; r < tile.rows; ++r) {
    const Vec<T> s = load<Vec<T>>(similarity + r * kMicroColumns<T> + first);
    const IntVec<T> over = allowed<kMasked>(tile, r, v) & (IntVec<T>)(s >= relative.threshold);
    if (!any(over)) continue;
    count -= over;
    if constexpr (kKind == Relative::linear) {
      sum += over ? s - relative.offset : Vec<T>{};
      ties -= over & (IntVec<T>)(s == value);
    } else {
      const Vec<T> weight = exp_nonpositive<T>(relative.beta * (s - value));
      sum += (over & (IntVec<T>)(hardest != Integer<T>(r))) ? weight : Vec<T>{};
    }
  }
  if (!any((IntVec<T>)(count != 0))) return;
  Integer<T>* total = tile.column.count + first;
  store(total, load<IntVec<T>>(total) + count);
  for (int lane = 0; lane < Lanes<T>::count; ++lane)
    tile.column.sum[first + lane] += double(sum[lane]);
  if constexpr (kKind == Relative::linear) {
    Integer<T>* equal = tile.column.ties + first;
    store(equal, load<IntVec<T>>(equal) + ties);
  }
}

template <Relative kKind, bool kMasked, typename T>
void reduce_columns(const Tile<T>& tile, const T* similarity) {
  for (int v = 0; v < kVectors; ++v) {
    const int first = v * Lanes<T>::count;
    const Vec<T> value = load<Vec<T>>(tile.column.value + first);
    IntVec<T> hit = (IntVec<T>)(load<IntVec<T>>(tile.column.index + first) < 0);
    for (int r = 0; r < tile.rows; ++r) {
      const Vec<T> s = load<Vec<T>>(similarity + r * kMicroColumns<T> + first);
      hit |= allowed<kMasked>(tile, r, v) & ~(IntVec<T>)(s <= value);  // true for NaN
    }
    if (any(hit)) improve_columns<kKind, kMasked>(tile, v, similarity);
    if constexpr (kKind != Relative::none) add_columns<kKind, kMasked>(tile, v, similarity);
  }
}

template <typename T>
bool has_exclusions(const Tile<T>& tile) {
  if (tile.has_ids || tile.columns < kMicroColumns<T>) return true;
  bool found = false;
  for (int r = 0; r < tile.rows; ++r) {
    const Integer<T> column = tile.target[r] - tile.first_column;
    found |= column >= 0 && column < kMicroColumns<T>;
  }
  return found;
}

template <Relative kKind, typename T>
void run(const Tile<T>& tile) {
  alignas(64) T similarity[kMicroRows * kMicroColumns<T>];
  multiply(tile, similarity);
  if (has_exclusions(tile)) {
    reduce_rows<kKind, true>(tile, similarity);
    reduce_columns<kKind, true>(tile, similarity);
  } else {
    reduce_rows<kKind, false>(tile, similarity);
    reduce_columns<kKind, false>(tile, similarity);
  }
}

// Whether a later candidate replaces an earlier one.
template <typename T>
inline bool later_wins(T earlier, Integer<T> earlier_index, T later, Integer<T> later_index) {
  if (later_index < 0) return false;
  return earlier_index < 0 || later > earlier || (later != later && earlier == earlier);
}

template <Relative kKind, typename T>
void merge(const Extrema<T>& into, const Extrema<T>& later, const RelativeTerms<T>& relative,
           std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const T value[2] = {into.value[i], later.value[i]};
    const Integer<T> index[2] = {into.index[i], later.index[i]};
    const int winner = later_wins(value[0], index[0], value[1], index[1]) ? 1 : 0;
    into.value[i] = value[winner];
    into.index[i] = index[winner];
    if constexpr (kKind == Relative::none) continue;
    into.count[i] += later.count[i];
    if constexpr (kKind == Relative::linear) {
      const Integer<T> ties[2] = {into.ties[i], later.ties[i]};
      into.ties[i] = value[0] == value[1] ? ties[0] + ties[1] : ties[winner];
      into.sum[i] += later.sum[i];
    } else if (index[1 - winner] >= 0) {
      const double sum[2] = {into.sum[i], later.sum[i]};
      const T loser = value[1 - winner];
      const double joins = loser >= relative.threshold ? 1.0 : 0.0;
      const Vec<T> shrink =
          exp_nonpositive<T>(splat<T>(relative.beta * (loser - value[winner])));
      into.sum[i] = sum[winner] + (sum[1 - winner] + joins) * double(shrink[0]);
    } else {
      into.sum[i] = winner == 1 ? later.sum[i] : into.sum[i];
    }
  }
}

template <typename T>
constexpr TileKernel<T> table() {
  return {kMicroRows,
          kMicroColumns<T>,
          pack<kMicroRows>,
          pack<kMicroColumns<T>>,
          {run<Relative::none, T>, run<Relative::linear, T>, run<Relative::exponential, T>},
          {merge<Relative::none, T>, merge<Relative::linear, T>, merge<Relative::exponential, T>}};
}

}  // namespace

extern constexpr TileKernels GOAL_KERNELS_TILE_TABLE{table<float>(), table<double>()};

}  // namespace goal_kernels
