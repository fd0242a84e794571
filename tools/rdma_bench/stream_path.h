#pragma once

// What TCP and a ring of bytes in shared memory share: messages of a known size are counted in a stream of bytes.

#include "tools/rdma_bench/path.h"

namespace tide::fabric {

class StreamChannel : public Channel {
 public:
  bool post() final;
  void progress() final;

 protected:
  // As many bytes as go without waiting; 0: none; -1: failed, and said so.
  virtual int64_t write_some(const char* data, uint64_t bytes) = 0;
  virtual int64_t read_some(char* data, uint64_t bytes) = 0;
  Outcome resize(uint64_t bytes) override;

 private:
  void write_rest();
  std::vector<char> out_, in_;
  uint64_t to_write_ = 0;  // of the message under way
  uint64_t partly_ = 0;    // bytes of the message that is arriving
};

}  // namespace tide::fabric
