#include "model_bindings.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>

#include "mine.h"
#include "mine_shape.h"
#include "protocol_trace.h"

namespace py = pybind11;

namespace goal_kernels::cuda {

namespace {

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

void bind_mine_model(py::module_& module) {
  module.def("mine_shape", &shape_of, py::arg("rows"), py::arg("columns"), py::arg("width"), py::arg("split"));
  module.def("mine_items", &items_of, py::arg("rows"), py::arg("columns"), py::arg("width"), py::arg("split"));
  module.def("mine_protocol", &protocol, py::arg("tiling"), py::arg("slices"), py::arg("split"), py::arg("role"),
             py::arg("program"), py::arg("programs"), py::arg("ring"));
}

}  // namespace goal_kernels::cuda
