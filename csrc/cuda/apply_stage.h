// The work of `invert` and `gather` as templates over the warp policy.
#pragma once

#include "cuda/apply.h"
#include "cuda/warp.h"

namespace goal_kernels::cuda {

// A warp per entry and row of either list: positions by counting.
template <typename Warp>
struct Inverting {
  template <typename T>
  using Value = typename Warp::template Value<T>;

  static GOAL_KERNELS_BOTH std::int64_t numbers(const InverseList& list) {
    if (list.starts == nullptr) return 0;
    return list.entries > list.rows + 1 ? list.entries : list.rows + 1;
  }
  static GOAL_KERNELS_BOTH std::int64_t warps(const InvertArguments& a) {
    return numbers(a.lists[0]) + numbers(a.lists[1]);
  }
  static GOAL_KERNELS_WARP void run(const InvertArguments& a, std::int64_t warp) {
    const bool second = warp >= numbers(a.lists[0]);
    invert(a.lists[second ? 1 : 0], second ? warp - numbers(a.lists[0]) : warp);
  }

 private:
  static GOAL_KERNELS_WARP void invert(const InverseList& list, std::int64_t i) {
    const std::int64_t own = i < list.entries ? list.keys[i] : -1;
    const std::int64_t key = own >= 0 && own < list.rows ? own : list.rows;
    Value<int> before = 0, start = 0;
    for (std::int64_t base = 0; base < list.entries; base += kWarpLanes) {
      const Value<std::int64_t> k = convert<std::int64_t>(Warp::lane()) + base;
      const Value<std::int64_t> found = load(list.keys, k, k < list.entries, std::int64_t(-1));
      const Value<bool> listed = (found >= 0) & (found < list.rows);
      const Value<std::int64_t> other = select(listed, found, Value<std::int64_t>(list.rows));
      const Value<bool> precedes = (other < key) | ((other == key) & (k < i));
      before = before + select(precedes & (k < list.entries), Value<int>(1), Value<int>(0));
      start = start + select(other < i, Value<int>(1), Value<int>(0));
    }
    const int position = warp_sum<Warp, int>(before), first = warp_sum<Warp, int>(start);
    if (i < list.entries) store_one(list.order + position, i);
    if (i <= list.rows) store_one(list.starts + i, std::int64_t(first));
  }
};

// A slab of one gradient row under construction: a warp's packs of neighbouring elements.
template <typename Warp, typename Element, int kPack>
class GradientSlab {
 public:
  template <typename T>
  using Value = typename Warp::template Value<T>;
  using Pack = Packs<Warp, Element, kPack>;
  static constexpr int kPacks = 16 / kPack;
  static constexpr int kWidth = kPacks * Pack::kSpan;

  static GOAL_KERNELS_BOTH int slabs(int width) { return (width + kWidth - 1) / kWidth; }

  GOAL_KERNELS_WARP GradientSlab(int slab, int width) : first_(slab * kWidth), width_(width) {
    GOAL_KERNELS_UNROLL
    for (int p = 0; p < kPacks; ++p)
      GOAL_KERNELS_UNROLL
      for (int c = 0; c < kPack; ++c) sum_[p][c] = 0.0f;
  }

  GOAL_KERNELS_WARP void add(float weight, const Rows& matrix, std::int64_t row) {
    add_from<Element>(weight, static_cast<const Element*>(matrix.data) + row * matrix.stride);
  }

  // Entries [begin, end) of a list, in order.
  GOAL_KERNELS_WARP void add_entries(const GatherSide& side, std::int64_t begin, std::int64_t end) {
    GOAL_KERNELS_UNROLL_BY_4
    for (std::int64_t position = begin; position < end; ++position) {
      const std::int64_t entry = side.list.order[position];
      const std::int64_t row = entry < side.source.count ? entry : entry - side.source.count;
      const float weight = side.entry_weight[entry];
      add(side.source_scale == nullptr ? weight : weight * side.source_scale[row], side.source, row);
    }
  }

  GOAL_KERNELS_WARP void add_partial(const float* partial, std::int64_t chunk) {
    const float* const row = partial + chunk * width_;
    GOAL_KERNELS_UNROLL
    for (int p = 0; p < kPacks; ++p)
      GOAL_KERNELS_UNROLL
      for (int c = 0; c < kPack; ++c) {
        const Value<int> at = column(p) + c;
        sum_[p][c] = sum_[p][c] + load(row, at, at < width_, 0.0f);
      }
  }

  GOAL_KERNELS_WARP void scale(float factor) {
    GOAL_KERNELS_UNROLL
    for (int p = 0; p < kPacks; ++p)
      GOAL_KERNELS_UNROLL
      for (int c = 0; c < kPack; ++c) sum_[p][c] = sum_[p][c] * factor;
  }

  GOAL_KERNELS_WARP void write_partial(float* partial, std::int64_t chunk) const {
    float* const row = partial + chunk * width_;
    GOAL_KERNELS_UNROLL
    for (int p = 0; p < kPacks; ++p)
      GOAL_KERNELS_UNROLL
      for (int c = 0; c < kPack; ++c) {
        const Value<int> at = column(p) + c;
        store(row, at, sum_[p][c], at < width_);
      }
  }

  GOAL_KERNELS_WARP void write(void* out, std::int64_t row) const {
    Element* const base = static_cast<Element*>(out) + row * width_;
    GOAL_KERNELS_UNROLL
    for (int p = 0; p < kPacks; ++p)
      Pack::store(base, convert<std::int64_t>(column(p)), column(p) < width_, sum_[p]);
  }

 private:
  // First element of each lane's pack p.
  GOAL_KERNELS_WARP Value<int> column(int p) const { return Pack::first_column() + (first_ + p * Pack::kSpan); }

  template <typename Source>
  GOAL_KERNELS_WARP void add_from(float weight, const Source* row) {
    GOAL_KERNELS_UNROLL
    for (int p = 0; p < kPacks; ++p) {
      Value<float> elements[kPack];
      Pack::load(row, convert<std::int64_t>(column(p)), column(p) < width_, elements);
      GOAL_KERNELS_UNROLL
      for (int c = 0; c < kPack; ++c) sum_[p][c] = fused(elements[c], Value<float>(weight), sum_[p][c]);
    }
  }

  const int first_;
  const int width_;
  Value<float> sum_[kPacks][kPack];
};

// What a warp does: a slab of a row or chunk of one side.
struct SlabItem {
  int side;
  int slab;
  std::int64_t number;
};

// `first`: how many the first side has. Warps of a launch fit 32 bits, which divide faster.
GOAL_KERNELS_BOTH SlabItem slab_item(std::int64_t warp, int slabs, std::int64_t first) {
  const auto item = static_cast<std::uint32_t>(warp);
  const std::int64_t number = item / static_cast<std::uint32_t>(slabs);
  const int slab = static_cast<int>(item % static_cast<std::uint32_t>(slabs));
  return number < first ? SlabItem{0, slab, number} : SlabItem{1, slab, number - first};
}

// A warp per chunk of entries and slab: long lists are read by many warps.
template <typename Warp, typename Element, int kPack>
struct Hubs {
  using Slab = GradientSlab<Warp, Element, kPack>;

  static GOAL_KERNELS_BOTH std::int64_t chunks(const GatherSide& side) {
    return side.out == nullptr ? 0 : side.list.entries / kHubChunk;
  }
  static GOAL_KERNELS_BOTH std::int64_t warps(const GatherArguments& a) {
    return (chunks(a.sides[0]) + chunks(a.sides[1])) * Slab::slabs(a.width);
  }
  static GOAL_KERNELS_WARP void run(const GatherArguments& a, std::int64_t warp) {
    const SlabItem item = slab_item(warp, Slab::slabs(a.width), chunks(a.sides[0]));
    const GatherSide& side = a.sides[item.side];
    const std::int64_t begin = item.number * kHubChunk;
    const std::int64_t first = side.list.keys[side.list.order[begin]];
    const std::int64_t last = side.list.keys[side.list.order[begin + kHubChunk - 1]];
    if (first != last || first < 0 || first >= side.list.rows) return;
    Slab sum(item.slab, a.width);
    sum.add_entries(side, begin, begin + kHubChunk);
    sum.write_partial(side.partial, item.number);
  }
};

// A warp per gradient row and slab.
template <typename Warp, typename Element, int kPack>
struct Gathering {
  template <typename T>
  using Value = typename Warp::template Value<T>;
  using Slab = GradientSlab<Warp, Element, kPack>;

  static GOAL_KERNELS_BOTH std::int64_t rows(const GatherSide& side) {
    return side.out == nullptr ? 0 : side.own.count;
  }
  static GOAL_KERNELS_BOTH std::int64_t warps(const GatherArguments& a) {
    return (rows(a.sides[0]) + rows(a.sides[1])) * Slab::slabs(a.width);
  }
  static GOAL_KERNELS_WARP void run(const GatherArguments& a, std::int64_t warp) {
    const SlabItem item = slab_item(warp, Slab::slabs(a.width), rows(a.sides[0]));
    const GatherSide& side = a.sides[item.side];
    const std::int64_t row = item.number;
    Slab sum(item.slab, a.width);
    add_direct(side, row, sum);
    add_list(side, row, sum);
    float factor = *a.grad_loss;
    if (side.own_scale != nullptr) {
      const float scale = side.own_scale[row];
      sum.add(-projection(side, row) * scale, side.own, row);
      factor *= scale < kLargestScale ? scale : 0.0f;  // a row too short to normalise has no direction
    }
    sum.scale(factor);
    sum.write(side.out, row);
  }

 private:
  static constexpr float kLargestScale = 1e12f;  // of rows of the shortest length, see constants.py

  static GOAL_KERNELS_WARP float scale_of(const GatherSide& side, std::int64_t row) {
    return side.source_scale == nullptr ? 1.0f : side.source_scale[row];
  }
  static GOAL_KERNELS_WARP std::int64_t mined_of(const GatherSide& side, std::int64_t row) {
    const std::int64_t index = side.mined_index[row];
    return index < side.source.count ? index : -1;
  }
  // -1: no positive.
  static GOAL_KERNELS_WARP std::int64_t positive_of(const GatherSide& side, std::int64_t row) {
    if (side.positive_weight == nullptr) return -1;
    const std::int64_t index = side.positive_index == nullptr ? row : side.positive_index[row];
    return index < side.source.count ? index : -1;
  }

  static GOAL_KERNELS_WARP void add_direct(const GatherSide& side, std::int64_t row, Slab& sum) {
    const std::int64_t mined = mined_of(side, row), positive = positive_of(side, row);
    if (mined >= 0) sum.add(side.mined_weight[row] * scale_of(side, mined), side.source, mined);
    if (positive >= 0) sum.add(-side.positive_weight[row] * scale_of(side, positive), side.source, positive);
  }

  // The whole chunks of the list were summed ahead.
  static GOAL_KERNELS_WARP void add_list(const GatherSide& side, std::int64_t row, Slab& sum) {
    const std::int64_t begin = side.list.starts[row], end = side.list.starts[row + 1];
    const std::int64_t first = (begin + kHubChunk - 1) / kHubChunk, last = end / kHubChunk;
    if (first >= last) {
      sum.add_entries(side, begin, end);
      return;
    }
    sum.add_entries(side, begin, first * kHubChunk);
    for (std::int64_t chunk = first; chunk < last; ++chunk) sum.add_partial(side.partial, chunk);
    sum.add_entries(side, last * kHubChunk, end);
  }

  // Product of the scaled row and the gradient with respect to it, before grad_loss: of mined scalars alone.
  static GOAL_KERNELS_WARP float projection(const GatherSide& side, std::int64_t row) {
    float total = 0.0f;
    if (mined_of(side, row) >= 0) total += side.mined_weight[row] * side.mined_value[row];
    if (positive_of(side, row) >= 0) total -= side.positive_weight[row] * side.positive_value[row];
    const std::int64_t begin = side.list.starts[row], end = side.list.starts[row + 1];
    Value<float> listed = 0.0f;
    for (std::int64_t base = begin; base < end; base += kWarpLanes) {
      const Value<std::int64_t> position = convert<std::int64_t>(Warp::lane()) + base;
      const Value<bool> mask = position < end;
      const Value<std::int64_t> entry = load(side.list.order, position, mask, std::int64_t(0));
      listed = listed + load(side.entry_weight, entry, mask, 0.0f) * load(side.entry_value, entry, mask, 0.0f);
    }
    return total + warp_sum<Warp, float>(listed);
  }
};

}  // namespace goal_kernels::cuda
