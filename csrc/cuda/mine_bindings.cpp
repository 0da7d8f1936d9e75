#include "mine_bindings.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "mine.h"
#include "mine_shape.h"
#include "protocol_trace.h"

namespace py = pybind11;

namespace goal_kernels::cuda {

namespace {

using Address = std::uintptr_t;  // 0: none
using Rows = std::tuple<Address, std::int64_t, std::int64_t>;  // address, rows, stride in elements
using Pair = std::tuple<Address, Address>;                     // of rows and of columns
using Triple = std::tuple<Address, Address, Address>;          // of target, image_ids, text_ids

template <typename T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

MineMatrix matrix(const Rows& rows) {
  const auto [data, count, stride] = rows;
  if (data % 16 != 0 || stride % 8 != 0)
    throw std::invalid_argument("mine: expected rows whose addresses are multiples of 16 bytes");
  return {pointer<void>(data), count, stride};
}

Operand operand(const std::string& name) {
  if (name == "bfloat16") return Operand::kBfloat16;
  if (name == "float16") return Operand::kFloat16;
  throw std::invalid_argument("operand: expected bfloat16 or float16, got " + name);
}

MineKind kind(const std::string& name) {
  if (name == "none") return MineKind::kNone;
  if (name == "linear") return MineKind::kLinear;
  if (name == "exponential") return MineKind::kExponential;
  throw std::invalid_argument("kind: expected none, linear or exponential, got " + name);
}

MineArguments arguments(const std::string& type, const Rows& image, const Rows& text, int width, bool split,
                        const Triple& pairing, const Triple& ranges, const std::string& relative,
                        const std::tuple<Address, int>& facts, const std::tuple<float, float>& terms,
                        const Pair& keys, const Pair& sums, const Pair& counts, const Pair& tops, int programs) {
  if (width < 8 || width % 8 != 0) throw std::invalid_argument("width: expected a multiple of 8");
  MineArguments result{};
  result.image = matrix(image);
  result.text = matrix(text);
  result.operand = operand(type);
  result.width = width;
  result.split = split;
  result.kind = kind(relative);
  result.target = pointer<std::int64_t>(std::get<0>(pairing));
  result.image_ids = pointer<std::int64_t>(std::get<1>(pairing));
  result.text_ids = pointer<std::int64_t>(std::get<2>(pairing));
  result.target_ranges = pointer<std::int64_t>(std::get<0>(ranges));
  result.image_ranges = pointer<std::int64_t>(std::get<1>(ranges));
  result.text_ranges = pointer<std::int64_t>(std::get<2>(ranges));
  result.facts = pointer<float>(std::get<0>(facts));
  result.parts = std::get<1>(facts);
  std::tie(result.epsilon, result.slope) = terms;
  result.row_keys = pointer<std::int64_t>(std::get<0>(keys));
  result.column_keys = pointer<std::int64_t>(std::get<1>(keys));
  result.row_sums = pointer<float>(std::get<0>(sums));
  result.column_sums = pointer<float>(std::get<1>(sums));
  result.row_counts = pointer<std::int32_t>(std::get<0>(counts));
  result.column_counts = pointer<std::int32_t>(std::get<1>(counts));
  result.row_tops = pointer<std::int64_t>(std::get<0>(tops));
  result.column_tops = pointer<std::int64_t>(std::get<1>(tops));
  result.programs = programs;
  return result;
}

template <typename Run>
void bind_run(py::module_& module, const char* name, Run run) {
  module.def(
      name,
      [run](const std::string& type, const Rows& image, const Rows& text, int width, bool split,
            const Triple& pairing, const Triple& ranges, const std::string& relative,
            const std::tuple<Address, int>& facts, const std::tuple<float, float>& terms, const Pair& keys,
            const Pair& sums, const Pair& counts, const Pair& tops, int programs, Address stream) {
        run(arguments(type, image, text, width, split, pairing, ranges, relative, facts, terms, keys, sums,
                      counts, tops, programs),
            stream);
      },
      py::kw_only(), py::arg("operand"), py::arg("image"), py::arg("text"), py::arg("width"), py::arg("split"),
      py::arg("pairing"), py::arg("ranges"), py::arg("kind"), py::arg("facts"), py::arg("terms"), py::arg("keys"),
      py::arg("sums"), py::arg("counts"), py::arg("tops"), py::arg("programs") = 0, py::arg("stream") = 0,
      py::call_guard<py::gil_scoped_release>());
}

py::dict shape_of(std::int64_t rows, std::int64_t columns, int width, bool split) {
  const MineShape shape = mine_shape(rows, columns, width, split);
  py::dict result;
  result["items"] = shape.items();
  result["segment_tiles"] = shape.segment_tiles;
  result["group_blocks"] = shape.group_blocks;
  result["row_parts"] = mine_row_parts(columns);
  result["column_parts"] = mine_column_parts(rows, columns);
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

}  // namespace

void bind_mine(py::module_& module) {
  py::module_ hopper = module.def_submodule("hopper", "Mining on Hopper GPUs, see csrc/cuda/mine.h.");
  bind_run(hopper, "mine_emulated", [](const MineArguments& call, Address) { mine_emulated(call); });
#if defined(GOAL_KERNELS_CUDA)
  bind_run(hopper, "mine", [](const MineArguments& call, Address stream) {
    mine(call, reinterpret_cast<CUstream_st*>(stream));
  });
#endif
  hopper.def("shape", &shape_of, py::arg("rows"), py::arg("columns"), py::arg("width"), py::arg("split"));
  hopper.def("items", &items_of, py::arg("rows"), py::arg("columns"), py::arg("width"), py::arg("split"));
  hopper.def("protocol", &protocol, py::arg("tiling"), py::arg("slices"), py::arg("split"), py::arg("role"),
             py::arg("program"), py::arg("programs"), py::arg("ring"));
}

}  // namespace goal_kernels::cuda
