#include "server/guard.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "server/verdict.h"

namespace tide {
namespace {

constexpr uint32_t kConnectMs = 10'000;
constexpr uint32_t kAcceptStepMs = 100;
constexpr uint32_t kHearMs = 500;
constexpr uint64_t kHearNs = 20'000'000'000;
constexpr uint32_t kNextMs = 86'400'000;  // a day between two checkpoints; the source connects again after that

}  // namespace

Guard::~Guard() {
  close();
  stop_ = true;
  drop();
  if (giver_.joinable()) giver_.join();
  if (over_fd_ >= 0) ::close(over_fd_);
}

// The thread that runs may wait on it for long.
void Guard::drop() {
  const std::lock_guard lock(stream_mu_);
  if (stream_ != nullptr) stream_->cancel();
}

ByteStream* Guard::hold(std::unique_ptr<ByteStream> stream) {
  const std::lock_guard lock(stream_mu_);
  stream_.swap(stream);
  if (stop_ && stream_ != nullptr) stream_->cancel();
  return stream_.get();
}

void Guard::close() {
  if (!taker_.joinable()) return;
  stop_ = true;
  drop();
  taker_.join();
  listener_.reset();
  stop_ = false;
}

Outcome Guard::listen(const TransferHello& expected, std::string* address) {
  close();
  if (giving()) return Outcome::fail("the guard gives its checkpoint away at the moment");
  if (Outcome outcome = listen_stream(address, &listener_); !outcome.ok()) return outcome;
  const SignalsBlocked blocked;  // they are for the executing thread
  return taker_.start([this, expected] { take(expected); });
}

void Guard::take(const TransferHello& expected) {
  while (!stop_) {
    std::unique_ptr<ByteStream> caller;
    if (!listener_->accept(kAcceptStepMs, &caller).ok()) continue;
    // Somebody else's connection must not end the wait for ours.
    if (greet_sender(*caller, expected, {.slots = nullptr, .knows = true}).ok()) take_from(std::move(caller));
  }
}

// What was said is lost with a stream that is closed while the source still sends: it reads when it is done with that.
void Guard::let_it_hear(ByteStream& stream) {
  std::byte rest[4096];
  const uint64_t end = now_ns() + kHearNs;
  while (!stop_ && now_ns() < end && stream.receive(rest, sizeof(rest), kHearMs).ok()) {
  }
}

void Guard::take_from(std::unique_ptr<ByteStream> caller) {
  ByteStream& stream = *hold(std::move(caller));
  kept_.begin_anew();
  Outcome outcome;
  while (outcome.ok() && !stop_) {
    outcome = kept_.receive(stream, {.first_ms = kNextMs});
    if (stop_) break;
    const Outcome told = send_verdict(stream, outcome);
    if (!outcome.ok() && told.ok()) let_it_hear(stream);
    if (outcome.ok()) outcome = told;
  }
  log(LogLevel::kDebug, "no more checkpoints over this stream: %s", outcome.message().c_str());
  hold(nullptr);
}

Outcome Guard::give(const std::string& address, const TransferHello& hello) {
  close();
  if (giving()) return Outcome::fail("the guard gives its checkpoint away already");
  if (!kept_.any()) return Outcome::fail("no checkpoint is whole yet");
  if (over_fd_ < 0) over_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (over_fd_ < 0) return Outcome::fail(std::string("cannot make an eventfd: ") + strerror(errno));
  over_ = false;
  const SignalsBlocked blocked;  // they are for the executing thread
  return giver_.start([this, address, hello] {
    outcome_ = send(address, hello);
    hold(nullptr);
    over_ = true;
    eventfd_write(over_fd_, 1);
  });
}

Outcome Guard::send(const std::string& address, const TransferHello& hello) {
  std::unique_ptr<ByteStream> connected;
  if (Outcome outcome = connect_stream(address, kConnectMs, &connected); !outcome.ok()) return outcome;
  ByteStream& stream = *hold(std::move(connected));
  std::unique_ptr<ChunkCarrier> carrier;
  ChunkCarrier::Pass pass;
  uint64_t others = 0;
  std::string offer;
  Outcome outcome = greet_receiver(stream, hello, &offer);
  if (outcome.ok()) outcome = kept_.carrier()(stream, &carrier);
  if (outcome.ok()) outcome = carrier->meet(offer, false);
  if (outcome.ok()) outcome = carrier->pass([] { return true; }, &pass);
  if (outcome.ok()) outcome = carrier->end();
  if (outcome.ok())
    outcome = kept_.send_rest(
        stream, [] {}, &others);
  if (outcome.ok()) outcome = await_restored(stream);
  bytes_ = pass.bytes + others;
  if (outcome.ok()) return outcome;
  const std::string why = last_words(stream);
  return why.empty() ? outcome : Outcome::fail(why);
}

bool Guard::over(Outcome* outcome, uint64_t* bytes) {
  if (!over_) return false;
  giver_.join();
  eventfd_t seen = 0;
  eventfd_read(over_fd_, &seen);
  *outcome = outcome_;
  *bytes = bytes_;
  return true;
}

}  // namespace tide
