#pragma once

// Sends parts of copies to a vGPU of another machine in fewer bytes than they have, where that pays: packed, or by
// naming content that the worker keeps (docs/decisions/0009). Belongs to a Vgpu; any thread. Nobody waits for another
// thread's packing: who finds all buffers taken sends the bytes as they are.

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/pack.h"
#include "interpose/content_index.h"
#include "interpose/spin_lock.h"

namespace tide {

class Channel;
struct Stream;

// TIDE_COMPRESS; `auto` where it is not set, or not understood.
PackMode pack_mode();

class Packing {
 public:
  // A part of a copy: `height` rows of `width` bytes, kPackedPieceMax at most, `from_pitch` and `pitch` apart.
  struct Part {
    const std::byte* from = nullptr;
    uint64_t from_pitch = 0;
    uint64_t to = 0, pitch = 0;
    uint64_t width = 0, height = 0;
    uint64_t bytes() const { return width * height; }
  };
  // True: it has been sent, or could not be (*result). False: nothing was done, it may go as it is.
  bool send(Stream& stream, const Part& part, CUresult* result, uint64_t* sequence);
  // Another worker, with nothing in it. Who sends meanwhile may name what it never had, and is refused.
  void forget();

 private:
  struct Buffers {
    std::atomic<bool> taken{false};
    std::unique_ptr<std::byte[]> plain;  // a copy of the part: the program may change its own at any time
    Packer packer;
  };
  struct Plan {
    bool pack = false, keep = false;
    explicit operator bool() const { return pack || keep; }
  };

  Plan plan(PackMode mode, Channel& channel, uint64_t bytes);
  Buffers* take_buffers();
  std::shared_ptr<ContentIndex> contents(Channel& channel);
  ContentKey look(Buffers& buffers, const Part& part, const ContentIndex* index);
  void looked(double ns_per_byte);
  CUresult send_kept(Stream& stream, const Part& part, const ContentKey& key, uint32_t slot, uint64_t* sequence);
  CUresult send_new(Stream& stream, const Part& part, Buffers& buffers, bool pack, ContentIndex* index,
                    const ContentKey& key, uint64_t* sequence);

  static constexpr int kBuffers = 2;                 // 1 MiB each
  static constexpr double kLookNsPerByte = 1.0 / 3;  // until measured

  Buffers buffers_[kBuffers];
  SpinLock lock_;      // of the next three
  PackChoice choice_;  // whether to pack
  double look_ns_per_byte_ = kLookNsPerByte;
  std::shared_ptr<ContentIndex> contents_;
};

}  // namespace tide
