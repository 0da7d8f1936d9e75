#include "bindings_cuda.h"

#include "bindings_fields.h"
#include "cuda/mine.h"
#include "cuda/mine_shape.h"
#include "cuda/protocol_trace.h"
#include "cuda/rank.h"

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
      .value("programs", &S::programs);
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

// `name` with a stream, and `name_emulated`; null where it was not built.
template <typename S>
void bind_stage(py::module_& module, const std::string& name, void (*on_gpu)(const S&, CUstream_st*),
                void (*emulated)(const S&)) {
  using Released = py::call_guard<py::gil_scoped_release>;
  if (emulated != nullptr) module.def((name + "_emulated").c_str(), emulated, Released());
  if (on_gpu == nullptr) return;
  module.def(
      name.c_str(),
      [on_gpu](const S& arguments, Address stream) { on_gpu(arguments, pointer<CUstream_st>(stream)); },
      Released());
}

#if defined(GOAL_KERNELS_CUDA)
#define GOAL_KERNELS_ON_GPU(name) &cuda::name
#else
#define GOAL_KERNELS_ON_GPU(name) nullptr
#endif
#if defined(GOAL_KERNELS_EMULATION)
#define GOAL_KERNELS_EMULATED(name) &cuda::name##_emulated
#else
#define GOAL_KERNELS_EMULATED(name) nullptr
#endif
#define GOAL_KERNELS_STAGE(name) #name, GOAL_KERNELS_ON_GPU(name), GOAL_KERNELS_EMULATED(name)

void bind_stages(py::module_& module) {
  bind_stage<MineArguments>(module, GOAL_KERNELS_STAGE(mine));
  bind_stage<ScoreArguments>(module, GOAL_KERNELS_STAGE(score));
  bind_stage<RankArguments>(module, GOAL_KERNELS_STAGE(rank));
}

#if defined(GOAL_KERNELS_EMULATION)

// --- What tests ask about the work of the tile kernels and their barriers ------------------------------------

py::dict shape_of(std::int64_t rows, std::int64_t columns, int width, bool split) {
  const MineShape shape = mine_shape(rows, columns, width, split);
  py::dict result;
  result["items"] = shape.items();
  result["segment_tiles"] = shape.segment_tiles;
  result["group_blocks"] = shape.group_blocks;
  return result;
}

// Every (segment, group) in the order of the items.
py::list items_of(std::int64_t rows, std::int64_t columns, int width, bool split) {
  const MineShape shape = mine_shape(rows, columns, width, split);
  py::list result;
  for (int i = 0; i < shape.items(); ++i) {
    const Item item = item_at(shape, i);
    result.append(py::make_tuple(item.first_tile, item.tiles, item.first_block, item.blocks));
  }
  return result;
}

// (kind, barrier, index, parity, [(slot, content)...]) of every step of a role, see protocol_trace.h.
py::list protocol(const std::tuple<int, int, int, int>& tiling, int slices, bool split, int role, int program,
                  int programs, int ring) {
  constexpr const char* kKinds[] = {"wait", "arrive", "load", "multiply", "retire"};
  constexpr const char* kBarriers[] = {"full", "empty", "text_full", "text_empty", "turn"};
  MineShape shape{};
  std::tie(shape.tiles, shape.blocks, shape.segment_tiles, shape.group_blocks) = tiling;
  shape.segments = (shape.tiles + shape.segment_tiles - 1) / shape.segment_tiles;
  shape.groups = (shape.blocks + shape.group_blocks - 1) / shape.group_blocks;
  shape.chunk_segments = shape.segments;
  shape.slices = slices;
  shape.split = split;
  py::list result;
  for (const ProtocolStep& step : protocol_trace(shape, role, program, programs, ring)) {
    py::list uses;
    const int count = step.kind == ProtocolStep::kLoad ? 1 : step.kind == ProtocolStep::kMultiply ? 2 : 0;
    for (int i = 0; i < count; ++i) uses.append(py::make_tuple(step.uses[i].slot, step.uses[i].content));
    result.append(py::make_tuple(kKinds[step.kind], kBarriers[static_cast<int>(step.barrier)], step.index,
                                 step.parity, uses));
  }
  return result;
}

void bind_model(py::module_& module) {
  module.def("mine_shape", &shape_of, py::arg("rows"), py::arg("columns"), py::arg("width"), py::arg("split"));
  module.def("mine_items", &items_of, py::arg("rows"), py::arg("columns"), py::arg("width"), py::arg("split"));
  module.def("mine_protocol", &protocol, py::arg("tiling"), py::arg("slices"), py::arg("split"), py::arg("role"),
             py::arg("program"), py::arg("programs"), py::arg("ring"));
}

#endif

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
  bind_stages(module);
#if defined(GOAL_KERNELS_EMULATION)
  bind_model(module);
#endif
  module.attr("BOUND_UNIT") = kBoundUnit;
  module.attr("BOUND_FIELDS") = int{kBoundFields};
}

}  // namespace goal_kernels
