// Uninitialised, cache-line aligned array. Untouched pages cost no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace goal_kernels {

template <typename T>
class Buffer {
 public:
  explicit Buffer(std::int64_t length)
      : data_(static_cast<T*>(
            ::operator new(static_cast<std::size_t>(length) * sizeof(T), kAlignment))) {}
  ~Buffer() { ::operator delete(data_, kAlignment); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return data_; }
  T& operator[](std::int64_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  T* data_;
};

}  // namespace goal_kernels
