#include "bindings_cuda.h"

#include "bindings_fields.h"
#include "cuda/dump.h"
#include "cuda/mine.h"
#include "cuda/mine_shape.h"
#include "cuda/rank.h"
#if defined(GOAL_KERNELS_EMULATION)
#include "bindings_emulation.h"
#endif

namespace py = pybind11;

namespace goal_kernels {
namespace {

using namespace cuda;

constexpr Word<Operand> kOperands[] = {{"bfloat16", Operand::kBfloat16}, {"float16", Operand::kFloat16}};
constexpr Word<MineKind> kKinds[] = {
    {"none", MineKind::kNone}, {"linear", MineKind::kLinear}, {"exponential", MineKind::kExponential}};

template <typename S>
void bind_products(Structure<S>& structure) {
  structure.matrix("image", &S::image)
      .matrix("text", &S::text)
      .word("operand", &S::operand, kOperands)
      .value("width", &S::width)
      .value("split", &S::split)
      .value("programs", &S::programs)
      .value("members", &S::members);
}

void bind_mine(py::module_& module) {
  using S = MineArguments;
  Structure<S> structure(module, "Mine");
  bind_products(structure);
  structure.word("kind", &S::kind, kKinds)
      .address("target", &S::target)
      .address("image_ids", &S::image_ids)
      .address("text_ids", &S::text_ids)
      .address("mixed", &S::mixed)
      .value("mask_words", &S::mask_words)
      .address("batch_stats", &S::batch_stats)
      .value("parts", &S::parts)
      .value("epsilon", &S::epsilon)
      .value("slope", &S::slope)
      .address("row_keys", &S::row_keys)
      .address("column_keys", &S::column_keys)
      .address("row_sums", &S::row_sums)
      .address("column_sums", &S::column_sums)
      .address("row_counts", &S::row_counts)
      .address("column_counts", &S::column_counts)
      .address("row_tops", &S::row_tops)
      .address("column_tops", &S::column_tops);
}

void bind_dump(py::module_& module) {
  Structure<DumpArguments> structure(module, "Dump");
  bind_products(structure);
  structure.address("scores", &DumpArguments::scores);
}

void bind_rank(py::module_& module) {
  using A = ScoreArguments;
  Structure<A>(module, "Score")
      .matrix("image", &A::image)
      .matrix("text", &A::text)
      .word("dtype", &A::dtype, kDtypes)
      .value("width", &A::width)
      .address("owner", &A::owner)
      .address("image_squares", &A::image_squares)
      .address("text_squares", &A::text_squares)
      .address("positive", &A::positive)
      .address("image_operand", &A::image_operand)
      .address("text_operand", &A::text_operand);
  using S = RankArguments;
  Structure<S> structure(module, "Rank");
  bind_products(structure);
  structure.value("scored", &S::scored)
      .address("image_bounds", &S::image_bounds)
      .address("text_bounds", &S::text_bounds)
      .address("image_counts", &S::image_counts)
      .address("text_counts", &S::text_counts);
}

#if defined(GOAL_KERNELS_CUDA)

template <typename S>
void bind_stage(py::module_& module, const char* name, void (*enqueue)(const S&, CUstream_st*)) {
  module.def(
      name, [enqueue](const S& arguments, Address stream) { enqueue(arguments, pointer<CUstream_st>(stream)); },
      py::call_guard<py::gil_scoped_release>());
}

void bind_stages(py::module_& module) {
  bind_stage(module, "mine", &mine);
  bind_stage(module, "score", &score);
  bind_stage(module, "rank", &rank);
  bind_stage(module, "dump", &dump);
}

#endif

// --- How work is cut ----------------------------------------------------------------------------------------

py::dict shape_of(std::int64_t rows, std::int64_t columns, int width, bool split, int members) {
  const MineShape shape = mine_shape(rows, columns, width, split, members);
  py::dict result;
  result["members"] = shape.members;
  result["items"] = shape.items();
  result["segment_tiles"] = shape.segment_tiles;
  result["group_blocks"] = shape.group_blocks;
  return result;
}

// Every (segment, group) in the order of the items.
py::list items_of(std::int64_t rows, std::int64_t columns, int width, bool split, int members) {
  const MineShape shape = mine_shape(rows, columns, width, split, members);
  py::list result;
  for (int i = 0; i < shape.items(); ++i) {
    const Item item = item_at(shape, i);
    result.append(py::make_tuple(item.first_tile, item.tiles, item.first_block, item.blocks));
  }
  return result;
}

void bind_shape(py::module_& module) {
  const auto bind = [&](const char* name, auto function) {
    module.def(name, function, py::arg("rows"), py::arg("columns"), py::arg("width"), py::arg("split"),
               py::arg("members") = 0);
  };
  bind("mine_shape", &shape_of);
  bind("mine_items", &items_of);
}

}  // namespace

void write_field(const Fields& fields, const char* structure, void* to, const std::string& name, py::handle value) {
  const auto field = fields.find(name);
  if (field == fields.end()) throw py::attribute_error(std::string(structure) + " has no field " + name);
  try {
    field->second->write(to, value);
  } catch (const py::cast_error&) {
    throw py::type_error(std::string(structure) + "." + name + ": a value of another type was expected");
  }
}

void bind_cuda(py::module_& root) {
  py::module_ module = root.def_submodule("cuda", "The CUDA kernels, and their emulation on the processor.");
  bind_mine(module);
  bind_rank(module);
  bind_dump(module);
  bind_shape(module);
#if defined(GOAL_KERNELS_CUDA)
  bind_stages(module);
#endif
#if defined(GOAL_KERNELS_EMULATION)
  bind_emulation(module);
#endif
  module.attr("BOUND_UNIT") = kBoundUnit;
  module.attr("BOUND_FIELDS") = int{kBoundFields};
}

}  // namespace goal_kernels
