#pragma once

// Where the module's .global and .const variables lie, and how the image is filled.

#include <string>
#include <unordered_map>
#include <vector>

#include "softgpu/exec/program.h"
#include "softgpu/ptx/ast.h"

namespace softgpu {

class ImageLayout {
 public:
  // Lays out the variables of the module. False, with *error set, when an initialiser names an unknown symbol.
  bool build(const ptx::Module& module, std::string* error);

  const std::vector<GlobalInfo>& globals() const { return globals_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t constant_bytes() const { return constant_bytes_; }
  // Offset of a variable, by its index in the module; false for those that are not in the image.
  bool offset_of(uint32_t variable, uint64_t* out) const;
  void fill(uint64_t image_address, std::byte* host) const;

 private:
  struct Relocation {
    uint64_t offset;
    uint32_t bytes;
    uint64_t value;
    bool to_image;  // value is an offset in the image
    uint64_t mask;
  };
  bool initialise(const ptx::Module& module, const ptx::Variable& v, uint64_t at, std::string* error);

  std::vector<GlobalInfo> globals_;
  std::vector<int64_t> offsets_;  // of each variable of the module, -1 for none
  std::vector<std::byte> initial_;
  std::vector<Relocation> relocations_;
  uint64_t bytes_ = 0;
  uint64_t constant_bytes_ = 0;
};

}  // namespace softgpu
