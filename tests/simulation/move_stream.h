#pragma once

// The stream between the two workers of a move (transport/stream.h): in order and whole, until it breaks. A network
// that is silent holds it up, and breaks it when that lasts.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/network.h"
#include "tests/simulation/world.h"

namespace tide::simulation {

// What is said there: chunks of memory, the end of a round and that it has arrived, the rest of a session, a verdict.
struct MoveFrame {
  enum class Kind { kChunk, kRound, kConfirm, kRest, kVerdict };
  Kind kind = Kind::kChunk;
  uint32_t chunk = 0;
  std::vector<unsigned char> bytes = {};
  uint64_t executed = 0, told = 0;
  uint32_t pieces = 0;  // of memory that are its own
  bool ok = true;
  const char* why = "";
};

class MoveStream : public std::enable_shared_from_this<MoveStream> {
 public:
  struct End {
    std::string server;
    std::shared_ptr<Process> process;
    std::function<void(const MoveFrame&)> hear;
    std::function<void(const char* why)> lose;  // once
  };
  enum Side { kSource, kDestination };
  MoveStream(World& world, SimNetwork& network, End source, End destination);
  void send(Side from, MoveFrame frame);
  // The far side hears of it.
  void close(Side side);
  void reset();
  bool broken(Side side) const { return broken_[side]; }

 private:
  void arrive(Side at, uint64_t when, std::function<void()> what);
  void break_end(Side side, const char* why);
  uint64_t due(Side to);

  World& world_;
  SimNetwork& network_;
  const uint64_t latency_ns_;
  End ends_[2];
  uint64_t floor_[2] = {0, 0};  // nothing arrives there before what was sent before
  bool broken_[2] = {false, false};
};

}  // namespace tide::simulation
