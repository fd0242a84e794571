#include "base/sha256.h"

#define OPENSSL_SUPPRESS_DEPRECATED  // the newer interface would bring all of OpenSSL along
#include <openssl/sha.h>

namespace tide {
namespace {

SHA256_CTX* context(std::byte* state) { return reinterpret_cast<SHA256_CTX*>(state); }

}  // namespace

Sha256Sum::Sha256Sum() {
  static_assert(sizeof(SHA256_CTX) <= sizeof(state_));
  SHA256_Init(context(state_));
}

void Sha256Sum::add(std::span<const std::byte> bytes) { SHA256_Update(context(state_), bytes.data(), bytes.size()); }

Sha256 Sha256Sum::end() {
  Sha256 sum;
  SHA256_Final(sum.data(), context(state_));
  return sum;
}

Sha256 sha256(std::span<const std::byte> bytes) {
  Sha256Sum sum;
  sum.add(bytes);
  return sum.end();
}

}  // namespace tide
