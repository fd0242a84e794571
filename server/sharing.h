#pragma once

// What this session and the job's other sessions of the same vGPU, which are other workers of the same agent, have of
// each other: memory and events. The owner's client gives what it shares a name; another one asks for it by the
// owner's session and that name; the agent carries question and answer between the workers, with descriptors, and
// knows no other job's sessions. Belongs to the worker's only thread and never waits.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "server/control.h"
#include "server/memory.h"
#include "server/shared_event.h"

namespace tide {

inline constexpr size_t kSharedNamesMax = 65536;  // of one session

// A session and one of its names.
struct SharedName {
  SessionId owner;
  uint64_t name = 0;
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

  // Such events are told when somebody that recorded them ends.
  void watch(const std::shared_ptr<SharedEvent>& event);

  // Why this session's vGPU cannot go to another GPU alone; null: it can.
  const char* obstacle() const;

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
    std::vector<uint64_t> bytes;
  };
  CUresult ask(const SharedName& what);
  bool send_question();
  void close_question();
  CUresult prepare(const std::vector<Physical::Part>& parts);
  CUresult parts_of(const Shared& shared, std::vector<Physical::Part>* parts);
  void answer(const ControlShared& question, const std::vector<int>& fds, const std::vector<uint64_t>& bytes);
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
};

}  // namespace tide
