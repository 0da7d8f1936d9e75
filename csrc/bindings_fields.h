// Structures whose fields Python writes by name; they start as zeros and null pointers.
#pragma once

#include <pybind11/pybind11.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "bindings_words.h"
#include "cuda/element.h"

namespace goal_kernels {

// One field of some structure. Its kind is behind a virtual function and not in the type of a property: every type of
// a bound function costs the compiler a good part of a second.
class Field {
 public:
  virtual ~Field() = default;
  virtual void write(void* structure, pybind11::handle value) const = 0;
};

using Fields = std::map<std::string, std::unique_ptr<Field>>;

// Throws what Python knows as AttributeError and TypeError.
void write_field(const Fields& fields, const char* structure, void* to, const std::string& name,
                 pybind11::handle value);

// A `Place` where `Given`, converted by `convert`, is written.
template <typename Place, typename Given, typename Convert>
class ConvertedField : public Field {
 public:
  ConvertedField(std::ptrdiff_t offset, const Convert& convert) : offset_(offset), convert_(convert) {}
  void write(void* structure, pybind11::handle value) const override {
    convert_(*reinterpret_cast<Place*>(static_cast<char*>(structure) + offset_), value.cast<Given>());
  }

 private:
  std::ptrdiff_t offset_;
  Convert convert_;
};

template <typename S>
class Structure {
 public:
  Structure(pybind11::module_& module, const char* name) {
    pybind11::class_<S>(module, name)
        .def(pybind11::init([] { return S{}; }))
        .def("__setattr__", [fields = fields_, name](S& to, const std::string& field, pybind11::handle value) {
          write_field(*fields, name, &to, field, value);
        });
  }

  template <typename T, typename Base>
  Structure& value(const char* name, T Base::*field) {
    return add<T>(name, field, [](T& to, const T& given) { to = given; });
  }
  template <typename T, typename Base>
  Structure& address(const char* name, T* Base::*field) {
    // All pointers are written as one type.
    return add<Address>(name, field, [](Address& to, Address given) { to = given; });
  }
  template <typename T, typename Base, std::size_t kCount>
  Structure& word(const char* name, T Base::*field, const Word<T> (&words)[kCount]) {
    return add<std::string>(
        name, field, [name, &words](T& to, const std::string& given) { to = parse(name, words, given); });
  }
  template <typename Base>
  Structure& matrix(const char* name, cuda::Rows Base::*field) {
    using Tuple = std::tuple<Address, std::int64_t, std::int64_t>;
    return add<Tuple>(name, field, [](cuda::Rows& to, const Tuple& given) {
      to = {pointer<>(std::get<0>(given)), std::get<1>(given), std::get<2>(given)};
    });
  }
  // convert(T&, const Given&).
  template <typename Given, typename T, typename Base, typename Convert>
  Structure& add(const char* name, T Base::*field, const Convert& convert) {
    using Place = std::conditional_t<std::is_pointer_v<T>, Address, T>;
    static const S structure{};
    const auto offset = reinterpret_cast<const char*>(&(structure.*field)) - reinterpret_cast<const char*>(&structure);
    (*fields_)[name] = std::make_unique<ConvertedField<Place, Given, Convert>>(offset, convert);
    return *this;
  }

 private:
  std::shared_ptr<Fields> fields_ = std::make_shared<Fields>();
};

}  // namespace goal_kernels
