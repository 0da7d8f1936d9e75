// Python module `goal_kernels._native`: addresses and sizes in, results written to memory that the caller
// allocated. Nothing here knows torch. `goal_kernels/backends/cpu.py` is the caller and owns the checks of
// shapes; what is checked here is what would otherwise be a wrong index.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings_cuda.h"
#include "bindings_words.h"
#include "cpu/above.h"
#include "cpu/apply.h"
#include "cpu/forward.h"
#include "cpu/isa.h"
#include "cpu/listed.h"
#include "cpu/logistic.h"
#include "cpu/mine.h"
#include "cpu/pairs.h"
#include "cpu/rank.h"
#include "cpu/sample.h"
#include "cpu/search.h"
#include "cpu/similarities.h"
#include "cpu/top_k.h"
#if defined(GOAL_KERNELS_CUDA)
#include "cuda/device_query.h"
#endif

namespace py = pybind11;

namespace goal_kernels {
namespace {

// address, rows, stride in elements, address of the scales; 0: none
using Rows = std::tuple<Address, std::int64_t, std::int64_t, Address>;
using Pairing = std::tuple<Address, Address, Address>;         // target, image_ids, text_ids; 0: None
using RelativeQuery = std::tuple<std::string, Address, double>;    // kind, threshold, beta
using Anchors = std::tuple<Address, Address, Address, Address>;    // value, index, sum, count
using Indices = std::tuple<Address, Address, Address>;             // hardest text, image, target
using Weights = std::tuple<Address, Address, Address, Address>;  // positive, row, column, grad_loss
using SearchTerms = std::tuple<std::string, double, double, bool, std::string>;  // fields of SearchQuery
using SearchOutput = std::tuple<Address, Anchors, Anchors, Address>;  // positive, row, column, scales
using ForwardOutput = std::tuple<Address, Address, Address>;  // value, vectors, hardest

constexpr Word<Relative> kRelatives[] = {{"none", Relative::none},
                                         {"linear", Relative::linear},
                                         {"exponential", Relative::exponential}};
constexpr Word<Precision> kPrecisions[] = {{"highest", Precision::highest},
                                           {"high", Precision::high},
                                           {"medium", Precision::medium}};

Matrix matrix(const Rows& rows, const std::string& dtype, std::int64_t width) {
  const auto [data, count, stride, scale] = rows;
  return {pointer(data), parse("dtype", kDtypes, dtype), count, stride, width, pointer(scale)};
}

AnchorOutput anchors(const Anchors& addresses) {
  return {pointer(std::get<0>(addresses)), pointer<std::int64_t>(std::get<1>(addresses)),
          pointer(std::get<2>(addresses)), pointer<std::int64_t>(std::get<3>(addresses))};
}

void score_pairs_addresses(const std::string& dtype, const Rows& a, const Rows& b,
                           std::int64_t width, Address index, Address similarity, int threads,
                           const std::string& isa) {
  score_pairs(matrix(a, dtype, width), matrix(b, dtype, width), pointer<std::int64_t>(index),
              pointer(similarity), *find_isa(isa).row, threads);
}

void row_scales_addresses(const std::string& dtype, const Rows& rows, std::int64_t width,
                          Address scale, int threads, const std::string& isa) {
  row_scales(matrix(rows, dtype, width), pointer(scale), *find_isa(isa).row, threads);
}

const char* mine_addresses(const std::string& dtype, const Rows& image, const Rows& text,
                           std::int64_t width, const Pairing& pairing, const RelativeQuery& relative,
                           const Anchors& row, const Anchors& column, const std::string& precision,
                           int threads, const std::string& isa) {
  const MineJob job{matrix(image, dtype, width),
                    matrix(text, dtype, width),
                    pointer<std::int64_t>(std::get<0>(pairing)),
                    pointer<std::int64_t>(std::get<1>(pairing)),
                    pointer<std::int64_t>(std::get<2>(pairing)),
                    parse("relative", kRelatives, std::get<0>(relative)),
                    pointer(std::get<1>(relative)),
                    std::get<2>(relative),
                    parse("precision", kPrecisions, precision),
                    anchors(row),
                    anchors(column)};
  return mine(job, find_isa(isa), threads);
}

void search_addresses(const std::string& dtype, const Rows& image, const Rows& text, std::int64_t width,
                      const Pairing& pairing, const SearchTerms& query, const SearchOutput& output,
                      int threads, const std::string& isa) {
  const auto [target, image_ids, text_ids] = pairing;
  const auto& [relative, epsilon, beta, normalize, precision] = query;
  const auto [positive, row, column, scales] = output;
  const SearchJob job{matrix(image, dtype, width),
                      matrix(text, dtype, width),
                      pointer<std::int64_t>(target),
                      pointer<std::int64_t>(image_ids),
                      pointer<std::int64_t>(text_ids),
                      normalize,
                      parse("relative", kRelatives, relative),
                      epsilon,
                      beta,
                      parse("precision", kPrecisions, precision),
                      pointer(positive),
                      anchors(row),
                      anchors(column),
                      pointer(scales)};
  search(job, find_isa(isa), threads);
}

void forward_addresses(const std::string& dtype, const Rows& image, const Rows& text,
                       std::int64_t width, Address image_ids, Address text_ids,
                       const std::string& triplet, const std::string& pair, const Scalars& scalars,
                       const std::string& direction, bool normalize,
                       const std::string& precision, const ForwardOutput& output, int threads,
                       const std::string& isa) {
  const auto [value, vectors, hardest] = output;
  const ForwardJob job{matrix(image, dtype, width),
                       matrix(text, dtype, width),
                       pointer<std::int64_t>(image_ids),
                       pointer<std::int64_t>(text_ids),
                       normalize,
                       parse("precision", kPrecisions, precision),
                       weight_rule(triplet, pair, scalars, direction),
                       pointer(value),
                       pointer(vectors),
                       pointer<std::int64_t>(hardest)};
  forward(job, find_isa(isa), threads);
}

void apply_addresses(const std::string& dtype, const Rows& image, const Rows& text,
                     std::int64_t width, const Indices& indices, const Weights& weights,
                     const std::tuple<Address, Address>& gradients, int threads,
                     const std::string& isa) {
  const ApplyJob job{matrix(image, dtype, width),
                     matrix(text, dtype, width),
                     pointer<std::int64_t>(std::get<0>(indices)),
                     pointer<std::int64_t>(std::get<1>(indices)),
                     pointer<std::int64_t>(std::get<2>(indices)),
                     pointer(std::get<0>(weights)),
                     pointer(std::get<1>(weights)),
                     pointer(std::get<2>(weights)),
                     pointer(std::get<3>(weights)),
                     pointer(std::get<0>(gradients)),
                     pointer(std::get<1>(gradients))};
  apply(job, *find_isa(isa).row, threads);
}

using Counts = std::tuple<Address, Address>;  // better, ties

CountOutput counts(const Counts& addresses) {
  return {pointer<std::int64_t>(std::get<0>(addresses)), pointer<std::int64_t>(std::get<1>(addresses))};
}

void rank_addresses(const std::string& dtype, const Rows& image, const Rows& text, std::int64_t width,
                    Address text_to_image, Address positive, const Counts& image_counts,
                    const Counts& text_counts, int threads, const std::string& isa) {
  const RankJob job{matrix(image, dtype, width), matrix(text, dtype, width),
                    pointer<std::int64_t>(text_to_image), pointer<float>(positive),
                    counts(image_counts), counts(text_counts)};
  rank(job, find_isa(isa), threads);
}

const char* top_k_addresses(const std::string& dtype, const Rows& query, const Rows& corpus, std::int64_t width,
                            const std::tuple<Address, Address>& ids, Address max_score, bool normalize,
                            std::int64_t k, const std::tuple<Address, Address, Address>& output, int threads,
                            const std::string& isa) {
  const auto [score, index, count] = output;
  const TopKJob job{matrix(query, dtype, width),
                    matrix(corpus, dtype, width),
                    pointer<std::int64_t>(std::get<0>(ids)),
                    pointer<std::int64_t>(std::get<1>(ids)),
                    pointer(max_score),
                    normalize,
                    k,
                    pointer(score),
                    pointer<std::int64_t>(index),
                    pointer<std::int64_t>(count)};
  return top_k(job, find_isa(isa), threads);
}

void add_listed_addresses(const std::string& dtype, const Rows& rows, const Rows& columns, std::int64_t width,
                          std::int64_t count, const std::tuple<Address, Address, Address>& elements,
                          const std::tuple<Address, Address>& gradients, int threads,
                          const std::string& isa) {
  const auto [row, column, weight] = elements;
  const ListedJob job{matrix(rows, dtype, width),
                      matrix(columns, dtype, width),
                      count,
                      pointer<std::int64_t>(row),
                      pointer<std::int64_t>(column),
                      pointer(weight),
                      pointer(std::get<0>(gradients)),
                      pointer(std::get<1>(gradients))};
  add_listed(job, *find_isa(isa).row, threads);
}

std::int64_t above_addresses(const std::string& dtype, const Rows& rows, const Rows& columns, std::int64_t width,
                             const Pairing& pairing, const std::tuple<Address, Address>& bounds,
                             bool exact, std::int64_t room, const std::tuple<Address, Address, Address>& output, int threads,
                             const std::string& isa) {
  const auto [target, row_ids, column_ids] = pairing;
  const auto [row, column, value] = output;
  const AboveJob job{matrix(rows, dtype, width),
                     matrix(columns, dtype, width),
                     pointer<std::int64_t>(target),
                     pointer<std::int64_t>(row_ids),
                     pointer<std::int64_t>(column_ids),
                     pointer(std::get<0>(bounds)),
                     pointer(std::get<1>(bounds)),
                     exact,
                     room,
                     pointer<std::int64_t>(row),
                     pointer<std::int64_t>(column),
                     pointer(value)};
  return above(job, find_isa(isa), threads);
}

void similarities_addresses(const std::string& dtype, const Rows& rows, const Rows& columns, std::int64_t width,
                            bool across, const std::tuple<Address, std::int64_t, bool>& output, int threads,
                            const std::string& isa) {
  const auto [out, stride, add] = output;
  SimilaritiesJob job{matrix(rows, dtype, width), matrix(columns, dtype, width), pointer(out), stride, add};
  job.rows.across = across;
  similarities(job, find_isa(isa), threads);
}

void logistic_addresses(const std::string& dtype, const Rows& rows, std::int64_t width, Address sums, int threads,
                        const std::string& isa) {
  logistic(matrix(rows, dtype, width), pointer<double>(sums), *find_isa(isa).row, threads);
}

void sample_addresses(const std::string& dtype, const Rows& score, std::int64_t width,
                      const std::tuple<Address, Address>& words, double temperature,
                      const std::tuple<Address, Address>& output, int threads) {
  sample({matrix(score, dtype, width), pointer<std::uint64_t>(std::get<0>(words)),
          pointer<std::uint64_t>(std::get<1>(words)), temperature, pointer<double>(std::get<0>(output)),
          pointer<std::int64_t>(std::get<1>(output))},
         threads);
}

py::dict build_info() {
  py::list usable, emulated;
  for (const Isa& isa : usable_isas()) usable.append(isa.name);
  for (const Isa& isa : emulated_isas()) emulated.append(isa.name);
  py::dict info;
  info["compiler"] = GOAL_KERNELS_COMPILER;
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  info["isa"] = find_isa("auto").name;
  info["compiled_isas"] = compiled_isas();
  info["usable_isas"] = usable;
  info["emulated_isas"] = emulated;
#if defined(GOAL_KERNELS_CUDA)
  const CudaReport report = query_cuda();
  py::list devices;
  for (const CudaDevice& device : report.devices)
    devices.append(py::dict(py::arg("name") = device.name,
                            py::arg("compute_capability") = py::make_tuple(device.major, device.minor),
                            py::arg("multiprocessors") = device.multiprocessors));
  info["cuda"] = py::dict(py::arg("built") = true, py::arg("architecture") = GOAL_KERNELS_CUDA,
                          py::arg("runtime_version") = report.runtime_version,
                          py::arg("driver_version") = report.driver_version,
                          py::arg("devices") = devices, py::arg("reason") = report.reason);
#else
  info["cuda"] = py::dict(py::arg("built") = false, py::arg("devices") = py::list(),
                          py::arg("reason") = "the extension was built without CUDA");
#endif
  return info;
}

}  // namespace
}  // namespace goal_kernels

PYBIND11_MODULE(_native, module) {
  using namespace goal_kernels;
  module.doc() = "Native kernels of goal_kernels on raw addresses; use goal_kernels.backends.";
  module.attr("TRIPLETS") = names(kTriplets);
  module.attr("PAIRS") = names(kPairs);
  bind_cuda(module);
  module.def("score_pairs", &score_pairs_addresses, py::arg("dtype"), py::arg("a"), py::arg("b"),
             py::arg("width"), py::arg("index"), py::arg("similarity"), py::arg("threads"),
             py::arg("isa"), py::call_guard<py::gil_scoped_release>());
  module.def("row_scales", &row_scales_addresses, py::arg("dtype"), py::arg("rows"),
             py::arg("width"), py::arg("scale"), py::arg("threads"), py::arg("isa"),
             py::call_guard<py::gil_scoped_release>());
  module.def("mine", &mine_addresses, py::arg("dtype"), py::arg("image"), py::arg("text"),
             py::arg("width"), py::arg("pairing"), py::arg("relative"), py::arg("row"),
             py::arg("column"), py::arg("precision"), py::arg("threads"), py::arg("isa"),
             py::call_guard<py::gil_scoped_release>());
  module.def("search", &search_addresses, py::arg("dtype"), py::arg("image"), py::arg("text"),
             py::arg("width"), py::arg("pairing"), py::arg("query"), py::arg("output"),
             py::arg("threads"), py::arg("isa"), py::call_guard<py::gil_scoped_release>());
  module.def("forward", &forward_addresses, py::arg("dtype"), py::arg("image"), py::arg("text"),
             py::arg("width"), py::arg("image_ids"), py::arg("text_ids"), py::arg("triplet"),
             py::arg("pair"), py::arg("scalars"), py::arg("direction"), py::arg("normalize"),
             py::arg("precision"), py::arg("output"), py::arg("threads"), py::arg("isa"),
             py::call_guard<py::gil_scoped_release>());
  module.def("apply", &apply_addresses, py::arg("dtype"), py::arg("image"), py::arg("text"),
             py::arg("width"), py::arg("indices"), py::arg("weights"), py::arg("gradients"),
             py::arg("threads"), py::arg("isa"), py::call_guard<py::gil_scoped_release>());
  module.def("rank", &rank_addresses, py::arg("dtype"), py::arg("image"), py::arg("text"),
             py::arg("width"), py::arg("text_to_image"), py::arg("positive"), py::arg("image_counts"),
             py::arg("text_counts"), py::arg("threads"), py::arg("isa"),
             py::call_guard<py::gil_scoped_release>());
  module.def("top_k", &top_k_addresses, py::arg("dtype"), py::arg("query"), py::arg("corpus"),
             py::arg("width"), py::arg("ids"), py::arg("max_score"), py::arg("normalize"), py::arg("k"),
             py::arg("output"), py::arg("threads"), py::arg("isa"),
             py::call_guard<py::gil_scoped_release>());
  module.def("above", &above_addresses, py::arg("dtype"), py::arg("rows"), py::arg("columns"), py::arg("width"),
             py::arg("pairing"), py::arg("bounds"), py::arg("exact"), py::arg("room"), py::arg("output"), py::arg("threads"),
             py::arg("isa"), py::call_guard<py::gil_scoped_release>());
  module.def("add_listed", &add_listed_addresses, py::arg("dtype"), py::arg("rows"), py::arg("columns"),
             py::arg("width"), py::arg("count"), py::arg("elements"), py::arg("gradients"), py::arg("threads"),
             py::arg("isa"), py::call_guard<py::gil_scoped_release>());
  module.def("sample", &sample_addresses, py::arg("dtype"), py::arg("score"), py::arg("width"),
             py::arg("words"), py::arg("temperature"), py::arg("output"), py::arg("threads"),
             py::call_guard<py::gil_scoped_release>());
  module.def("similarities", &similarities_addresses, py::arg("dtype"), py::arg("rows"), py::arg("columns"),
             py::arg("width"), py::arg("across"), py::arg("output"), py::arg("threads"), py::arg("isa"),
             py::call_guard<py::gil_scoped_release>());
  module.def("logistic", &logistic_addresses, py::arg("dtype"), py::arg("rows"), py::arg("width"), py::arg("sums"),
             py::arg("threads"), py::arg("isa"), py::call_guard<py::gil_scoped_release>());
  module.def("build_info", &build_info, "How this module was built and what it found here.");
}
