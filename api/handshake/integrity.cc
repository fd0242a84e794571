// The CUDA runtime's integrity question, answered for interoperability: the runtime asks the driver library for a
// digest over facts that both know (versions, process, thread, table addresses, devices) and refuses to work without
// it. The digest is HMAC (RFC 2104) over MD2 (RFC 1319) with a fixed key; that it is asked, and of which facts, is
// publicly described by ZLUDA (dark_api/src/lib.rs). docs/interoperability.md says why we answer and how to build
// without it.

#include <pthread.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "api/handshake/tables.h"
#include "base/log.h"

namespace tide::handshake {

#if TIDE_INTEGRITY

namespace {

// The substitution table of RFC 1319.
constexpr uint8_t kPi[256] = {
    41,  46,  67,  201, 162, 216, 124, 1,   61,  54,  84,  161, 236, 240, 6,   19,  98,  167, 5,   243, 192, 199,
    115, 140, 152, 147, 43,  217, 188, 76,  130, 202, 30,  155, 87,  60,  253, 212, 224, 22,  103, 66,  111, 24,
    138, 23,  229, 18,  190, 78,  196, 214, 218, 158, 222, 73,  160, 251, 245, 142, 187, 47,  238, 122, 169, 104,
    121, 145, 21,  178, 7,   63,  148, 194, 16,  137, 11,  34,  95,  33,  128, 127, 93,  154, 90,  144, 50,  39,
    53,  62,  204, 231, 191, 247, 151, 3,   255, 25,  48,  179, 72,  165, 181, 209, 215, 94,  146, 42,  172, 86,
    170, 198, 79,  184, 56,  210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4,   241, 69,  157, 112, 89,
    100, 113, 135, 32,  134, 91,  207, 101, 230, 45,  168, 2,   27,  96,  37,  173, 174, 176, 185, 246, 28,  70,
    97,  105, 52,  64,  126, 15,  85,  71,  163, 35,  221, 81,  175, 58,  195, 92,  249, 206, 186, 197, 234, 38,
    44,  83,  13,  110, 133, 40,  132, 9,   211, 223, 205, 244, 65,  129, 77,  82,  106, 220, 55,  200, 108, 193,
    171, 250, 36,  225, 123, 8,   12,  189, 177, 74,  120, 136, 149, 139, 227, 99,  232, 109, 233, 203, 213, 254,
    59,  0,   29,  57,  242, 239, 183, 14,  102, 88,  208, 228, 166, 119, 114, 248, 235, 117, 75,  10,  49,  68,
    80,  180, 143, 237, 31,  26,  219, 153, 141, 51,  159, 17,  131, 20};

constexpr size_t kBlock = 16;

class Md2 {
 public:
  void add(uint8_t byte) {
    block_[used_++] = byte;
    if (used_ == kBlock) take_block();
  }

  template <typename T>
  void add_value(const T& value) {
    uint8_t bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    for (const uint8_t byte : bytes) add(byte);
  }

  void add_key(const uint8_t key[kBlock], uint8_t mask) {
    for (size_t i = 0; i < kBlock; ++i) add(key[i] ^ mask);
  }

  void finish(uint8_t digest[kBlock]) {
    const auto padding = static_cast<uint8_t>(kBlock - used_);
    for (uint8_t i = 0; i < padding; ++i) add(padding);
    uint8_t checksum[kBlock];
    std::memcpy(checksum, checksum_, kBlock);
    for (const uint8_t byte : checksum) add(byte);
    std::memcpy(digest, state_, kBlock);
  }

 private:
  void take_block() {
    used_ = 0;
    uint8_t last = checksum_[kBlock - 1];
    for (size_t i = 0; i < kBlock; ++i) last = checksum_[i] ^= kPi[block_[i] ^ last];
    for (size_t i = 0; i < kBlock; ++i) {
      state_[kBlock + i] = block_[i];
      state_[2 * kBlock + i] = state_[i] ^ block_[i];
    }
    uint8_t t = 0;
    for (uint8_t round = 0; round < 18; ++round) {
      for (uint8_t& byte : state_) t = byte ^= kPi[t];
      t = static_cast<uint8_t>(t + round);
    }
  }

  uint8_t state_[3 * kBlock] = {};
  uint8_t checksum_[kBlock] = {};
  uint8_t block_[kBlock] = {};
  size_t used_ = 0;
};

constexpr uint8_t kKey[kBlock] = {0x14, 0x6A, 0xDD, 0xAE, 0x53, 0xA9, 0xA7, 0x52,
                                  0xAA, 0x08, 0x41, 0x36, 0x0B, 0xF5, 0x5A, 0x9F};

void add_process(Md2& hash, uint32_t version, uint64_t unix_seconds) {
  hash.add_value(static_cast<uint32_t>(hooks().driver_version()));
  hash.add_value(version);
  hash.add_value(static_cast<uint32_t>(getpid()));
  hash.add_value(static_cast<uint32_t>(reinterpret_cast<uintptr_t>(reinterpret_cast<void*>(pthread_self()))));
  hash.add_value(cudart_interface_table());
  hash.add_value(integrity_table());
  hash.add_value(reinterpret_cast<const void*>(&integrity_check));
  hash.add_value(unix_seconds);
}

void add_devices(Md2& hash) {
  const int count = hooks().device_count();
  for (int device = 0; device < count; ++device) {
    uint8_t uuid[16] = {};
    int32_t pci[3] = {};
    hooks().device_identity(device, uuid, pci);
    hash.add_value(uuid);
    hash.add_value(pci);
  }
}

}  // namespace

CUresult integrity_check(uint32_t version, uint64_t unix_seconds, uint64_t answer[2]) {
  if (answer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (version % 10 < 2) {  // these two versions of the question have fixed answers
    answer[0] = version % 10 == 0 ? 0x3341181C03CB675C : 0x1841181C03CB675C;
    answer[1] = 0x8ED383AA1F4CD1E8;
    return CUDA_SUCCESS;
  }
  uint8_t digest[kBlock];
  Md2 inner;
  inner.add_key(kKey, 0x36);
  add_process(inner, version, unix_seconds);
  add_devices(inner);
  inner.finish(digest);
  Md2 outer;
  outer.add_key(kKey, 0x5c);
  outer.add_value(digest);
  outer.finish(digest);
  std::memcpy(answer, digest, sizeof(digest));
  return CUDA_SUCCESS;
}

#else

CUresult integrity_check(uint32_t, uint64_t, uint64_t*) {
  log(LogLevel::kError,
      "this build does not answer the CUDA runtime's integrity question (meson option 'integrity' is false): programs "
      "that use the CUDA runtime cannot start; programs that use only the driver API can");
  return CUDA_ERROR_NOT_SUPPORTED;
}

#endif

}  // namespace tide::handshake
