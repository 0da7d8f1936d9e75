// A warp, written once and run twice. Kernel code is a template over a *warp policy*: under `DeviceWarp` a
// Value<T> is the T that a thread holds, under `HostWarp` it is the 32 of them in an array, and the same
// operators, selections, shuffles and reductions mean the same on both. So what a GPU would compute is checked
// on a machine without one.
//
// The rules that make it work: no branch on a Value (use `select` and masks; branch on plain scalars, which are
// the same in all lanes), no arithmetic between Values of different types (`convert`), reductions return plain
// scalars. A .cu file sees `DeviceWarp` alone and any other file `HostWarp` alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define GOAL_KERNELS_BOTH __host__ __device__ __forceinline__  // scalar code
#define GOAL_KERNELS_WARP __device__ __forceinline__           // templates over a policy
#define GOAL_KERNELS_UNROLL _Pragma("unroll")                  // ahead of a loop
#define GOAL_KERNELS_UNROLL_BY_4 _Pragma("unroll 4")
#define GOAL_KERNELS_KEEP_LOOP _Pragma("unroll 1")
#else
#define GOAL_KERNELS_BOTH inline
#define GOAL_KERNELS_WARP inline
#define GOAL_KERNELS_UNROLL
#define GOAL_KERNELS_UNROLL_BY_4
#define GOAL_KERNELS_KEEP_LOOP
#endif

namespace goal_kernels::cuda {

constexpr int kWarpLanes = 32;
constexpr std::uint32_t kAllLanes = 0xffffffffu;

template <typename T>
struct Same {  // keeps an argument out of template deduction
  using type = T;
};
template <typename T>
using same = typename Same<T>::type;

#if defined(__CUDACC__)

struct DeviceWarp {
  template <typename T>
  using Value = T;
  static GOAL_KERNELS_WARP int lane() { return static_cast<int>(threadIdx.x % kWarpLanes); }
};

template <typename To, typename From>
GOAL_KERNELS_WARP To convert(From value) {
  return static_cast<To>(value);
}
// The same bits as another type.
template <typename To, typename From>
GOAL_KERNELS_BOTH To reinterpret(From value) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}
template <typename T>
GOAL_KERNELS_WARP T select(bool mask, T a, same<T> b) {
  return mask ? a : b;
}
GOAL_KERNELS_WARP float maximum(float a, float b) { return fmaxf(a, b); }  // a NaN loses
GOAL_KERNELS_WARP float minimum(float a, float b) { return fminf(a, b); }
template <typename T>
GOAL_KERNELS_WARP T maximum(T a, same<T> b) {
  return a > b ? a : b;
}
template <typename T>
GOAL_KERNELS_WARP T minimum(T a, same<T> b) {
  return a < b ? a : b;
}
GOAL_KERNELS_WARP float absolute(float a) { return fabsf(a); }
GOAL_KERNELS_WARP float exp2_of(float a) { return exp2f(a); }
GOAL_KERNELS_WARP float fused(float a, float b, float c) { return fmaf(a, b, c); }  // a b + c
template <typename T>
GOAL_KERNELS_WARP T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
template <typename T>
GOAL_KERNELS_WARP T shuffle(T value, int source) {
  return __shfl_sync(kAllLanes, value, source);
}
// The value of one lane, in all of them.
template <typename T>
GOAL_KERNELS_WARP T lane_value(T value, int source) {
  return __shfl_sync(kAllLanes, value, source);
}
GOAL_KERNELS_WARP bool any(bool mask) { return __any_sync(kAllLanes, mask) != 0; }
GOAL_KERNELS_WARP bool all(bool mask) { return __all_sync(kAllLanes, mask) != 0; }
GOAL_KERNELS_WARP std::uint32_t ballot(bool mask) { return __ballot_sync(kAllLanes, mask); }
GOAL_KERNELS_WARP int lowest_bit(std::uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }  // -1: none
// base[index] where mask, else `other`.
template <typename T, typename Index>
GOAL_KERNELS_WARP T load(const T* base, Index index, bool mask, same<T> other) {
  return mask ? base[index] : other;
}
template <typename T, typename Index>
GOAL_KERNELS_WARP void store(T* base, Index index, same<T> value, bool mask) {
  if (mask) base[index] = value;
}
template <typename Index>
GOAL_KERNELS_WARP void atomic_max(std::int64_t* base, Index index, std::int64_t value, bool mask) {
  if (mask) atomicMax(reinterpret_cast<long long*>(base + index), static_cast<long long>(value));
}
template <typename Index>
GOAL_KERNELS_WARP void atomic_add(std::int32_t* base, Index index, std::int32_t value, bool mask) {
  if (mask) atomicAdd(base + index, value);
}
template <typename Index>
GOAL_KERNELS_WARP void atomic_add(std::int64_t* base, Index index, std::int64_t value, bool mask) {
  if (mask) atomicAdd(reinterpret_cast<unsigned long long*>(base + index), static_cast<unsigned long long>(value));
}
// base[index] = change(base[index]), at once. Of a change that leaves the value alone nothing is written.
template <typename Index, typename Change>
GOAL_KERNELS_WARP void atomic_change(std::int64_t* base, Index index, std::int64_t value, bool mask, Change change) {
  auto* word = reinterpret_cast<unsigned long long*>(base + index);
  std::int64_t known = mask ? __ldcg(base + index) : 0;
  bool left = mask;
  GOAL_KERNELS_KEEP_LOOP
  while (__any_sync(kAllLanes, left)) {
    const std::int64_t wanted = change(known, value);
    left = left && wanted != known;
    if (left) {
      const auto before = static_cast<std::int64_t>(
          atomicCAS(word, static_cast<unsigned long long>(known), static_cast<unsigned long long>(wanted)));
      left = before != known;
      known = before;
    }
  }
}
// Reads what another warp of the same launch wrote, past this multiprocessor's own cache.
template <typename T, typename Index>
GOAL_KERNELS_WARP T load_shared_result(const T* base, Index index, bool mask, same<T> other) {
  return mask ? __ldcg(base + index) : other;
}

#else  // HostWarp

template <typename T>
struct Lanes {
  T lane[kWarpLanes];

  Lanes() = default;
  Lanes(T value) {
    for (T& x : lane) x = value;
  }
  T& operator[](int i) { return lane[i]; }
  const T& operator[](int i) const { return lane[i]; }

#define GOAL_KERNELS_LANES(op, Result)                                                        \
  friend Lanes<Result> operator op(const Lanes& a, const Lanes& b) {                          \
    Lanes<Result> c;                                                                          \
    for (int i = 0; i < kWarpLanes; ++i) c.lane[i] = static_cast<Result>(a.lane[i] op b.lane[i]); \
    return c;                                                                                 \
  }
  GOAL_KERNELS_LANES(+, T)
  GOAL_KERNELS_LANES(-, T)
  GOAL_KERNELS_LANES(*, T)
  GOAL_KERNELS_LANES(/, T)
  GOAL_KERNELS_LANES(%, T)
  GOAL_KERNELS_LANES(&, T)
  GOAL_KERNELS_LANES(|, T)
  GOAL_KERNELS_LANES(^, T)
  GOAL_KERNELS_LANES(<<, T)
  GOAL_KERNELS_LANES(>>, T)
  GOAL_KERNELS_LANES(<, bool)
  GOAL_KERNELS_LANES(<=, bool)
  GOAL_KERNELS_LANES(>, bool)
  GOAL_KERNELS_LANES(>=, bool)
  GOAL_KERNELS_LANES(==, bool)
  GOAL_KERNELS_LANES(!=, bool)
#undef GOAL_KERNELS_LANES

  Lanes operator-() const { return Lanes(T(0)) - *this; }
  Lanes operator~() const { return *this ^ Lanes(static_cast<T>(~T(0))); }
  Lanes operator!() const { return *this == Lanes(T(0)); }  // of masks
  Lanes& operator+=(const Lanes& b) { return *this = *this + b; }
  Lanes& operator-=(const Lanes& b) { return *this = *this - b; }
  Lanes& operator*=(const Lanes& b) { return *this = *this * b; }
  Lanes& operator&=(const Lanes& b) { return *this = *this & b; }
  Lanes& operator|=(const Lanes& b) { return *this = *this | b; }
  Lanes& operator^=(const Lanes& b) { return *this = *this ^ b; }
};

struct HostWarp {
  template <typename T>
  using Value = Lanes<T>;
  static Lanes<int> lane() {
    Lanes<int> result;
    for (int i = 0; i < kWarpLanes; ++i) result[i] = i;
    return result;
  }
};

// f(a[i]) and f(a[i], b[i]) of every lane.
template <typename Result, typename T, typename Function>
Lanes<Result> each_lane(const Lanes<T>& a, const Function& f) {
  Lanes<Result> c;
  for (int i = 0; i < kWarpLanes; ++i) c[i] = f(a[i]);
  return c;
}
template <typename Result, typename T, typename Function>
Lanes<Result> each_lane(const Lanes<T>& a, const Lanes<T>& b, const Function& f) {
  Lanes<Result> c;
  for (int i = 0; i < kWarpLanes; ++i) c[i] = f(a[i], b[i]);
  return c;
}

template <typename To, typename From>
Lanes<To> convert(const Lanes<From>& value) {
  return each_lane<To>(value, [](From x) { return static_cast<To>(x); });
}
template <typename To, typename From>
To convert(From value) {
  return static_cast<To>(value);
}
template <typename To, typename From>
To reinterpret(From value) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
template <typename To, typename From>
Lanes<To> reinterpret(const Lanes<From>& value) {
  return each_lane<To>(value, [](From x) { return reinterpret<To>(x); });
}
template <typename T>
Lanes<T> select(const Lanes<bool>& mask, const Lanes<T>& a, const same<Lanes<T>>& b) {
  Lanes<T> c;
  for (int i = 0; i < kWarpLanes; ++i) c[i] = mask[i] ? a[i] : b[i];
  return c;
}
template <typename T>
T select(bool mask, T a, same<T> b) {
  return mask ? a : b;
}
template <typename T>
T maximum(T a, same<T> b) {  // a NaN loses
  return a > b || b != b ? a : b;
}
template <typename T>
T minimum(T a, same<T> b) {
  return a < b || b != b ? a : b;
}
template <typename T>
Lanes<T> maximum(const Lanes<T>& a, const same<Lanes<T>>& b) {
  return each_lane<T>(a, b, [](T x, T y) { return maximum(x, y); });
}
template <typename T>
Lanes<T> minimum(const Lanes<T>& a, const same<Lanes<T>>& b) {
  return each_lane<T>(a, b, [](T x, T y) { return minimum(x, y); });
}
#define GOAL_KERNELS_LANE_FUNCTION(name, expression)               \
  template <typename T>                                            \
  T name(T x) {                                                    \
    return expression;                                             \
  }                                                                \
  template <typename T>                                            \
  Lanes<T> name(const Lanes<T>& a) {                               \
    return each_lane<T>(a, [](T x) { return name(x); });           \
  }
GOAL_KERNELS_LANE_FUNCTION(absolute, std::fabs(x))
GOAL_KERNELS_LANE_FUNCTION(exp2_of, std::exp2(x))
#undef GOAL_KERNELS_LANE_FUNCTION
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline Lanes<float> fused(const Lanes<float>& a, const Lanes<float>& b, const Lanes<float>& c) {
  Lanes<float> d;
  for (int i = 0; i < kWarpLanes; ++i) d[i] = std::fma(a[i], b[i], c[i]);
  return d;
}
template <typename T>
Lanes<T> shuffle_xor(const Lanes<T>& value, int mask) {
  Lanes<T> c;
  for (int i = 0; i < kWarpLanes; ++i) c[i] = value[i ^ mask];
  return c;
}
template <typename T>
Lanes<T> shuffle(const Lanes<T>& value, const Lanes<int>& source) {
  Lanes<T> c;
  for (int i = 0; i < kWarpLanes; ++i) c[i] = value[source[i] & (kWarpLanes - 1)];
  return c;
}
template <typename T>
T lane_value(const Lanes<T>& value, int source) {
  return value[source];
}
inline std::uint32_t ballot(const Lanes<bool>& mask) {
  std::uint32_t bits = 0;
  for (int i = 0; i < kWarpLanes; ++i) bits |= static_cast<std::uint32_t>(mask[i]) << i;
  return bits;
}
inline int lowest_bit(std::uint32_t bits) {
  for (int bit = 0; bit < 32; ++bit)
    if (bits >> bit & 1) return bit;
  return -1;
}
inline Lanes<int> lowest_bit(const Lanes<std::uint32_t>& bits) {
  return each_lane<int>(bits, [](std::uint32_t x) { return lowest_bit(x); });
}
inline bool any(const Lanes<bool>& mask) { return ballot(mask) != 0; }
inline bool all(const Lanes<bool>& mask) { return ballot(mask) == kAllLanes; }
template <typename T, typename Index>
Lanes<T> load(const T* base, const Lanes<Index>& index, const Lanes<bool>& mask, T other) {
  Lanes<T> c;
  for (int i = 0; i < kWarpLanes; ++i) c[i] = mask[i] ? base[index[i]] : other;
  return c;
}
template <typename T, typename Index>
void store(T* base, const Lanes<Index>& index, const same<Lanes<T>>& value, const Lanes<bool>& mask) {
  for (int i = 0; i < kWarpLanes; ++i)
    if (mask[i]) base[index[i]] = value[i];
}
template <typename Index>
void atomic_max(std::int64_t* base, const Lanes<Index>& index, const Lanes<std::int64_t>& value,
                const Lanes<bool>& mask) {
  for (int i = 0; i < kWarpLanes; ++i)
    if (mask[i] && base[index[i]] < value[i]) base[index[i]] = value[i];
}
template <typename T, typename Index>
void atomic_add(T* base, const Lanes<Index>& index, const same<Lanes<T>>& value, const Lanes<bool>& mask) {
  for (int i = 0; i < kWarpLanes; ++i)
    if (mask[i]) base[index[i]] += value[i];
}
template <typename Index, typename Change>
void atomic_change(std::int64_t* base, const Lanes<Index>& index, const Lanes<std::int64_t>& value,
                   const Lanes<bool>& mask, Change change) {
  for (int i = 0; i < kWarpLanes; ++i)
    if (mask[i]) base[index[i]] = change(base[index[i]], value[i]);
}
template <typename T, typename Index>
Lanes<T> load_shared_result(const T* base, const Lanes<Index>& index, const Lanes<bool>& mask, T other) {
  return load(base, index, mask, other);
}

#endif

// Reductions over the warp in one order on both: lane i meets i ^ 16, then i ^ 8, and so on.
template <typename Warp, typename T>
GOAL_KERNELS_WARP T warp_max(typename Warp::template Value<T> value) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) value = maximum(value, shuffle_xor(value, mask));
  return lane_value(value, 0);
}
template <typename Warp, typename T>
GOAL_KERNELS_WARP T warp_min(typename Warp::template Value<T> value) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) value = minimum(value, shuffle_xor(value, mask));
  return lane_value(value, 0);
}

}  // namespace goal_kernels::cuda
