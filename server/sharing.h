#pragma once

// What this session and the job's other sessions of the same vGPU, which are other workers of the same agent, have of
// each other: memory and events. The owner's client gives what it shares a name; another one asks for it by the
// owner's session and that name; the agent carries question and answer between the workers, with descriptors, and
// knows no other job's sessions. Belongs to the worker's only thread and never waits.
//
// In a move (docs/decisions/0038-*.md) all sessions of the vGPU go at one moment at which nothing is under way. Memory
// goes with its owner, who makes it again in the same pieces; those who had it ask him for the pieces by their names.
// Events are made again by who had made them, as they were: every record is complete.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "server/blob.h"
#include "server/control.h"
#include "server/events.h"
#include "server/memory.h"
#include "server/shared_event.h"

namespace tide {

inline constexpr size_t kSharedNamesMax = 65536;  // of one session

// A session and one of its names.
struct SharedName {
  SessionId owner;
  uint64_t name = 0;
  SharedBy by = SharedBy::kName;
  bool operator==(const SharedName&) const = default;
};

class Sharing {
 public:
  using Send = std::function<bool(ControlType type, const ControlShared& message, const int* fds, int count)>;

  explicit Sharing(Memory& memory) : memory_(memory) {}
  // Which session this is, and its way to the agent.
  void start(const SessionId& self, Send send);
  const SessionId& self() const { return self_; }
  // A number of this session for records of events.
  uint64_t recorder() const { return self_.low; }

  // As the owner. INVALID_VALUE for a name in use, or memory that is not mapped whole.
  CUresult share_memory(uint64_t name, uint64_t address, uint64_t bytes, MemoryRange* span);
  CUresult share_physical(uint64_t name);
  CUresult share_event(uint64_t name, std::shared_ptr<SharedEvent> event);
  void unshare(uint64_t name) { shared_.erase(name); }

  // Memory without an address, by names of the client's.
  CUresult add_physical(uint64_t name, std::shared_ptr<Physical> physical);
  std::shared_ptr<Physical> find_physical(uint64_t name) const;
  bool release_physical(uint64_t name) { return physicals_.erase(name) != 0; }

  // As the other one: CUDA_ERROR_NOT_READY until the owner has answered (then call again), CUDA_ERROR_INVALID_HANDLE
  // where there is nothing of that name, CUDA_ERROR_MAP_FAILED when it cannot be had.
  CUresult open_physical(const SharedName& what, uint64_t bytes, std::shared_ptr<Physical>* physical);
  CUresult open_event(const SharedName& what, std::shared_ptr<SharedEvent>* event);

  bool asking() const { return question_.open && !question_.complete; }
  // The agent that carried it has died, and there is another.
  void ask_again();

  // What the agent brings: another worker's question, an answer to ours (takes its descriptors), somebody's end.
  void asked(const ControlShared& question);
  void answered(ControlMessage* message);
  void ended(const SessionId& session);
  // Any of these.
  void take(ControlMessage* message);

  // Of an event that was made here: before anybody else can have it.
  void name_event(SharedEvent& event);
  // Such events are told when somebody that recorded them ends.
  void watch(const std::shared_ptr<SharedEvent>& event);

  // Why this session cannot go elsewhere alone; null: it can.
  const char* obstacle() const;
  // Why it cannot go together with the vGPU's other sessions.
  const char* move_obstacle() const;

  // What a move carries of it, but for memory's contents.
  void write(Events& events, BlobWriter* to) const;
  // Where its memory is again: makes what is its own, and asks the others' workers for what is theirs, which waits for
  // them, and answers them meanwhile. Any thread, which is the session's owner meanwhile.
  Outcome restore(BlobReader* from);
  // The event's page, where it has come by a move; null: it has not.
  std::shared_ptr<SharedEvent> restored_event(uint32_t slot) const;
  // All events have been made.
  void forget_restored() { restored_events_.clear(); }
  // Of the agent, while another thread has the session: kept for take_posts(), with the descriptors. Any thread.
  void post(ControlMessage* message);
  // Nobody wants the session any more: restore() waits no longer. Any thread.
  void post_end() { posts_end_ = true; }
  void take_posts();

 private:
  // What a name stands for: exactly one of these.
  struct Shared {
    uint64_t address = 0, bytes = 0;
    std::shared_ptr<Physical> physical;
    std::shared_ptr<SharedEvent> event;
  };
  struct Question {
    bool open = false;
    uint64_t number = 0;
    SharedName what;
    uint64_t begin_ns = 0;
    bool complete = false;
    int32_t result = 0;
    std::vector<int> fds;
    std::vector<uint64_t> bytes, names;
  };
  // What another process pays for, and where it is mapped and named here.
  struct Import {
    SessionId owner;
    uint64_t address = 0;                 // 0: nowhere
    std::vector<uint64_t> bytes, pieces;  // of its parts
    std::vector<uint64_t> names;
  };
  std::vector<std::shared_ptr<Physical>> imported() const;
  Outcome restore_pieces(BlobReader* from);
  Outcome restore_names(BlobReader* from);
  Outcome restore_event(uint32_t slot, const SharedEvent::Maker& maker, uint64_t begun);
  Outcome restore_import(const Import& import);
  Outcome wait_for(const SharedName& what, int* fd, uint64_t* bytes);
  bool has_ended(const SessionId& session) const;
  CUresult ask(const SharedName& what);
  bool send_question();
  void close_question();
  CUresult prepare(const std::vector<Physical::Part>& parts);
  CUresult parts_of(const Shared& shared, std::vector<Physical::Part>* parts);
  void answer(const ControlShared& question, const std::vector<int>& fds, const std::vector<Physical::Part>& parts);
  std::shared_ptr<SharedEvent> find_event(uint64_t number) const;
  void refuse(const ControlShared& question, int32_t result);

  Memory& memory_;
  SessionId self_;
  Send send_;
  std::map<uint64_t, Shared> shared_;
  std::map<uint64_t, std::shared_ptr<Physical>> physicals_;
  std::vector<std::weak_ptr<SharedEvent>> events_;
  size_t events_alive_ = 0;                         // of events_, when that was last counted
  std::vector<std::weak_ptr<SharedEvent>> opened_;  // of others
  Question question_;
  uint64_t next_question_ = 1;
  uint64_t next_event_ = 1;
  std::vector<SessionId> ended_;  // of those whose memory or events are in use here
  std::map<uint32_t, std::shared_ptr<SharedEvent>> restored_events_;
  std::atomic<bool> posts_end_{false};
  std::mutex posts_mu_;  // guards what follows
  std::deque<ControlMessage> posts_;
};

}  // namespace tide
