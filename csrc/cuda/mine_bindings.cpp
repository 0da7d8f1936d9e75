#include "mine_bindings.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "mine.h"

namespace py = pybind11;

namespace goal_kernels::cuda {

namespace {

using Address = std::uintptr_t;  // 0: none
using Rows = std::tuple<Address, std::int64_t, std::int64_t>;  // address, rows, stride in elements

template <typename T>
void address(py::class_<MineArguments>& structure, const char* name, T* MineArguments::*field) {
  structure.def_property(
      name, nullptr, [field](MineArguments& to, Address value) { to.*field = reinterpret_cast<T*>(value); });
}

void matrix(py::class_<MineArguments>& structure, const char* name, MineMatrix MineArguments::*field) {
  structure.def_property(name, nullptr, [field](MineArguments& to, const Rows& value) {
    to.*field = {reinterpret_cast<void*>(std::get<0>(value)), std::get<1>(value), std::get<2>(value)};
  });
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

void bind_arguments(py::module_& module) {
  using S = MineArguments;
  py::class_<S> structure(module, "Mine");
  structure.def(py::init([] { return S{}; }));
  matrix(structure, "image", &S::image);
  matrix(structure, "text", &S::text);
  structure.def_property("operand", nullptr, [](S& to, const std::string& name) { to.operand = operand(name); });
  structure.def_property("kind", nullptr, [](S& to, const std::string& name) { to.kind = kind(name); });
  structure.def_readwrite("width", &S::width).def_readwrite("split", &S::split);
  structure.def_readwrite("parts", &S::parts).def_readwrite("programs", &S::programs);
  structure.def_readwrite("epsilon", &S::epsilon).def_readwrite("slope", &S::slope);
  address(structure, "target", &S::target);
  address(structure, "image_ids", &S::image_ids);
  address(structure, "text_ids", &S::text_ids);
  address(structure, "target_ranges", &S::target_ranges);
  address(structure, "image_ranges", &S::image_ranges);
  address(structure, "text_ranges", &S::text_ranges);
  address(structure, "facts", &S::facts);
  address(structure, "row_keys", &S::row_keys);
  address(structure, "column_keys", &S::column_keys);
  address(structure, "row_sums", &S::row_sums);
  address(structure, "column_sums", &S::column_sums);
  address(structure, "row_counts", &S::row_counts);
  address(structure, "column_counts", &S::column_counts);
  address(structure, "row_tops", &S::row_tops);
  address(structure, "column_tops", &S::column_tops);
}

}  // namespace

void bind_mine(py::module_& module) {
  bind_arguments(module);
  module.def("mine_emulated", &mine_emulated, py::call_guard<py::gil_scoped_release>());
#if defined(GOAL_KERNELS_CUDA)
  module.def(
      "mine",
      [](const MineArguments& call, Address stream) { mine(call, reinterpret_cast<CUstream_st*>(stream)); },
      py::call_guard<py::gil_scoped_release>());
#endif
}

}  // namespace goal_kernels::cuda
