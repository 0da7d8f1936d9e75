#include "isa.h"

#include <stdexcept>

#if defined(GOAL_KERNELS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace goal_kernels {
namespace {

#if defined(GOAL_KERNELS_AMX)
// Asks Linux to let this process use the tile registers. Only a process that asked gets their state saved;
// without the request the first tile instruction is SIGILL. A thread with a small alternative signal stack
// makes the request fail, which counts as "no AMX" here.
bool request_tile_state() {
  constexpr long request = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;    // the component of the tile registers' contents
  return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned os_saves_extended_state = 1u << 27;  // leaf 1, ECX
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & os_saves_extended_state) == 0) return false;
  constexpr unsigned tiles_and_bfloat16 = 1u << 24 | 1u << 22;  // leaf 7, EDX
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tiles_and_bfloat16) != tiles_and_bfloat16)
    return false;
  std::uint32_t enabled = 0, upper = 0;
  asm volatile("xgetbv" : "=a"(enabled), "=d"(upper) : "c"(0));
  constexpr std::uint32_t tile_state = 1u << 17 | 1u << 18;
  return (enabled & tile_state) == tile_state && request_tile_state();
}
#endif

std::vector<Isa> detect() {
  std::vector<Isa> found{{"baseline", &exact_kernels_baseline, nullptr, nullptr, &row_kernels_baseline}};
#if defined(GOAL_KERNELS_X86)
  // __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back({"avx2", &exact_kernels_avx2, nullptr, nullptr, &row_kernels_avx2});
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512)
    found.push_back({"avx512", &exact_kernels_avx512, nullptr, nullptr, &row_kernels_avx512});
#if defined(GOAL_KERNELS_AVX512_BF16)
  // No split product: three of these instructions take longer than the one in float they replace.
  if (avx512 && __builtin_cpu_supports("avx512bf16"))
    found.push_back({"avx512_bf16", &exact_kernels_avx512, &bfloat16_kernel_avx512_bf16, nullptr,
                     &row_kernels_avx512});
#endif
#if defined(GOAL_KERNELS_AMX)
  if (avx512 && has_amx())
    found.push_back({"amx", &exact_kernels_avx512, &amx_kernels_native.bfloat16, &amx_kernels_native.split,
                     &row_kernels_avx512});
#endif
#endif
  return found;
}

}  // namespace

const std::vector<Isa>& usable_isas() {
  static const std::vector<Isa> found = detect();
  return found;
}

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names{"baseline"};
#if defined(GOAL_KERNELS_X86)
  names.insert(names.end(), {"avx2", "avx512"});
#endif
#if defined(GOAL_KERNELS_AVX512_BF16)
  names.push_back("avx512_bf16");
#endif
#if defined(GOAL_KERNELS_AMX)
  names.push_back("amx");
#endif
  return names;
}

const std::vector<Isa>& emulated_isas() {
  static const std::vector<Isa> emulated{{"amx_emulated", &exact_kernels_baseline,
                                          &amx_kernels_emulated.bfloat16, &amx_kernels_emulated.split,
                                          &row_kernels_baseline}};
  return emulated;
}

const Isa& find_isa(const std::string& name) {
  if (name == "auto") return usable_isas().back();
  std::string usable;
  for (const std::vector<Isa>* isas : {&usable_isas(), &emulated_isas()})
    for (const Isa& isa : *isas) {
      if (name == isa.name) return isa;
      usable += std::string(", ") + isa.name;
    }
  throw std::invalid_argument("isa: expected one that this machine can run (auto" + usable + "), got '" +
                              name + "'; pass 'auto'");
}

}  // namespace goal_kernels
