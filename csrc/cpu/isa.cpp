#include "isa.h"

#include <stdexcept>

namespace goal_kernels {
namespace {

std::vector<Isa> detect() {
  std::vector<Isa> found{{"baseline", &tile_kernels_baseline, &row_kernels_baseline}};
#if defined(GOAL_KERNELS_X86)
  // __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back({"avx2", &tile_kernels_avx2, &row_kernels_avx2});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back({"avx512", &tile_kernels_avx512, &row_kernels_avx512});
#endif
  return found;
}

}  // namespace

const std::vector<Isa>& usable_isas() {
  static const std::vector<Isa> found = detect();
  return found;
}

const Isa& find_isa(const std::string& name) {
  const std::vector<Isa>& isas = usable_isas();
  if (name == "auto") return isas.back();
  std::string usable;
  for (const Isa& isa : isas) {
    if (name == isa.name) return isa;
    usable += std::string(usable.empty() ? "" : ", ") + isa.name;
  }
  throw std::invalid_argument("isa: expected one that this machine can run (auto, " + usable +
                              "), got '" + name + "'; pass 'auto'");
}

}  // namespace goal_kernels
