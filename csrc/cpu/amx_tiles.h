// The eight AMX tile registers, 16 rows of 64 bytes each: the processor's, or with
// GOAL_KERNELS_AMX_EMULATED plain arrays that follow the instructions' published definition, so that the
// index arithmetic of the AMX kernels is tested on every machine. Internal linkage, see types.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "types.h"

#if !defined(GOAL_KERNELS_AMX_EMULATED)
#include <immintrin.h>
#endif

namespace goal_kernels {
namespace {

constexpr int kAmxRows = 16;
constexpr int kAmxRowBytes = 64;
constexpr int kAmxTileBytes = kAmxRows * kAmxRowBytes;
constexpr int kAmxFloats = kAmxRowBytes / 4;    // columns of a tile of sums
constexpr int kAmxBfloats = kAmxRowBytes / 2;  // values of a row of a tile of factors

#if defined(GOAL_KERNELS_AMX_EMULATED)

struct AmxTile {
  unsigned char bytes[kAmxTileBytes];
};
thread_local AmxTile amx_registers[8];

inline void amx_enter() { std::memset(amx_registers, 0xff, sizeof amx_registers); }
inline void amx_leave() { std::memset(amx_registers, 0xff, sizeof amx_registers); }

template <int kTile>
inline void amx_zero() {
  std::memset(amx_registers[kTile].bytes, 0, kAmxTileBytes);
}

template <int kTile>
inline void amx_load(const void* source) {
  std::memcpy(amx_registers[kTile].bytes, source, kAmxTileBytes);
}

template <int kTile>
inline void amx_store(void* target, std::int64_t stride_bytes) {
  for (int r = 0; r < kAmxRows; ++r)
    std::memcpy(static_cast<char*>(target) + r * stride_bytes,
                amx_registers[kTile].bytes + r * kAmxRowBytes, kAmxRowBytes);
}

// Subnormal inputs and results are zero, as the instruction has it.
inline float amx_flush(float value) {
  const std::uint32_t bits = bits_from_float(value);
  return (bits & 0x7f800000u) == 0 ? float_from_bits(bits & 0x80000000u) : value;
}

// sums[m][n] += sum over k of left[m][2k] right[k][2n] + left[m][2k + 1] right[k][2n + 1]: even and odd
// products are summed apart, then together, then added.
template <int kSums, int kLeft, int kRight>
inline void amx_multiply() {
  float sums[kAmxRows][kAmxFloats];
  bfloat16 left[kAmxRows][kAmxBfloats], right[kAmxRows][kAmxBfloats];
  std::memcpy(sums, amx_registers[kSums].bytes, sizeof sums);
  std::memcpy(left, amx_registers[kLeft].bytes, sizeof left);
  std::memcpy(right, amx_registers[kRight].bytes, sizeof right);
  for (int m = 0; m < kAmxRows; ++m)
    for (int n = 0; n < kAmxFloats; ++n) {
      float part[2] = {};
      for (int k = 0; k < kAmxRows; ++k)
        for (int half = 0; half < 2; ++half)
          part[half] = amx_flush(part[half] + amx_flush(widen(left[m][2 * k + half])) *
                                                  amx_flush(widen(right[k][2 * n + half])));
      sums[m][n] = amx_flush(amx_flush(sums[m][n]) + amx_flush(part[0] + part[1]));
    }
  std::memcpy(amx_registers[kSums].bytes, sums, sizeof sums);
}

#else

// Palette 1: all eight tiles with 16 rows of 64 bytes.
inline void amx_enter() {
  struct alignas(64) {
    std::uint8_t palette, start_row, reserved[14];
    std::uint16_t row_bytes[16];
    std::uint8_t rows[16];
  } config = {};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = kAmxRowBytes;
    config.rows[tile] = kAmxRows;
  }
  // Not _tile_loadconfig: up to GCC 13 it names only the first 8 bytes of the configuration as read, and the
  // optimiser drops the stores to the rest (GCC bug 114098). The tiles then have no rows: SIGILL.
  asm volatile("ldtilecfg %0" ::"m"(config));
}

inline void amx_leave() { _tile_release(); }

// Assembly instead of the intrinsics: those are macros that want the tile number as a literal.
template <int kTile>
inline void amx_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

template <int kTile>
inline void amx_load(const void* source) {
  const std::int64_t stride_bytes = kAmxRowBytes;
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(source), "r"(stride_bytes), "i"(kTile) : "memory");
}

template <int kTile>
inline void amx_store(void* target, std::int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(target), "r"(stride_bytes), "i"(kTile) : "memory");
}

template <int kSums, int kLeft, int kRight>
inline void amx_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kLeft), "i"(kRight));
}

#endif

}  // namespace
}  // namespace goal_kernels
