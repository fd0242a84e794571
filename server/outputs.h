#pragma once

// The outputs of one command while it is served: each padded to 8 in its kResult record (api/payload.h).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace tide {

class Outputs {
 public:
  // Zeroed room for an output; stays where it is. Null where no record could hold it: the driver refuses null.
  template <class T>
  T* out(uint64_t count) {
    return count > (uint64_t{1} << 40) ? nullptr : reinterpret_cast<T*>(room(count * sizeof(T)));
  }
  bool fits() const { return fits_; }
  std::vector<std::byte> payload() const;

 private:
  std::byte* room(uint64_t bytes);

  struct Part {
    std::unique_ptr<uint64_t[]> words;
    uint64_t bytes;
  };
  std::vector<Part> parts_;
  uint64_t bytes_ = 0;
  bool fits_ = true;
};

}  // namespace tide
