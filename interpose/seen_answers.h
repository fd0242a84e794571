#pragma once

// What the program has been given of a worker that may be lost: by command, a digest of its answer, and how much text.
// The next worker, from a checkpoint, says all of it again, which is compared and dropped.
//
// One thread at a time (the channel's drain_mu_).

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>

#include "base/stream_digest.h"

namespace tide {

// Of one answer, as its parts come.
class AnswerDigest {
 public:
  // False: it is not the next part, `offset` bytes behind the first.
  bool add(uint64_t offset, const void* part, uint64_t bytes) {
    if (offset != digest_.bytes()) return false;
    digest_.add(part, bytes);
    return true;
  }
  void set_result(int32_t result) { result_ = result; }
  uint64_t bytes() const { return digest_.bytes(); }
  bool operator==(const AnswerDigest& other) const {
    return result_ == other.result_ && bytes() == other.bytes() && digest_.digest() == other.digest_.digest();
  }
  Digest digest() const { return digest_.digest(); }
  int32_t result() const { return result_; }

 private:
  StreamDigest digest_;
  int32_t result_ = 0;
};

class SeenAnswers {
 public:
  enum class Verdict { kNew, kRepeated, kDiffers };
  // A part of an answer. `last`: the answer is whole with it, and this was its result; of data, which says nothing of
  // that, when all bytes have come.
  struct Part {
    uint64_t sequence = 0;
    uint64_t offset = 0;
    const void* from = nullptr;
    uint64_t bytes = 0;
    bool data = false, last = false;
    int32_t result = 0;
  };

  // The program has all of it. `compared`: it is the same whenever the command is executed.
  void remember(uint64_t sequence, const AnswerDigest& answer, bool compared);
  // kNew: it was not remembered.
  Verdict take(const Part& part);
  // A checkpoint contains all commands up to this one.
  void drop_to(uint64_t sequence);
  // Another worker begins to repeat them.
  void begin_again() { repeated_.clear(); }
  size_t size() const { return seen_.size(); }

 private:
  struct Seen {
    Digest digest;
    uint64_t bytes = 0;
    int32_t result = 0;
    bool compared = true;
  };
  std::unordered_map<uint64_t, Seen> seen_;
  std::unordered_map<uint64_t, AnswerDigest> repeated_;  // of which a part has come again
};

// Text that kernels print is a stream of bytes for each of two descriptors; what was printed is not printed again.
class SeenText {
 public:
  // `bytes` for this descriptor (1 or 2), in the record that ends at this cursor of the answer ring. How many of them,
  // the first ones, have been printed before.
  uint64_t take(int descriptor, uint64_t bytes, uint64_t cursor);
  // A checkpoint was made when the answer ring stood there.
  void drop_to(uint64_t cursor);
  // The worker of that checkpoint goes on.
  void begin_again(uint64_t cursor);

 private:
  struct Place {
    uint64_t cursor = 0;
    uint64_t said[2] = {};
  };
  Place base_;                // at the checkpoint
  std::deque<Place> places_;  // behind it
  uint64_t printed_[2] = {};
};

}  // namespace tide
