#include "bindings_emulation.h"

#include <pybind11/stl.h>

#include "emulated_tiles.h"

namespace py = pybind11;

namespace goal_kernels {
namespace {

using namespace cuda;

constexpr const char* kKinds[] = {"initialize", "wait",    "arrive", "expect",     "copy",       "fence",
                                  "product",    "commit",  "retire", "pass",       "begin_pass", "begin_tile",
                                  "finish_tile", "finish_pass"};

using Place = std::tuple<int, int, int>;  // Coordinates

Place place_of(const Coordinates& at) { return {at.element, at.half, at.row}; }

void bind_instruction(py::module_& module) {
  py::class_<Instruction>(module, "Instruction")
      .def_property_readonly("kind", [](const Instruction& self) { return kKinds[self.kind]; })
      .def_readwrite("member", &Instruction::member)
      .def_readwrite("barrier", &Instruction::barrier)
      .def_readwrite("number", &Instruction::number)
      .def_readwrite("slot", &Instruction::slot)
      .def_readwrite("map", &Instruction::map)
      .def_readwrite("first", &Instruction::first)
      .def_readwrite("image", &Instruction::image)
      .def_readwrite("text", &Instruction::text)
      .def_readwrite("add", &Instruction::add)
      .def_readonly("tile", &Instruction::tile)
      .def_readonly("block", &Instruction::block)
      .def_property_readonly("text_at", [](const Instruction& self) { return place_of(self.text_at); })
      .def_property(
          "at", [](const Instruction& self) { return place_of(self.at); },
          [](Instruction& self, const Place& at) { std::tie(self.at.element, self.at.half, self.at.row) = at; });
}

void bind_tensor_map(py::module_& module) {
  using Sides = std::array<std::uint64_t, 3>;
  py::class_<TensorMap>(module, "TensorMap")
      .def_property(
          "extents", [](const TensorMap& self) { return Sides{self.extents[0], self.extents[1], self.extents[2]}; },
          [](TensorMap& self, const Sides& extents) { std::copy(extents.begin(), extents.end(), self.extents); })
      .def_property(
          "strides", [](const TensorMap& self) { return std::pair(self.strides[0], self.strides[1]); },
          [](TensorMap& self, const std::pair<std::uint64_t, std::uint64_t>& strides) {
            std::tie(self.strides[0], self.strides[1]) = strides;
          })
      .def_property(
          "box", [](const TensorMap& self) { return Sides{self.box[0], self.box[1], self.box[2]}; },
          [](TensorMap& self, const Sides& box) { std::copy(box.begin(), box.end(), self.box); })
      .def_property(
          "swizzle", [](const TensorMap& self) { return static_cast<int>(self.swizzle); },
          [](TensorMap& self, int swizzle) { self.swizzle = static_cast<Swizzle>(swizzle); });
}

// tiling: tiles, blocks, tiles of a segment, blocks of a group.
Programs record_tiling(const std::tuple<int, int, int, int>& tiling, int slices, bool split, int program, int programs,
                       int ring, int members) {
  MineShape shape{};
  std::tie(shape.tiles, shape.blocks, shape.segment_tiles, shape.group_blocks) = tiling;
  shape.segments = (shape.tiles + shape.segment_tiles - 1) / shape.segment_tiles;
  shape.groups = (shape.blocks + shape.group_blocks - 1) / shape.group_blocks;
  shape.chunk_segments = shape.segments;
  shape.slices = slices;
  shape.split = split;
  shape.members = members;
  return record(shape, program, programs, ring);
}

}  // namespace

void bind_emulation(py::module_& module) {
  using Released = py::call_guard<py::gil_scoped_release>;
  using DumpTiles = DumpEpilogue<HostWarp>;
  module.def("mine_emulated", &mine_emulated, Released());
  module.def("score_emulated", &score_emulated, Released());
  module.def("rank_emulated", &rank_emulated, Released());
  module.def("dump_emulated", &run_tiles<DumpTiles>, Released());
  bind_instruction(module);
  bind_tensor_map(module);
  module.def("record", &record_tiling, py::arg("tiling"), py::arg("slices"), py::arg("split"), py::arg("program") = 0,
             py::arg("programs") = 1, py::arg("ring") = int{kRingSlots}, py::arg("members") = 1);
  module.def("tensor_maps", [](const DumpArguments& arguments) { return maps_of(arguments); });
  module.def("run_dump", &run_programs<DumpTiles>, Released());
}

}  // namespace goal_kernels
