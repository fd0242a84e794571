#pragma once

// Compression of pieces of copies (LZ4; docs/decisions/0009 says why), and when it pays. What both ends of a channel
// share: either may pack, and either unpacks what the other sent.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace tide {

inline constexpr uint32_t kPackedPieceMax = 512u << 10;  // bytes of one piece, before packing
inline constexpr uint32_t kPackedPieceMin = 4u << 10;    // below, the rest of a record's way costs more than its bytes

enum class PackMode : uint32_t { kOff = 0, kAuto = 1, kOn = 2 };
// "off", "auto", "on"; false for anything else.
bool parse_pack_mode(const char* text, PackMode* mode);

// How the bytes of a tideCopyInPacked are there.
enum class PackForm : uint32_t { kPlain = 0, kPacked = 1, kKept = 2 };

// Of a piece's content: two that are equal are taken for the same content.
struct ContentKey {
  uint64_t low = 0, high = 0;
  bool operator==(const ContentKey&) const = default;
};

// Makes the keys: two hashes (XXH3, 64 bits), each with random numbers of its own. Nobody outside of the process knows
// them, so nobody can make two pieces of content that have one key. Any thread.
class ContentHash {
 public:
  ContentHash();
  // False: the system gave no random numbers, nothing may be recognised.
  explicit operator bool() const { return secret_; }
  ContentKey key(const std::byte* data, uint64_t bytes) const;

 private:
  static constexpr size_t kSecretBytes = 192;

  std::byte secrets_[2][kSecretBytes];
  bool secret_ = false;
};

// The worker keeps pieces in slots, and the client says which slot keeps what.
inline constexpr uint32_t kContentSlotsMax = 2048;       // 1 GiB
inline constexpr uint32_t kContentSlots = 512;           // 256 MiB, where nothing else is set
inline constexpr uint32_t kNoContent = 0xffffffff;       // no slot
inline constexpr uint32_t kContentBytesMin = 64u << 10;  // a smaller piece is not worth a slot

// What packing needs of memory; made at first use, and then kept. One thread at a time.
class Packer {
 public:
  // The piece in fewer bytes, valid until the next call; empty where it does not shrink by an eighth at least.
  std::span<const std::byte> pack(const std::byte* from, uint32_t bytes);

 private:
  std::unique_ptr<std::byte[]> work_, out_;
};

// The packed bytes may be memory that the far side still writes: they are copied out before they are looked at.
class Unpacker {
 public:
  // True when `packed` is `bytes` of content exactly, which are then in `to`; else what is there means nothing.
  bool unpack(std::span<const std::byte> packed, std::byte* to, uint64_t bytes);

 private:
  std::unique_ptr<std::byte[]> in_;
};

// Whether to pack the next piece, by what the last ones gained and what they took. No clock of its own, one thread at a
// time.
class PackChoice {
 public:
  struct Path {
    uint64_t bytes_per_s = 0;  // as measured (transport/link_rate.h); 0: not known
    uint64_t waiting = 0;      // bytes ahead of the piece
    // What is faster is left alone, however well its bytes pack: both ends have other work for their cores.
    bool slow() const { return bytes_per_s != 0 && bytes_per_s <= 500'000'000; }
  };
  // kAuto: only where the piece will arrive earlier so, by more than an eighth of its own time on the path.
  bool wants(PackMode mode, uint64_t bytes, const Path& path);
  // What came of it. `packed`: 0 where it did not shrink.
  void tried(uint64_t bytes, uint64_t packed, uint64_t ns);

 private:
  bool pays(uint64_t bytes, const Path& path) const;

  double bytes_per_s_ = kBytesPerS;  // of packing what shrinks
  double ratio_ = kRatio;
  uint32_t failures_ = 0;  // pieces in a row that did not shrink
  uint32_t skip_ = 0;      // pieces that go without a try
  uint32_t declined_ = 0;  // in a row

  static constexpr double kBytesPerS = 250e6, kRatio = 0.5;  // until measured
};

}  // namespace tide
