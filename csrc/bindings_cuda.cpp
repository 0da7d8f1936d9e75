#include "bindings_cuda.h"

#include <pybind11/stl.h>

#include "bindings_words.h"
#include "cuda/apply.h"
#include "cuda/finish.h"
#include "cuda/mine.h"
#include "cuda/prepare.h"
#include "cuda/resum.h"

namespace py = pybind11;

namespace goal_kernels {
namespace {

using namespace cuda;

constexpr Word<OperandForm> kForms[] = {
    {"rows", OperandForm::kRows}, {"copy", OperandForm::kCopy}, {"split", OperandForm::kSplit}};

// A structure whose fields Python writes; they start as zeros and null pointers.
template <typename S>
class Structure {
 public:
  Structure(py::module_& module, const char* name) : class_(module, name) {
    class_.def(py::init([] { return S{}; }));
  }

  template <typename T>
  Structure& value(const char* name, T S::*field) {
    class_.def_readwrite(name, field);
    return *this;
  }
  template <typename T>
  Structure& address(const char* name, T* S::*field) {
    return write<Address>(name, [field](S& s, Address to) { s.*field = reinterpret_cast<T*>(to); });
  }
  template <typename T, std::size_t kCount>
  Structure& word(const char* name, T S::*field, const Word<T> (&words)[kCount]) {
    return write<std::string>(
        name, [=, &words](S& s, const std::string& to) { s.*field = parse(name, words, to); });
  }
  Structure& matrix(const char* name, Rows S::*field) {
    using Tuple = std::tuple<Address, std::int64_t, std::int64_t>;
    return write<Tuple>(name, [field](S& s, const Tuple& to) {
      s.*field = {pointer<>(std::get<0>(to)), std::get<1>(to), std::get<2>(to)};
    });
  }
  template <typename T>
  Structure& pair(const char* name, T (S::*field)[2]) {
    return write<std::tuple<T, T>>(name, [field](S& s, const std::tuple<T, T>& to) {
      (s.*field)[0] = std::get<0>(to);
      (s.*field)[1] = std::get<1>(to);
    });
  }
  template <typename T, typename Setter>
  Structure& write(const char* name, const Setter& setter) {
    class_.def_property(name, nullptr, [setter](S& s, const T& to) { setter(s, to); });
    return *this;
  }

 private:
  py::class_<S> class_;
};

void bind_prepare(py::module_& module) {
  using S = PrepareArguments;
  Structure<S>(module, "Prepare")
      .matrix("image", &S::image)
      .matrix("text", &S::text)
      .word("dtype", &S::dtype, kDtypes)
      .value("width", &S::width)
      .value("normalize", &S::normalize)
      .word("form", &S::form, kForms)
      .value("operand_width", &S::operand_width)
      .address("image_operand", &S::image_operand)
      .address("text_operand", &S::text_operand)
      .address("target", &S::target)
      .address("image_ids", &S::image_ids)
      .address("text_ids", &S::text_ids)
      .address("target_ranges", &S::target_ranges)
      .address("image_ranges", &S::image_ranges)
      .address("text_ranges", &S::text_ranges)
      .address("threshold", &S::threshold)
      .address("positive", &S::positive)
      .address("image_scale", &S::image_scale)
      .address("text_scale", &S::text_scale)
      .address("facts", &S::facts)
      .value("parts", &S::parts)
      .address("row_keys", &S::row_keys)
      .address("column_keys", &S::column_keys)
      .address("row_counts", &S::row_counts)
      .address("column_counts", &S::column_counts)
      .address("tickets", &S::tickets);
}

void bind_finish(py::module_& module) {
  using A = cuda::AnchorOutput;
  Structure<A>(module, "Anchors")
      .address("value", &A::value)
      .address("index", &A::index)
      .address("sum", &A::sum)
      .address("count", &A::count);
  using S = FinishArguments;
  Structure<S>(module, "Finish")
      .value("mined", &S::mined)
      .value("row_parts", &S::row_parts)
      .value("column_parts", &S::column_parts)
      .value("rescore", &S::rescore)
      .matrix("image", &S::image)
      .matrix("text", &S::text)
      .word("dtype", &S::dtype, kDtypes)
      .value("width", &S::width)
      .address("image_scale", &S::image_scale)
      .address("text_scale", &S::text_scale)
      .value("row", &S::row)
      .value("column", &S::column);
}

void bind_weigh(py::module_& module) {
  using S = WeighArguments;
  using Rule = std::tuple<std::string, std::string, Scalars, std::string>;
  Structure<S>(module, "Weigh")
      .value("finish", &S::finish)
      .write<Rule>("rule", [](S& s, const Rule& to) { s.rule = std::apply(weight_rule, to); })
      .address("positive", &S::positive)
      .address("pool", &S::pool)
      .address("pool_sums", &S::pool_sums)
      .address("pool_offsets", &S::pool_offsets)
      .address("positive_weight", &S::positive_weight)
      .address("row_weight", &S::row_weight)
      .address("column_weight", &S::column_weight)
      .address("anchor_values", &S::anchor_values)
      .address("group_values", &S::group_values)
      .address("tickets", &S::tickets)
      .address("value", &S::value);
}

void bind_apply(py::module_& module) {
  using L = InverseList;
  Structure<L>(module, "InverseList")
      .address("keys", &L::keys)
      .value("entries", &L::entries)
      .value("rows", &L::rows)
      .address("order", &L::order)
      .address("starts", &L::starts);
  Structure<InvertArguments>(module, "Invert").pair("lists", &InvertArguments::lists);
  using S = GatherSide;
  Structure<S>(module, "GatherSide")
      .address("out", &S::out)
      .matrix("own", &S::own)
      .address("own_scale", &S::own_scale)
      .matrix("source", &S::source)
      .address("source_scale", &S::source_scale)
      .address("mined_index", &S::mined_index)
      .address("mined_weight", &S::mined_weight)
      .address("mined_value", &S::mined_value)
      .address("positive_index", &S::positive_index)
      .address("positive_weight", &S::positive_weight)
      .address("positive_value", &S::positive_value)
      .value("list", &S::list)
      .address("entry_weight", &S::entry_weight)
      .address("entry_value", &S::entry_value)
      .address("partial", &S::partial);
  using G = GatherArguments;
  Structure<G>(module, "Gather")
      .pair("sides", &G::sides)
      .address("grad_loss", &G::grad_loss)
      .word("dtype", &G::dtype, kDtypes)
      .value("width", &G::width);
}

// `name_emulated`, and `name` with a stream if there is one to build.
template <typename S>
void bind_stage(py::module_& module, const std::string& name, void (*on_gpu)(const S&, CUstream_st*),
                void (*emulated)(const S&)) {
  using Released = py::call_guard<py::gil_scoped_release>;
  module.def((name + "_emulated").c_str(), emulated, Released());
  if (on_gpu == nullptr) return;
  module.def(
      name.c_str(),
      [on_gpu](const S& arguments, Address stream) { on_gpu(arguments, pointer<CUstream_st>(stream)); },
      Released());
}

#if defined(GOAL_KERNELS_CUDA)
#define GOAL_KERNELS_STAGE(name) #name, &cuda::name, &cuda::name##_emulated
#else
#define GOAL_KERNELS_STAGE(name) #name, nullptr, &cuda::name##_emulated
#endif

}  // namespace

void bind_cuda(py::module_& root) {
  py::module_ module = root.def_submodule("cuda", "The CUDA kernels, and their emulation on the processor.");
  bind_prepare(module);
  bind_finish(module);
  bind_weigh(module);
  bind_apply(module);
  bind_stage<PrepareArguments>(module, GOAL_KERNELS_STAGE(prepare));
  bind_stage<MineArguments>(module, GOAL_KERNELS_STAGE(resum));
  bind_stage<FinishArguments>(module, GOAL_KERNELS_STAGE(finish));
  bind_stage<WeighArguments>(module, GOAL_KERNELS_STAGE(weigh));
  bind_stage<InvertArguments>(module, GOAL_KERNELS_STAGE(invert));
  bind_stage<GatherArguments>(module, GOAL_KERNELS_STAGE(gather));
  module.def("prepare_parts", &prepare_parts);
  module.def("mine_row_parts", &mine_row_parts);
  module.def("mine_column_parts", &mine_column_parts);
  module.attr("POOL_CHUNK") = kPoolChunk;
  module.attr("VALUE_GROUP") = kValueGroup;
  module.attr("HUB_CHUNK") = kHubChunk;
  module.attr("RANGE_ROWS") = kRangeRows;
}

}  // namespace goal_kernels
