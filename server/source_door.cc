#include "server/source_door.h"

#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace tide {
namespace {

constexpr uint32_t kAcceptStepMs = 100;
constexpr uint64_t kReturnNs = 30'000'000'000;              // longer than a source tries (precopy.cc)
constexpr auto kLookEvery = std::chrono::milliseconds(50);  // whether the move was given up

}  // namespace

SourceDoor::SourceDoor(std::unique_ptr<StreamListener> listener, const TransferHello& expected, LastingStream& stream)
    : expected_(expected), stream_(stream), listener_(std::move(listener)) {}

SourceDoor::~SourceDoor() {
  close();
  if (thread_.joinable()) thread_.join();
}

Outcome SourceDoor::open() {
  if (thread_.joinable()) return Outcome::fail("the source says twice that it comes back");
  const SignalsBlocked blocked;  // they are for the executing thread
  return thread_.start([this] { run(); });
}

void SourceDoor::close() {
  const std::lock_guard lock(mu_);
  closed_ = true;
  if (stranger_ != nullptr) stranger_->cancel();
  if (!thread_.joinable()) listener_.reset();
}

void SourceDoor::run() {
  while (true) {
    {
      const std::lock_guard lock(mu_);
      if (closed_) break;
    }
    std::unique_ptr<ByteStream> caller;
    if (listener_->accept(kAcceptStepMs, &caller).ok()) hear(std::move(caller));
  }
  listener_.reset();
}

// What the stream is interrupted for is there when whoever uses it looks for it.
void SourceDoor::hear(std::unique_ptr<ByteStream> caller) {
  {
    const std::lock_guard lock(mu_);
    if (closed_) return;
    stranger_ = caller.get();
  }
  const bool is_ours = hear_hello(*caller, expected_).ok();
  const std::lock_guard lock(mu_);
  stranger_ = nullptr;
  if (!is_ours || closed_) return;
  next_.swap(caller);
  stream_.interrupt();
  came_.notify_all();
}

std::unique_ptr<ByteStream> SourceDoor::next(uint64_t until_ns) {
  std::unique_lock lock(mu_);
  while (next_ == nullptr && now_ns() < until_ns && !stream_.cancelled()) came_.wait_for(lock, kLookEvery);
  return std::move(next_);
}

Outcome SourceDoor::await(uint64_t done, const Outcome& broken) {
  if (!stream_.broke() || !thread_.joinable()) return broken;
  const uint64_t begin = now_ns();
  while (std::unique_ptr<ByteStream> caller = next(begin + kReturnNs)) {
    stream_.go_on_over(std::move(caller));
    if (!agree(stream_, {.slots = nullptr, .knows = false, .returns = true, .done = done}).ok()) continue;
    log(LogLevel::kWarning, "vGPU %u: its source is back after %.1f s, behind frame %llu; the stream had broken: %s",
        expected_.vgpu, double(now_ns() - begin) / 1e9, static_cast<unsigned long long>(done),
        broken.message().c_str());
    return {};
  }
  return broken;
}

}  // namespace tide
