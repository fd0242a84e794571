#include "tools/rdma_bench/stream_path.h"

#include <algorithm>

namespace tide::fabric {
namespace {

constexpr uint64_t kReadMax = 1 << 20;

}  // namespace

Outcome StreamChannel::resize(uint64_t bytes) {
  out_.assign(bytes, 'x');
  in_.assign(std::clamp<uint64_t>(bytes, 64 << 10, kReadMax), 0);
  to_write_ = partly_ = 0;
  return {};
}

bool StreamChannel::post() {
  if (to_write_ != 0) return false;
  to_write_ = bytes_;
  ++posted_;
  write_rest();
  return true;
}

void StreamChannel::write_rest() {
  const int64_t written = write_some(out_.data() + (bytes_ - to_write_), to_write_);
  if (written <= 0) return;
  to_write_ -= uint64_t(written);
  if (to_write_ == 0) ++sent_;
}

void StreamChannel::progress() {
  if (to_write_ != 0) write_rest();
  const int64_t got = read_some(in_.data(), in_.size());
  if (got <= 0) return;
  partly_ += uint64_t(got);
  received_ += partly_ / bytes_;
  partly_ %= bytes_;
}

}  // namespace tide::fabric
