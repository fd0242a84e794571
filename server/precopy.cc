#include "server/precopy.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "server/verdict.h"

namespace tide {
namespace {

constexpr uint32_t kConnectMs = 10'000;
constexpr uint64_t kPauseShareNs = 30'000'000;  // of a pause, for what has changed since the last round
constexpr uint32_t kRoundsMax = 24;
constexpr uint32_t kStuckRoundsMax = 2;
constexpr uint64_t kBetweenRoundsNs = 50'000'000;  // when enough has been copied and the others are waited for
constexpr uint64_t kBetweenRoundsMostNs = 5'000'000'000;
constexpr int kNice = 5;  // the job comes first
constexpr uint32_t kVerdictMs = 60'000;
// So long it tries to come back; the agent, who hears of each try, gives up after 45 s of silence.
constexpr uint64_t kReturnNs = 20'000'000'000;
constexpr uint32_t kReturnConnectMs = 3'000, kReturnGreetMs = 10'000;
constexpr auto kBetweenTries = std::chrono::milliseconds(250);
constexpr uint32_t kRefusalsMost = 3;  // in a row: the destination has ended
constexpr uint32_t kFruitlessMost = 5;

}  // namespace

// What a round sent in that time a pause sends in about the same.
bool RoundJudge::enough(uint64_t bytes, uint64_t ns) {
  stuck_ = rounds_ > 0 && bytes > last_bytes_ - last_bytes_ / 5 ? stuck_ + 1 : 0;
  last_bytes_ = bytes;
  return ++rounds_ >= kRoundsMax || stuck_ >= kStuckRoundsMax || ns <= kPauseShareNs;
}

Precopy::Precopy(MakeCarrier make, std::string address, const TransferHello& hello)
    : make_(std::move(make)), address_(std::move(address)), hello_(hello) {}

Precopy::~Precopy() {
  stop();
  if (thread_.joinable()) thread_.join();
  if (carrier_ != nullptr) carrier_->enter_thread();
}

Outcome Precopy::start() {
  const SignalsBlocked blocked;  // they are for the executing thread
  return thread_.start([this] { run(); });
}

void Precopy::stop() {
  const std::lock_guard lock(mu_);
  stop_ = true;
  wanted_ = false;
  // Where the thread rests nothing is under way, and the destination may still be saying that all went well.
  if (stream_ != nullptr && !over_ && !held_) stream_->cancel();
  wake_.notify_all();
}

std::string Precopy::failure() const {
  const std::lock_guard lock(mu_);
  return failure_;
}

Precopy::Progress Precopy::progress() const {
  const std::lock_guard lock(mu_);
  Progress now = progress_;
  now.looked_at = looked_at_;
  return now;
}

void Precopy::hold() {
  const std::lock_guard lock(mu_);
  looked_ = looked_ && hold_;
  hold_ = true;
  wanted_ = false;
  wake_.notify_all();
}

void Precopy::go_on() {
  const std::lock_guard lock(mu_);
  hold_ = held_ = false;
  wanted_ = !stop_;
  wake_.notify_all();
}

void Precopy::conclude() {
  const std::lock_guard lock(mu_);
  conclude_ = true;
  held_ = false;
  wake_.notify_all();
}

void Precopy::again() {
  const std::lock_guard lock(mu_);
  judge_ = {};
  progress_ = {};
  ready_ = concluded_ = false;
  next_round_ns_ = 0;
  hold_ = held_ = false;
  wanted_ = !stop_;
  wake_.notify_all();
}

Precopy::Wish Precopy::wait_for_wish() {
  std::unique_lock lock(mu_);
  while (!stop_) {
    if (std::exchange(conclude_, false)) return Wish::kVerdict;
    if (hold_ && !std::exchange(looked_, true)) return Wish::kLook;
    held_ = hold_;
    if (hold_) {
      wake_.wait(lock);
      continue;
    }
    const uint64_t now = now_ns();
    if (now >= next_round_ns_) return Wish::kRound;
    wake_.wait_for(lock, std::chrono::nanoseconds(next_round_ns_ - now));
  }
  return Wish::kEnd;
}

Outcome Precopy::hear_verdict() {
  const Outcome outcome = await_verdict(*stream_, kVerdictMs);
  concluded_ = outcome.ok();
  return outcome;
}

// What broke since the last round is mended before the vGPU is paused.
Outcome Precopy::do_as(Wish wish) {
  if (wish == Wish::kLook) return stream_->send(nullptr, 0);
  return wish == Wish::kRound ? round() : hear_verdict();
}

void Precopy::run() {
  setpriority(PRIO_PROCESS, id_t(gettid()), kNice);
  Outcome outcome = begin();
  for (Wish wish = Wish::kRound; outcome.ok() && (wish = wait_for_wish()) != Wish::kEnd;) {
    outcome = do_as(wish);
    if (!outcome.ok() && wish != Wish::kVerdict) outcome = mend(outcome);
    cpu_ns_ = thread_cpu_ns();
  }
  const bool broke = !outcome.ok() && stream_ != nullptr;
  const std::string why = broke ? last_words(*stream_) : std::string();
  if (stream_ != nullptr) stream_->close();  // here, because it may take a while
  const std::lock_guard lock(mu_);
  failure_ = why.empty() ? outcome.message() : why;
  over_ = true;
}

Outcome Precopy::begin() {
  std::unique_ptr<ByteStream> stream;
  if (Outcome outcome = connect_stream(address_, kConnectMs, &stream); !outcome.ok()) return outcome;
  {
    const std::lock_guard lock(mu_);
    stream_ = std::make_unique<LastingStream>(std::move(stream));
    if (stop_) return Outcome::fail("it was given up");
  }
  std::string offer;
  if (Outcome outcome = greet_receiver(*stream_, hello_, &offer); !outcome.ok()) return outcome;
  if (Outcome outcome = make_(*stream_, &carrier_); !outcome.ok()) return outcome;
  if (Outcome outcome = carrier_->meet(offer, true); !outcome.ok()) return outcome;
  return rate_.start_as_told();
}

// While the vGPU runs there is time.
Outcome Precopy::mend(const Outcome& broken) {
  if (!stream_->broke() || !carrier_->may_return() || fruitless_ >= kFruitlessMost) return broken;
  if (const std::string why = last_words(*stream_); !why.empty()) return Outcome::fail(why);
  Outcome last;
  uint32_t refusals = 0;
  for (const uint64_t end = now_ns() + kReturnNs; now_ns() < end && refusals < kRefusalsMost; ++looked_at_) {
    if (stream_->cancelled()) return broken;
    bool refused = false;
    last = come_back(&refused);
    if (last.ok()) {
      log(LogLevel::kWarning, "vGPU %u: its move goes on behind frame %llu, after its connection broke: %s",
          hello_.vgpu, static_cast<unsigned long long>(done_), broken.message().c_str());
      return {};
    }
    refusals = refused ? refusals + 1 : 0;
    std::unique_lock lock(mu_);
    wake_.wait_for(lock, kBetweenTries, [this] { return stop_; });
  }
  return Outcome::fail(broken.message() + ", and then: " + last.message());
}

// *refused: by who is there, or nobody is.
Outcome Precopy::come_back(bool* refused) {
  std::unique_ptr<ByteStream> next;
  stream_->close();
  if (Outcome outcome = connect_stream(address_, kReturnConnectMs, &next, refused); !outcome.ok()) return outcome;
  stream_->go_on_over(std::move(next));
  std::string words;
  uint64_t done = 0;
  const Outcome greeted = greet_receiver(*stream_, hello_, &words, kReturnGreetMs);
  *refused = !stream_->broke();
  if (!greeted.ok()) return greeted;
  if (!read_returns(words, &done)) return Outcome::fail("the destination does not say how far it came");
  if (Outcome outcome = carrier_->return_to(done); !outcome.ok()) return outcome;
  fruitless_ = done == done_ ? fruitless_ + 1 : 0;
  done_ = done;
  return {};
}

// The pause, the end and another rest do not wait. For how long it was.
uint64_t Precopy::keep_pace(uint64_t bytes) {
  const uint64_t begin = now_ns(), wait = rate_.sent(bytes, begin);
  if (wait == 0) return 0;
  std::unique_lock lock(mu_);
  wake_.wait_for(lock, std::chrono::nanoseconds(wait), [this] { return !wanted_; });
  return now_ns() - begin;
}

Outcome Precopy::round() {
  const uint64_t begin = now_ns();
  ChunkCarrier::Pass pass;
  uint64_t counted = 0, waited = 0;
  const auto go_on = [&] {
    ++looked_at_;
    waited += keep_pace(pass.bytes - std::exchange(counted, pass.bytes));
    return wanted_.load();
  };
  Outcome outcome = carrier_->pass(go_on, &pass);
  const uint64_t sent = now_ns();
  if (outcome.ok() && pass.whole) outcome = carrier_->confirm();
  const uint64_t now = now_ns();
  pass.ns += now - sent;
  pass.ns -= std::min(pass.ns, waited);  // which a pause does not
  log(LogLevel::kDebug, "a round of %.0f ms sent %llu MiB, in %.0f ms; %llu MiB were there", double(now - begin) / 1e6,
      static_cast<unsigned long long>(pass.bytes >> 20), double(pass.ns) / 1e6,
      static_cast<unsigned long long>(pass.known * kChunkBytes >> 20));
  const std::lock_guard lock(mu_);
  progress_.bytes += pass.bytes;
  if (!outcome.ok() || !pass.whole) return outcome;  // what is left is the next round's, or the pause's
  ++progress_.rounds;
  progress_.rest_bytes = pass.bytes;
  if (!ready_ && judge_.enough(pass.bytes, pass.ns)) ready_ = true;
  if (ready_) next_round_ns_ = now + std::clamp(now - begin, kBetweenRoundsNs, kBetweenRoundsMostNs);
  return {};
}

Outcome Precopy::finish(const std::function<void()>& pump) {
  carrier_->enter_thread();
  ChunkCarrier::Pass pass;
  const auto go_on = [&] { return pump(), true; };
  Outcome outcome = carrier_->pass(go_on, &pass);
  if (outcome.ok()) outcome = carrier_->end();
  if (!outcome.ok()) return outcome;
  const std::lock_guard lock(mu_);
  ++progress_.rounds;
  progress_.bytes += pass.bytes;
  progress_.rest_bytes = pass.bytes;
  return {};
}

}  // namespace tide
