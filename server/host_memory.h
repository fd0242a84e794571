#pragma once

// Host memory that kernels reach at the addresses of the program: the program's own pages where both are on one
// machine, else pages of this worker that the client keeps equal to its own by reading and writing them. Either is
// registered with the driver. Touched by the CPU: no stream has to come to rest for it. One thread.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "server/contexts.h"
#include "server/memory.h"
#include "server/pages_told.h"
#include "transport/link.h"

namespace tide {

class HostMemory {
 public:
  HostMemory(const Driver& driver, Contexts& contexts) : driver_(driver), contexts_(contexts) {}
  ~HostMemory();
  // `limit`: bytes of pages of our own.
  void start(uint64_t limit) { limit_ = limit; }

  // The client's memory comes through this link from now on (null: through none).
  void attach(Link* link);
  // False: shared memory is there that could not be mapped yet. *broken: nor will it be.
  bool ready(bool* broken);

  // Whole pages of the zone (base/limits.h). CUDA_ERROR_NOT_READY: the client's descriptor has not come yet.
  // `told`: see tell(). `replaying`: of a session that was served elsewhere; shared memory is mapped when the client
  // has come (ready()).
  CUresult map(uint64_t address, uint64_t bytes, bool shared, bool told, bool replaying);
  CUresult unmap(uint64_t address, uint64_t bytes);
  // The client was not told at once that it cannot have these: until it unmaps them, what it writes there goes nowhere,
  // so that one error stays one.
  void refuse(uint64_t address, uint64_t bytes);
  bool refused(uint64_t address, uint64_t bytes) const;
  bool covers(uint64_t address, uint64_t bytes) const;
  // What the client knows of pages of ours, in *first_page of which `address` lies; null: they are not ours.
  PagesTold* told(uint64_t address, uint64_t bytes, uint64_t* first_page);
  // Whether there are blocks whose changes the client is told unasked: few and small ones, because all of them are read
  // to find out. tell() does it, as they are after command `executed`; false: there is no room for everything.
  bool tells() const { return !telling_.empty(); }
  bool tell(uint64_t executed, AnswerWriter& to);

  bool shares() const;
  // Our own pages, whose contents move with the vGPU.
  std::vector<MemoryRange> own_ranges() const;

 private:
  struct Block {
    uint64_t bytes = 0;
    bool shared = false;
    bool mapped = false;
    std::unique_ptr<PagesTold> told;  // of our own pages
  };
  bool take_descriptor();
  CUresult place(uint64_t address, Block* block);
  void remove(uint64_t address, Block* block);

  const Driver& driver_;
  Contexts& contexts_;
  Link* link_ = nullptr;
  int fd_ = -1;  // the client's memory
  uint64_t limit_ = 0;
  uint64_t own_bytes_ = 0;
  std::map<uint64_t, Block> blocks_;
  std::map<uint64_t, uint64_t> refused_;    // address -> bytes
  std::map<uint64_t, PagesTold*> telling_;  // of these, those that are told unasked
  uint64_t telling_bytes_ = 0;
};

}  // namespace tide
