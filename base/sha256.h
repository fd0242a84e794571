#pragma once

// SHA-256 (OpenSSL's), to name bytes that others may offer: nobody can make two images of one name.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tide {

using Sha256 = std::array<uint8_t, 32>;

class Sha256Sum {
 public:
  Sha256Sum();
  void add(std::span<const std::byte> bytes);
  Sha256 end();

 private:
  alignas(8) std::byte state_[128];  // a SHA256_CTX
};

Sha256 sha256(std::span<const std::byte> bytes);

}  // namespace tide
