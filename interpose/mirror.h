#pragma once

// A block of host memory that is there twice: where the program has it, and where kernels find it, in the worker's
// process or in pages that it shares with this one. Both sides write; a third copy, of what both had last, tells byte
// by byte who changed what, so that neither overwrites what the other did beside it. No order holds between bytes that
// do not share an aligned word of 8, but by pushing and pulling.
//
// What is looked at: of the program's side the pages that were written (page_watch.h), or all where that is not known;
// of the worker's side the pages that the worker says have changed: when it is asked (pull()), or, of a told mirror, by
// itself (docs/wire.md, Told pages). What it says by itself may cross what is sent to it, so a told mirror remembers
// what it has sent until the worker has it.
//
// Threads: the caller holds one lock over all calls; the program, and kernels, write when they like.

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/page_watch.h"

namespace tide {

struct Vgpu;

class Mirror {
 public:
  // Where kernels find the memory.
  enum class Far : uint8_t {
    kPages,     // whole pages of the worker's, zeros at first
    kVariable,  // bytes that the worker's driver placed
    kHere,      // pages that workers share with this process
  };
  // `host`, of the program, and `device` are the addresses of both sides. Null: no memory.
  static std::unique_ptr<Mirror> make(uint64_t host, uint64_t device, uint64_t bytes, Far far, Vgpu& home);
  ~Mirror();
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;

  uint64_t bytes() const { return bytes_; }
  bool is_pages() const { return far_ == Far::kPages; }
  bool is_here() const { return far_ == Far::kHere; }
  // The worker tells what changes; it was asked to by command `since`. Of Far::kPages only, before anything else.
  void make_told(uint64_t since) { told_since_ = since; }
  bool is_told() const { return told_since_ != 0; }
  // Sends what the program has changed.
  CUresult push();
  // Brings what kernels have changed. What the program changed since the last push, or changes meanwhile, stays.
  static CUresult pull(std::span<Mirror* const> mirrors);
  // A whole page as the worker found it after command `executed`; what was sent later stays as well.
  void take_told(uint64_t at, const std::byte* page, uint64_t executed);

 private:
  struct Question;
  class Pull;
  struct Sent {
    uint64_t sequence, at, bytes;
    std::vector<uint64_t> mask;
  };
  Mirror(uint64_t host, uint64_t device, uint64_t bytes, Far far, Vgpu& home);
  void watch();
  bool is_known(uint64_t at, uint64_t bytes) const;
  void find_touched();
  uint64_t add_touched(uint64_t from, uint64_t to);
  CUresult push_touched(uint64_t from, uint64_t to);
  CUresult push_between(uint64_t from, uint64_t to);
  struct Run;
  void note_changes(uint64_t page, uint64_t* mask);
  CUresult send(const Run& run);
  void pull_here();
  CUresult ask(Question& question);
  CUresult take_answer(const Question& question, uint64_t* taken);
  void take(uint64_t at, const std::byte* now, uint64_t bytes);

  std::byte* const host_;
  const uint64_t device_, bytes_;
  const Far far_;
  Vgpu& home_;
  std::byte* last_ = nullptr;  // whole pages
  PageWatch watch_;
  uint64_t watched_from_ = 0;             // offset of the first watched page
  std::map<uint64_t, uint64_t> touched_;  // what was ever touched: from offset, to
  uint64_t told_since_ = 0;
  std::deque<Sent> sent_;  // of a told one: what the worker may not have had when it found what comes next
};

}  // namespace tide
