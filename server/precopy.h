#pragma once

// The source's part of a move while the job runs: a thread of its own connects to the destination and copies the vGPU's
// memory there in rounds, each of which sends what was written since the one before, until so little is left that a
// short pause can carry it, or until more rounds would not help. Then the worker pauses the vGPU and sends the rest
// itself. Belongs to the worker's executing thread, which never waits for the other one.
//
// Where the stream breaks while the vGPU runs, the thread comes back to a destination that waits for it, and what had
// not arrived is the next round's (docs/decisions/0044-*.md).

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/threads.h"
#include "server/chunk_carrier.h"
#include "server/lasting_stream.h"
#include "server/move_rate.h"
#include "server/transfer.h"

namespace tide {

// When the copying has come far enough. Of plain numbers, so that it can be tried without a GPU.
class RoundJudge {
 public:
  // A round has sent `bytes` in `ns`; true: another one would not make the pause shorter.
  bool enough(uint64_t bytes, uint64_t ns);

 private:
  uint32_t rounds_ = 0;
  uint32_t stuck_ = 0;  // rounds in a row that sent about as much as the one before
  uint64_t last_bytes_ = 0;
};

class Precopy {
 public:
  struct Progress {
    uint32_t rounds = 0;
    uint64_t bytes = 0;       // sent so far, some of it twice where the stream broke
    uint64_t rest_bytes = 0;  // that the last round found changed
    uint64_t looked_at = 0;   // chunks so far, sent or not, and tries to come back: it grows while a round is under way
  };

  // What is copied; made by the thread, when the destination has agreed.
  using MakeCarrier = std::function<Outcome(ByteStream& to, std::unique_ptr<ChunkCarrier>* carrier)>;

  // `address`: of the destination's stream.
  Precopy(MakeCarrier make, std::string address, const TransferHello& hello);
  // Waits until the thread has ended: at once after over().
  ~Precopy();
  Precopy(const Precopy&) = delete;
  Precopy& operator=(const Precopy&) = delete;

  Outcome start();
  // Gives it up: what is under way on the stream fails.
  void stop();
  bool over() const { return over_; }
  // Requires: over(). Why it ended by itself.
  std::string failure() const;
  // Enough has been copied; it goes on with what changes meanwhile.
  bool ready() const { return ready_; }
  Progress progress() const;

  // Asks the thread to rest, and whether it does; go_on() ends that.
  void hold();
  bool held() const { return held_; }
  void go_on();

  // Requires: held(), and the vGPU is at rest. Sends all that differs. `pump` is called now and then.
  Outcome finish(const std::function<void()>& pump);
  ByteStream& stream() { return *stream_; }

  // Of checkpoints, which go over the same stream one after the other, so that each sends only what has changed since
  // the last. Behind finish() and the rest of the session: the thread waits for the destination's word, and then rests.
  void conclude();
  bool concluded() const { return concluded_; }
  // Requires: concluded(). Begins the rounds of the next.
  void again();
  // Requires: held(). How long a send may wait for the far side to take something, at most.
  void set_patience(uint32_t ms) { stream_->set_patience(ms); }
  // Of the thread, up to the last round.
  uint64_t cpu_ns() const { return cpu_ns_; }

 private:
  enum class Wish { kRound, kLook, kVerdict, kEnd };
  void run();
  Outcome begin();
  Outcome round();
  uint64_t keep_pace(uint64_t bytes);
  Outcome hear_verdict();
  Outcome do_as(Wish wish);
  Outcome mend(const Outcome& broken);
  Outcome come_back(bool* refused);
  Wish wait_for_wish();

  const MakeCarrier make_;
  const std::string address_;
  const TransferHello hello_;
  Thread thread_;
  std::unique_ptr<ChunkCarrier> carrier_;
  std::unique_ptr<LastingStream> stream_;  // made by the thread, under mu_; goes first: it may still read what was sent
  RoundJudge judge_;
  MoveRate rate_;
  uint64_t next_round_ns_ = 0;
  uint64_t done_ = 0;       // frames that the destination had done when we came back last
  uint32_t fruitless_ = 0;  // in a row: came back, and it broke before any more was done
  std::atomic<uint64_t> looked_at_{0};
  std::atomic<uint64_t> cpu_ns_{0};
  std::atomic<bool> over_{false}, ready_{false}, held_{false}, concluded_{false};
  std::atomic<bool> wanted_{true};  // neither to rest nor to end
  mutable std::mutex mu_;           // guards what follows
  std::condition_variable wake_;
  bool stop_ = false, hold_ = false, conclude_ = false;
  bool looked_ = false;  // at the stream, since it was asked to rest
  Progress progress_;
  std::string failure_;
};

}  // namespace tide
