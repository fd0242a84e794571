#pragma once

// One client process's use of one vGPU, on one GPU: everything that its commands made, and what is under way. Executes
// commands one by one and never waits for the GPU. Belongs to the worker's only thread.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "server/arrays.h"
#include "server/contents.h"
#include "server/contexts.h"
#include "server/copy_landings.h"
#include "server/driver_library.h"
#include "server/events.h"
#include "server/graph_builder.h"
#include "server/host_memory.h"
#include "server/libraries.h"
#include "server/memory.h"
#include "server/objects.h"
#include "server/outbox.h"
#include "server/outputs.h"
#include "server/peer_fetcher.h"
#include "server/peer_source.h"
#include "server/received.h"
#include "server/sharing.h"
#include "server/signals.h"
#include "server/staging.h"
#include "server/streams.h"

namespace tide {

// What a serve function may return beside CUresults.
inline constexpr CUresult kMalformed = static_cast<CUresult>(-1);  // the client sent nonsense
inline constexpr CUresult kAgain = static_cast<CUresult>(-2);      // not now: execute the command again later

// Of a session that comes from a checkpoint, until its client has come back to it.
struct Recovery {
  uint64_t from_checkpoint = 0;  // 1
  uint64_t answers = 0;          // where the answer ring stood; the client had read all of it
};

class Session {
 public:
  explicit Session(const DriverLibrary& library);
  ~Session();

  // Before anything else. `quota`: bytes of device memory.
  Outcome start(uint32_t vgpu, uint64_t quota);
  // Its client is reached through this link from now on (null: through none).
  void attach(Link* link);
  // The same client over another connection, with the region that it had.
  void resume(Link* link);

  // False: try again after poll() (nothing has been done, or only a part, which is not done twice).
  bool execute(const CommandHeader& header, const std::byte* payload);
  // An object's command again, where the vGPU is made anew; no answer, no progress.
  CUresult replay(const Object& object);
  // No commands are waiting: whatever was started gets a marker.
  void settle() { streams_.mark_all(); }
  // Looks what has completed and tells; true if there was something.
  bool poll();
  // Now and then while work is under way: tells what it has changed of host memory so far, if the client keeps up.
  void tell_running();
  // A failure that belongs to no answer.
  void raise(CUresult result, uint64_t sequence);

  const Driver& driver() const { return library_.calls; }
  const DriverLibrary& library() const { return library_; }
  Contexts& contexts() { return contexts_; }
  Staging& staging() { return staging_; }
  Outbox& outbox() { return outbox_; }
  CopyLandings& landings() { return landings_; }
  Streams& streams() { return streams_; }
  Events& events() { return events_; }
  Memory& memory() { return memory_; }
  HostMemory& host_memory() { return host_memory_; }
  Contents& contents() { return contents_; }
  Libraries& libraries() { return libraries_; }
  Arrays& arrays() { return arrays_; }
  GraphBuilder& graphs() { return graphs_; }
  Signals& signals() { return signals_; }
  Sharing& sharing() { return sharing_; }
  Objects& objects() { return objects_; }
  PeerSource& peer_source() { return peer_source_; }
  PeerFetcher& peer_fetcher() { return peer_fetcher_; }

  // Whether a command may name this device memory.
  bool covers(uint64_t address, uint64_t bytes) const {
    return memory_.in_range(address, bytes) || host_memory_.covers(address, bytes) || libraries_.covers(address, bytes);
  }
  bool failed() const { return failed_; }
  // What it sends crosses a network.
  bool has_far_client() const { return far_client_; }
  // The client has said that it was its last command.
  bool ended() const { return ended_; }
  // Whether nothing would have to wait while device memory goes out from where it lies: set for each command.
  bool may_lend_memory() const { return may_lend_memory_; }
  void let_lend_memory(bool on) { may_lend_memory_ = on; }
  void end() { ended_ = true; }
  bool replaying() const { return replaying_; }
  uint64_t sequence() const { return sequence_; }  // the last executed
  void set_sequence(uint64_t sequence) { sequence_ = sequence; }
  // Of what the client was told when the session was last moved (told_digest).
  uint64_t told() const { return told_; }
  void set_told(uint64_t digest) { told_ = digest; }
  const Recovery& recovery() const { return recovery_; }
  void set_recovery(const Recovery& recovery) { recovery_ = recovery; }
  uint64_t& partial() { return partial_; }  // bytes of the present command's copy that are under way
  const Library* image_like() const { return image_like_; }
  void set_image_like(const Library* like) { image_like_ = like; }
  uint64_t last_error() const { return error_; }
  uint64_t error_count() const { return errors_; }
  void set_errors(uint64_t error, uint64_t count) { error_ = error, errors_ = count; }

 private:
  bool must_wait(const CommandHeader& next);
  CUresult serve(Received& received, Outputs& answer);
  void conclude(const Received& received, const Outputs& answer, CUresult result);
  void finish_work(const CommandHeader& header, CUresult result);
  bool tell_host(AnswerWriter& to);

  const DriverLibrary& library_;
  Contexts contexts_;
  Staging staging_;
  Outbox outbox_;
  CopyLandings landings_{*this};
  Streams streams_;
  Events events_;
  Memory memory_;
  HostMemory host_memory_;
  Contents contents_;
  Libraries libraries_;
  Arrays arrays_;
  GraphBuilder graphs_;
  Signals signals_;
  Sharing sharing_;
  Objects objects_;
  PeerPins peer_pins_;
  PeerSource peer_source_;
  PeerFetcher peer_fetcher_;
  uint64_t sequence_ = 0;
  uint64_t partial_ = 0;
  uint64_t told_ = 0;
  Recovery recovery_;
  uint64_t error_ = 0;
  uint64_t errors_ = 0;
  uint64_t malformed_ = 0;
  bool failed_ = false;
  bool ended_ = false;
  bool may_lend_memory_ = false;
  bool far_client_ = false;
  bool replaying_ = false;
  bool polling_ = false;
  uint64_t looked_at_ = ~uint64_t{0};  // Streams::completed() when host memory was looked at last
  const Library* image_like_ = nullptr;
};

// The part of a tideCopyInPacked that does not depend on its stream and context.
void keep_content(Session& session, Received& q);

// CUDA's errors after which a context is of no use any more.
bool is_sticky(CUresult result);

}  // namespace tide
