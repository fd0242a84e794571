#include "base/pack.h"

#define XXH_INLINE_ALL
#include <lz4.h>
#include <sys/random.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace tide {
namespace {

constexpr uint32_t kFailuresMax = 6;  // of pieces that do not shrink one in 2^6 is tried
constexpr uint32_t kDeclinedMax = 64;
constexpr double kUnpackFactor = 4;  // LZ4 unpacks at several times the rate of packing
constexpr double kMargin = 1.0 / 8;  // of the piece's time on the path
constexpr double kNewest = 1.0 / 8;  // weight of the newest measurement

constexpr uint32_t packed_max(uint32_t bytes) { return bytes - bytes / 8; }

}  // namespace

bool parse_pack_mode(const char* text, PackMode* mode) {
  static constexpr const char* kNames[] = {"off", "auto", "on"};
  for (uint32_t i = 0; i < 3; ++i) {
    if (strcmp(text, kNames[i]) != 0) continue;
    *mode = PackMode(i);
    return true;
  }
  return false;
}

ContentHash::ContentHash() {
  static_assert(kSecretBytes >= XXH3_SECRET_SIZE_MIN);
  secret_ = true;
  for (std::byte* secret : secrets_) secret_ = secret_ && getentropy(secret, kSecretBytes) == 0;
}

ContentKey ContentHash::key(const std::byte* data, uint64_t bytes) const {
  return {XXH3_64bits_withSecret(data, bytes, secrets_[0], kSecretBytes),
          XXH3_64bits_withSecret(data, bytes, secrets_[1], kSecretBytes)};
}

std::span<const std::byte> Packer::pack(const std::byte* from, uint32_t bytes) {
  if (bytes == 0 || bytes > kPackedPieceMax) return {};
  if (work_ == nullptr) {
    work_.reset(new std::byte[LZ4_sizeofState()]);
    out_.reset(new std::byte[packed_max(kPackedPieceMax)]);
  }
  const int packed =
      LZ4_compress_fast_extState(work_.get(), reinterpret_cast<const char*>(from), reinterpret_cast<char*>(out_.get()),
                                 int(bytes), int(packed_max(bytes)), 1);
  return {out_.get(), size_t(std::max(packed, 0))};
}

bool Unpacker::unpack(std::span<const std::byte> packed, std::byte* to, uint64_t bytes) {
  if (packed.empty() || bytes == 0 || bytes > kPackedPieceMax || packed.size() > kPackedPieceMax) return false;
  if (in_ == nullptr) in_.reset(new std::byte[kPackedPieceMax]);
  memcpy(in_.get(), packed.data(), packed.size());
  const int unpacked = LZ4_decompress_safe(reinterpret_cast<const char*>(in_.get()), reinterpret_cast<char*>(to),
                                           int(packed.size()), int(bytes));
  return unpacked == int(bytes);
}

// Both ways counted from now, in parts of the time that the piece's own bytes take on the path. While others are ahead
// of it, packing takes nothing away.
bool PackChoice::pays(uint64_t bytes, const Path& path) const {
  const double link = double(path.bytes_per_s);
  const double ahead = double(path.waiting) / double(bytes);
  const double late = std::max(0.0, link / bytes_per_s_ - ahead) + link / (kUnpackFactor * bytes_per_s_);
  return 1 - ratio_ - late > kMargin;
}

bool PackChoice::wants(PackMode mode, uint64_t bytes, const Path& path) {
  if (mode == PackMode::kOff || bytes < kPackedPieceMin) return false;
  if (mode == PackMode::kAuto) {
    if (!path.slow()) return false;
    // What was measured may have been bad luck: a core that was taken away.
    if (declined_ >= kDeclinedMax) {
      bytes_per_s_ = kBytesPerS;
      ratio_ = kRatio;
      declined_ = 0;
    }
    if (!pays(bytes, path)) {
      ++declined_;
      return false;
    }
    declined_ = 0;
  }
  if (skip_ == 0) return true;
  --skip_;
  return false;
}

void PackChoice::tried(uint64_t bytes, uint64_t packed, uint64_t ns) {
  if (packed == 0) {
    failures_ = std::min(failures_ + 1, kFailuresMax);
    skip_ = (1u << failures_) - 1;
    return;
  }
  failures_ = 0;
  bytes_per_s_ += kNewest * (double(bytes) * 1e9 / double(std::max<uint64_t>(ns, 1)) - bytes_per_s_);
  ratio_ += kNewest * (double(packed) / double(bytes) - ratio_);
}

}  // namespace tide
