// Similarities around the tile loop, with the sides exchanged: the columns of S are what is cut into chunks, since a
// block has few rows and many columns, and its rows are packed once and stay in the cache of every worker.
//
// Bytes: S once, written a micro-tile at a time; columns once per call.
// Memory: the tile loop's.
#include "similarities.h"

#include "tile_loop.h"

namespace goal_kernels {
namespace {

// The job of the tile loop.
template <typename T>
class Writer {
 public:
  Writer(const SimilaritiesJob& job, const TileKernel<T>& kernel, int threads)
      : kernel_(kernel),
        loop_(job.columns, job.rows, kernel, threads),
        out_(static_cast<T*>(job.out)),
        stride_(job.stride) {}

  void run() { loop_.run(*this); }
  void start(std::int64_t, int) const {}
  void tile(const TilePlace<T>& place, std::int64_t, std::int64_t) const {
    kernel_.transpose(place, out_ + place.first_column * stride_ + place.first_row, stride_);
  }
  void stop(std::int64_t) const {}
  void finish(std::int64_t, std::int64_t) const {}

 private:
  const TileKernel<T>& kernel_;
  const TileLoop<T> loop_;
  T* const out_;
  const std::int64_t stride_;
};

}  // namespace

void similarities(const SimilaritiesJob& job, const Isa& isa, int threads) {
  check_sizes(job.rows, job.columns);
  if (job.rows.dtype == Dtype::float64) return Writer<double>(job, isa.exact->float64, threads).run();
  const bool thin = job.rows.dtype == Dtype::bfloat16 && isa.bfloat16 != nullptr;
  Writer<float>(job, thin ? *isa.bfloat16 : isa.exact->float32, threads).run();
}

}  // namespace goal_kernels
