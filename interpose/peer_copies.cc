#include "interpose/peer_copies.h"

#include <cstdlib>
#include <cstring>

#include "base/log.h"
#include "commands.h"
#include "interpose/crossing.h"
#include "interpose/process.h"
#include "interpose/service.h"

namespace tide {
namespace {

constexpr uint32_t kUnreachableMax = 2;
constexpr uint32_t kTriesMax = 8;  // each but the first waits until the source's worker serves again

bool wanted_by_setting() {
  const char* const way = getenv("TIDE_PEER_COPIES");
  if (way == nullptr || way[0] == '\0' || strcmp(way, "direct") == 0) return true;
  if (strcmp(way, "client") == 0) return false;
  log(LogLevel::kWarning, "TIDE_PEER_COPIES is 'direct' or 'client', not '%s'", way);
  return true;
}

// A command whose data are the whole of `*answer`.
template <class Answer, class Fill>
CUresult send_for(Stream& stream, Call call, uint64_t bytes, Answer* answer, uint64_t* sequence, Fill fill) {
  *answer = {};
  const Landing landing{reinterpret_cast<std::byte*>(answer), sizeof *answer, sizeof *answer, 1};
  return stream.vgpu->channel().send({.call = call,
                                      .context = stream.context->number.load(),
                                      .stream = stream.slot,
                                      .payload_bytes = uint32_t(bytes),
                                      .landing = &landing},
                                     fill, sequence);
}

}  // namespace

PeerCopies::PeerCopies(Process& process) : process_(process), wanted_(wanted_by_setting()) {}

bool PeerCopies::begin(Task& task) {
  Vgpu *const to = task.to.vgpu, *const from = task.from.vgpu;
  if (!wanted_ || from->channel().failed()) return false;
  // What another worker's memory held cannot be had again.
  if (from->channel().is_protected() || to->channel().is_protected()) return false;
  const auto found = unreachable_.find({to, from});
  if (found != unreachable_.end() && found->second == std::pair(to->channel().epoch(), from->channel().epoch()))
    return false;
  task.peer = std::make_unique<PeerCopy>();
  if (go_on(task)) return true;
  task.peer.reset();
  return false;
}

bool PeerCopies::go_on(Task& task) {
  const auto known = known_.find(task.from.vgpu);
  const bool valid = known != known_.end() && known->second.epoch == task.from.vgpu->channel().epoch();
  return valid ? fetch(task) : ask(task);
}

bool PeerCopies::ask(Task& task) {
  PeerCopy& copy = *task.peer;
  Stream* stream = nullptr;
  if (copy_stream(process_, *task.from.vgpu, &stream) != CUDA_SUCCESS) return false;
  const command::PeerAddress command{0};
  copy.fetching = false;
  copy.fresh = true;
  copy.vgpu = task.from.vgpu;
  copy.slot = stream->slot;
  return send_for(*stream, Call::tidePeerAddress, sizeof command, &copy.asked, &copy.sequence,
                  [&](std::byte* payload) { memcpy(payload, &command, sizeof command); }) == CUDA_SUCCESS;
}

bool PeerCopies::fetch(Task& task) {
  PeerCopy& copy = *task.peer;
  Stream* stream = nullptr;
  if (copy_stream(process_, *task.to.vgpu, &stream) != CUDA_SUCCESS) return false;
  const PeerAddress& peer = known_[task.from.vgpu].peer;
  const command::Fetch command{task.to.address, task.to.pitch, task.from.address, task.from.pitch,
                               task.width,      task.height,   sizeof peer};
  copy.fetching = true;
  copy.vgpu = task.to.vgpu;
  copy.slot = stream->slot;
  return send_for(*stream, Call::tideFetch, command::kFetchDataOffset + sizeof peer, &copy.fetched, &copy.sequence,
                  [&](std::byte* payload) {
                    memcpy(payload, &command, sizeof command);
                    memcpy(payload + command::kFetchDataOffset, &peer, sizeof peer);
                  }) == CUDA_SUCCESS;
}

PeerCopies::State PeerCopies::look(Task& task) {
  PeerCopy& copy = *task.peer;
  Channel& channel = copy.vgpu->channel();
  if (!channel.done(copy.slot, copy.sequence)) return State::kWaits;
  channel.forget(copy.sequence);  // a lost worker sends no more
  return copy.fetching ? fetched(task) : addressed(task);
}

PeerCopies::State PeerCopies::addressed(Task& task) {
  PeerAddressAnswer& answer = task.peer->asked;
  answer.message[sizeof answer.message - 1] = '\0';
  if (answer.ok == 0) return give_up(task, answer.message, true);
  known_[task.from.vgpu] = {task.from.vgpu->channel().epoch(), answer.peer};
  return fetch(task) ? State::kWaits : State::kThroughProgram;
}

PeerCopies::State PeerCopies::fetched(Task& task) {
  PeerCopy& copy = *task.peer;
  FetchAnswer& answer = copy.fetched;
  answer.message[sizeof answer.message - 1] = '\0';
  if (answer.state == FetchState::kDone) return State::kDone;
  // Once it may have moved behind its answer.
  const bool no_way = answer.state == FetchState::kUnreachable && copy.fresh && ++copy.unreachable == kUnreachableMax;
  const bool again = answer.state == FetchState::kMoving || answer.state == FetchState::kGone ||
                     answer.state == FetchState::kUnreachable ||
                     (answer.state == FetchState::kRefused && !copy.fresh);  // another worker by now
  if (no_way || !again || ++copy.tries >= kTriesMax || task.from.vgpu->channel().failed())
    return give_up(task, answer.message, no_way);
  // Whoever serves the source by then says where it is.
  known_.erase(task.from.vgpu);
  return ask(task) ? State::kWaits : State::kThroughProgram;
}

PeerCopies::State PeerCopies::give_up(Task& task, const std::string& why, bool for_all) {
  Vgpu *const to = task.to.vgpu, *const from = task.from.vgpu;
  // A lost vGPU has a line of its own.
  if (to->channel().failed() || from->channel().failed()) return State::kThroughProgram;
  if (for_all) unreachable_[{to, from}] = {to->channel().epoch(), from->channel().epoch()};
  std::string& said = said_[{to, from}];
  if (said != why) {
    said = why;
    log(LogLevel::kWarning, "%s from vGPU %u to vGPU %u through this program, not from worker to worker: %s",
        for_all ? "copies go" : "a copy goes", from->number, to->number, why.empty() ? "no answer" : why.c_str());
  }
  return State::kThroughProgram;
}

}  // namespace tide
