// What the bindings of all backends share: addresses, and the words of Python for what is an enum here.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "cpu/types.h"
#include "formulas.h"

namespace goal_kernels {

using Address = std::uintptr_t;
using Scalars = std::tuple<double, double, double, double, double, double>;  // in the order of WeightRule

template <typename T = void>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

template <typename T>
struct Word {
  const char* name;
  T value;
};

inline constexpr Word<Dtype> kDtypes[] = {{"float32", Dtype::float32},
                                          {"float64", Dtype::float64},
                                          {"bfloat16", Dtype::bfloat16},
                                          {"float16", Dtype::float16}};
inline constexpr Word<Triplet> kTriplets[] = {{"constant", Triplet::constant},
                                              {"nca", Triplet::nca},
                                              {"circle", Triplet::circle},
                                              {"hinge", Triplet::hinge}};
inline constexpr Word<Pair> kPairs[] = {{"constant", Pair::constant},
                                        {"linear", Pair::linear},
                                        {"sigmoid", Pair::sigmoid},
                                        {"linear_ms", Pair::linear_ms},
                                        {"sigmoid_ms", Pair::sigmoid_ms}};

template <typename T, std::size_t kCount>
T parse(const char* what, const Word<T> (&words)[kCount], const std::string& name) {
  std::string known;
  for (const Word<T>& word : words) {
    if (name == word.name) return word.value;
    known += std::string(known.empty() ? "" : ", ") + word.name;
  }
  throw std::invalid_argument(std::string(what) + ": expected one of " + known + ", got " + name);
}

template <typename T, std::size_t kCount>
pybind11::list names(const Word<T> (&words)[kCount]) {
  pybind11::list result;
  for (const Word<T>& word : words) result.append(word.name);
  return result;
}

inline WeightRule weight_rule(const std::string& triplet, const std::string& pair, const Scalars& scalars,
                              const std::string& direction) {
  if (direction != "both" && direction != "i2t" && direction != "t2i")
    throw std::invalid_argument("direction: expected both, i2t or t2i, got " + direction);
  const auto [tau, alpha, beta, lam, epsilon, margin] = scalars;
  return {parse("triplet", kTriplets, triplet),
          parse("pair", kPairs, pair),
          tau,
          alpha,
          beta,
          lam,
          epsilon,
          margin,
          direction != "t2i",
          direction != "i2t"};
}

}  // namespace goal_kernels
