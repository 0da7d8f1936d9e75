// Similarities around the tile loop, with the sides exchanged: the columns of S are what is cut into chunks, since a
// block has few rows and many columns, and its rows are packed once and stay in the cache of every worker.
//
// Bytes: S once for every kDepth of the depth, written a micro-tile at a time; columns once per call.
// Memory: the tile loop's.
#include "similarities.h"

#include <algorithm>

#include "tile_loop.h"

namespace goal_kernels {
namespace {

// Depth of the sums that are made at a time: 512 packed rows and 256 columns of bfloat16 stay in 2 MiB of cache.
constexpr std::int64_t kDepth = 1024;

// The job of the tile loop.
template <typename T>
class Writer {
 public:
  Writer(const SimilaritiesJob& job, const TileKernel<T>& kernel, int threads)
      : kernel_(kernel),
        loop_(job.columns, job.rows, kernel, threads),
        out_(static_cast<T*>(job.out)),
        stride_(job.stride),
        add_(job.add) {}

  void run() { loop_.run(*this); }
  void start(std::int64_t, int) const {}
  void tile(const TilePlace<T>& place, std::int64_t, std::int64_t) const {
    kernel_.transpose(place, out_ + place.first_column * stride_ + place.first_row, stride_, add_);
  }
  void stop(std::int64_t) const {}
  void finish(std::int64_t, std::int64_t) const {}

 private:
  const TileKernel<T>& kernel_;
  const TileLoop<T> loop_;
  T* const out_;
  const std::int64_t stride_;
  const bool add_;
};

// Columns [begin, begin + kDepth) of a matrix.
Matrix slice(Matrix matrix, std::int64_t begin) {
  const std::int64_t step = matrix.across ? matrix.stride : 1;
  matrix.data = static_cast<const char*>(matrix.data) + begin * step * element_bytes(matrix.dtype);
  matrix.width = std::min(kDepth, matrix.width - begin);
  return matrix;
}

template <typename T>
void write(SimilaritiesJob job, const TileKernel<T>& kernel, int threads) {
  const Matrix rows = job.rows, columns = job.columns;
  for (std::int64_t begin = 0; begin < rows.width; begin += kDepth) {
    job.rows = slice(rows, begin);
    job.columns = slice(columns, begin);
    Writer<T>(job, kernel, threads).run();
    job.add = true;
  }
}

}  // namespace

void similarities(const SimilaritiesJob& job, const Isa& isa, int threads) {
  check_sizes(job.rows, job.columns);
  if (job.rows.dtype == Dtype::float64) return write(job, isa.exact->float64, threads);
  const bool thin = job.rows.dtype == Dtype::bfloat16 && isa.bfloat16 != nullptr;
  write<float>(job, thin ? *isa.bfloat16 : isa.exact->float32, threads);
}

}  // namespace goal_kernels
