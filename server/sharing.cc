#include "server/sharing.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"

namespace tide {
namespace {

// The owner's worker answers within milliseconds, but for one that loads a large image or is stuck in its driver.
constexpr uint64_t kPatienceNs = 20'000'000'000;

constexpr size_t kEventsLooseMax = 64;  // that may have ended without being noticed

void close_all(const std::vector<int>& fds) {
  for (const int fd : fds) close(fd);
}

template <class T>
bool any_alive(const std::vector<std::weak_ptr<T>>& all) {
  return std::any_of(all.begin(), all.end(), [](const std::weak_ptr<T>& one) { return !one.expired(); });
}

template <class T>
void drop_expired(std::vector<std::weak_ptr<T>>* all) {
  std::erase_if(*all, [](const std::weak_ptr<T>& one) { return one.expired(); });
}

}  // namespace

void Sharing::start(const SessionId& self, Send send) {
  self_ = self;
  send_ = std::move(send);
}

const char* Sharing::obstacle() const {
  if (!shared_.empty()) return "its memory or events are shared with other processes of the job (CUDA IPC)";
  if (memory_.has_views() || any_alive(opened_)) return "it uses memory or events of other processes (CUDA IPC)";
  return physicals_.empty() ? nullptr : "it has memory that was made for sharing with other processes";
}

CUresult Sharing::share_memory(uint64_t name, uint64_t address, uint64_t bytes, MemoryRange* span) {
  if (!memory_.shareable()) return CUDA_ERROR_NOT_SUPPORTED;
  if (shared_.contains(name) || shared_.size() >= kSharedNamesMax) return CUDA_ERROR_INVALID_VALUE;
  std::vector<Physical::Part> parts;
  CUresult result = memory_.parts_at(address, bytes, &parts, span);
  if (result == CUDA_SUCCESS) result = prepare(parts);
  if (result != CUDA_SUCCESS) return result;
  memory_.name_pieces(*span);
  shared_[name] = {address, bytes, nullptr, nullptr};
  return result;
}

CUresult Sharing::share_physical(uint64_t name) {
  const auto physical = find_physical(name);
  if (physical == nullptr || !memory_.shareable()) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = prepare(physical->parts);
  if (result == CUDA_SUCCESS) shared_[name] = {0, 0, physical, nullptr};
  return result;
}

// The software GPU moves memory into a file at its first export and wants nobody to write meanwhile: its owner has
// seen to that now, and may not have later.
CUresult Sharing::prepare(const std::vector<Physical::Part>& parts) {
  for (const Physical::Part& part : parts) {
    const int fd = memory_.export_part(part);
    if (fd < 0) return CUDA_ERROR_OUT_OF_MEMORY;
    close(fd);
  }
  return CUDA_SUCCESS;
}

CUresult Sharing::share_event(uint64_t name, std::shared_ptr<SharedEvent> event) {
  if (event == nullptr || shared_.contains(name) || shared_.size() >= kSharedNamesMax) return CUDA_ERROR_INVALID_VALUE;
  shared_[name] = {0, 0, nullptr, std::move(event)};
  return CUDA_SUCCESS;
}

CUresult Sharing::add_physical(uint64_t name, std::shared_ptr<Physical> physical) {
  if (physicals_.contains(name) || physicals_.size() >= kSharedNamesMax) return CUDA_ERROR_INVALID_VALUE;
  physicals_[name] = std::move(physical);
  return CUDA_SUCCESS;
}

std::shared_ptr<Physical> Sharing::find_physical(uint64_t name) const {
  const auto found = physicals_.find(name);
  return found == physicals_.end() ? nullptr : found->second;
}

CUresult Sharing::open_physical(const SharedName& what, uint64_t bytes, std::shared_ptr<Physical>* physical) {
  if (what.owner == self_) {
    const auto found = shared_.find(what.name);
    if (found == shared_.end() || found->second.physical == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *physical = found->second.physical;
    return CUDA_SUCCESS;
  }
  if (const CUresult result = ask(what); result != CUDA_SUCCESS) return result;
  uint64_t sum = 0;
  for (const uint64_t part : question_.bytes) {
    const bool fits = part != 0 && part % kChunkBytes == 0 && part <= kPieceBytes;
    sum += fits ? part : 0;
  }
  // An event has one part without bytes.
  if (sum == bytes && sum != 0) *physical = memory_.import_physical(question_.fds, question_.bytes);
  if (sum == bytes && sum != 0 && *physical != nullptr) {
    (*physical)->owner_low = what.owner.low, (*physical)->owner_high = what.owner.high;
    for (size_t i = 0; i < question_.names.size(); ++i) (*physical)->parts[i].name = question_.names[i];
  }
  close_question();
  if (sum != bytes || sum == 0) return CUDA_ERROR_INVALID_HANDLE;
  return *physical == nullptr ? CUDA_ERROR_MAP_FAILED : CUDA_SUCCESS;
}

CUresult Sharing::open_event(const SharedName& what, std::shared_ptr<SharedEvent>* event) {
  if (what.owner == self_) {
    const auto found = shared_.find(what.name);
    if (found == shared_.end() || found->second.event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *event = found->second.event;
    return CUDA_SUCCESS;
  }
  if (const CUresult result = ask(what); result != CUDA_SUCCESS) return result;
  const bool fits = question_.bytes.size() == 1 && question_.bytes[0] == 0;
  if (fits) {
    *event = SharedEvent::open(question_.fds[0]);
    question_.fds.clear();
  }
  close_question();
  if (!fits) return CUDA_ERROR_INVALID_HANDLE;
  if (*event == nullptr) return CUDA_ERROR_MAP_FAILED;
  drop_expired(&opened_);
  opened_.push_back(*event);
  return CUDA_SUCCESS;
}

void Sharing::watch(const std::shared_ptr<SharedEvent>& event) {
  if (events_.size() >= 2 * events_alive_ + kEventsLooseMax) {
    drop_expired(&events_);
    events_alive_ = events_.size();
  }
  events_.push_back(event);
}

// One question at a time: commands wait for each other. SUCCESS: question_ holds the answer, close it.
CUresult Sharing::ask(const SharedName& what) {
  if (question_.open && question_.what != what) close_question();
  if (!question_.open) {
    question_.open = true;
    question_.what = what;
    question_.begin_ns = now_ns();
    if (!send_question()) {
      close_question();
      return CUDA_ERROR_MAP_FAILED;
    }
    return CUDA_ERROR_NOT_READY;
  }
  if (!question_.complete && now_ns() - question_.begin_ns < kPatienceNs) return CUDA_ERROR_NOT_READY;
  const auto result = question_.complete ? CUresult(question_.result) : CUDA_ERROR_MAP_FAILED;
  if (!question_.complete) log(LogLevel::kWarning, "the owner of shared memory or of a shared event does not answer");
  if (result != CUDA_SUCCESS) close_question();
  return result;
}

bool Sharing::send_question() {
  ControlShared message;
  message.question = question_.number = next_question_++;
  message.owner = question_.what.owner;
  message.name = question_.what.name;
  message.by = question_.what.by;
  return send_ && send_(ControlType::kAskShared, message, nullptr, 0);
}

// Under another number: of the answer a part may have come.
void Sharing::ask_again() {
  if (!asking()) return;
  close_all(question_.fds);
  question_.fds.clear();
  question_.bytes.clear();
  question_.names.clear();
  send_question();
}

void Sharing::close_question() {
  close_all(question_.fds);
  question_ = {};
}

CUresult Sharing::parts_of(const Shared& shared, std::vector<Physical::Part>* parts) {
  MemoryRange span;
  if (shared.physical == nullptr) return memory_.parts_at(shared.address, shared.bytes, parts, &span);
  *parts = shared.physical->parts;
  return CUDA_SUCCESS;
}

void Sharing::refuse(const ControlShared& question, int32_t result) {
  ControlShared reply = question;
  reply.result = result;
  reply.last = 1;
  send_(ControlType::kSharedAnswer, reply, nullptr, 0);
}

std::shared_ptr<SharedEvent> Sharing::find_event(uint64_t number) const {
  for (const auto& weak : events_) {
    auto event = weak.lock();
    if (event != nullptr && event->maker() == SharedEvent::Maker{self_.low, self_.high, number}) return event;
  }
  return nullptr;
}

void Sharing::asked(const ControlShared& question) {
  if (question.by == SharedBy::kEvent) {
    const auto event = find_event(question.name);
    return event == nullptr ? refuse(question, CUDA_ERROR_INVALID_HANDLE) : answer(question, {event->fd()}, {{}});
  }
  if (question.by == SharedBy::kPiece) {
    Physical::Part part;
    const int fd = memory_.find_piece(question.name, &part) ? memory_.export_part(part) : -1;
    if (fd < 0) return refuse(question, CUDA_ERROR_INVALID_HANDLE);
    answer(question, {fd}, {part});
    close(fd);
    return;
  }
  const auto found = shared_.find(question.name);
  if (found == shared_.end()) return refuse(question, CUDA_ERROR_INVALID_HANDLE);
  if (found->second.event != nullptr) return answer(question, {found->second.event->fd()}, {{}});
  std::vector<Physical::Part> parts;
  if (const CUresult result = parts_of(found->second, &parts); result != CUDA_SUCCESS) {
    return refuse(question, CUDA_ERROR_INVALID_HANDLE);
  }
  std::vector<int> fds;
  for (const Physical::Part& part : parts) {
    const int fd = memory_.export_part(part);
    if (fd < 0) break;
    fds.push_back(fd);
  }
  if (fds.size() == parts.size()) {
    answer(question, fds, parts);
  } else {
    refuse(question, CUDA_ERROR_OUT_OF_MEMORY);
  }
  close_all(fds);
}

void Sharing::answer(const ControlShared& question, const std::vector<int>& fds,
                     const std::vector<Physical::Part>& parts) {
  ControlShared reply = question;
  reply.result = CUDA_SUCCESS;
  for (size_t at = 0; at < fds.size(); at += kControlFdsMax) {
    reply.count = uint32_t(std::min<size_t>(kControlFdsMax, fds.size() - at));
    reply.last = at + reply.count == fds.size();
    for (uint32_t i = 0; i < reply.count; ++i) {
      reply.bytes[i] = parts[at + i].bytes;
      reply.names[i] = parts[at + i].name;
    }
    send_(ControlType::kSharedAnswer, reply, fds.data() + at, int(reply.count));
  }
}

void Sharing::answered(ControlMessage* message) {
  const auto* reply = message->as<ControlShared>();
  const bool ours = reply != nullptr && question_.open && !question_.complete && reply->question == question_.number;
  if (!ours || reply->count > kControlFdsMax) return;
  question_.result = reply->result;
  question_.complete = reply->last != 0;
  for (uint32_t i = 0; i < reply->count; ++i) {
    const int fd = std::exchange(message->fds[i], -1);
    if (fd < 0) question_.result = CUDA_ERROR_MAP_FAILED;  // no descriptors are left here
    if (fd < 0) continue;
    question_.fds.push_back(fd);
    question_.bytes.push_back(reply->bytes[i]);
    question_.names.push_back(reply->names[i]);
  }
}

void Sharing::ended(const SessionId& session) {
  drop_expired(&events_);
  // Only of those can anything be in use here.
  if (memory_.has_views() || !physicals_.empty() || any_alive(opened_)) ended_.push_back(session);
  for (const auto& weak : events_) {
    if (const auto event = weak.lock(); event != nullptr) event->recorder_ended(session.low);
  }
  if (question_.open && !question_.complete && question_.what.owner == session) {
    question_.complete = true;
    question_.result = CUDA_ERROR_INVALID_HANDLE;
  }
}

}  // namespace tide
