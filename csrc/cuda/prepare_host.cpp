#include "cuda/prepare_stage.h"
#include "cuda/stages.h"

namespace goal_kernels::cuda {

void prepare_emulated(const PrepareArguments& a) {
  with_layout(a.dtype, a.image, a.text, a.width, [&](auto layout) {
    using L = decltype(layout);
    for (int side = 0; side < 2; ++side)
      for (std::int64_t block = 0; block < a.parts; ++block) {
        const Preparing<HostWarp, typename L::Element, L::kPack> preparing(a, side == 0, block);
        RowFacts all = no_rows();
        for (int warp = 0; warp < kPrepareWarps; ++warp) all = merge(all, preparing.rows(warp));
        preparing.finish(all);
      }
  });
}

}  // namespace goal_kernels::cuda
