#pragma once

// Copies to the GPU whose bytes do not go through the ring. As they come they are put into device memory, where it can
// be written at once and it is the copy's turn (all commands before it are executed, and its stream has nothing to do);
// else into a piece of staging memory, from which the GPU copies them in the stream's order. The ring has the command
// all the same, and only when it is executed does the copy count: what is in device memory before that is some of the
// bytes of a copy that is under way, of which CUDA promises nothing, and they may be written once more, after a break
// or by the next worker.
//
// The worker's only thread.

#include <cstdint>
#include <deque>

#include "commands.h"
#include "server/rectangle.h"
#include "server/staging.h"
#include "transport/arriving_commands.h"

namespace tide {

class CopyLandings : public CommandLandings {
 public:
  explicit CopyLandings(Session& session) : session_(session) {}

  // Whether device memory may be written now: the session's commands are being executed, and nobody reads its memory
  // as that of a session at rest.
  void allow(bool on) { allowed_ = on; }

  uint64_t head_bytes(const CommandHeader& header) override;
  bool begin(const CommandHeader& header, const std::byte* head) override;
  void put(uint64_t at, const std::byte* from, uint64_t bytes) override;

  struct Landed {
    uint64_t sequence = 0;
    uint64_t bytes = 0;
    uint64_t come = 0;
    uint64_t there = 0;    // of these: in device memory, from the front
    Staging::Piece piece;  // where the others are
    CUresult result = CUDA_SUCCESS;
    uint64_t to = 0;  // contiguous there
    uint32_t context = 0;
    CUstream stream = nullptr;
  };
  // The command's bytes, if all of them have landed; the piece is the caller's then.
  bool take(uint64_t sequence, Landed* landed);
  // Bytes that were put into device memory, and into staging memory.
  uint64_t direct() const { return direct_; }
  uint64_t staged() const { return staged_; }

 private:
  bool is_its_turn(const CommandHeader& header, const command::CopyIn& command, CUstream* stream) const;
  bool write(Landed* landed, uint64_t at, const std::byte* from, uint64_t bytes);
  void drop(Landed* landed);

  Session& session_;
  bool allowed_ = false;
  std::deque<Landed> landed_;  // ascending; only the last may lack bytes
  uint64_t direct_ = 0, staged_ = 0;
};

}  // namespace tide
