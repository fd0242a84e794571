// The worker of the transport tests: transport_peer SOCKET TRANSPORT. Speaks kOpened on the inherited socket, then
// serves the channel until the client ends.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tests/transport/peer.h"
#include "transport/door.h"
#include "transport/ring.h"
#include "transport/wait.h"

namespace tide {
namespace {

class Peer {
 public:
  explicit Peer(Link& link) : link_(link), page_(link.region().worker()) {}
  int run();

 private:
  bool execute(const Command& command);  // false: exit now
  void answer(AnswerKind kind, uint64_t sequence, const void* data, uint32_t bytes);
  void burst(const Command& command, bool words);
  void check_signals();

  Link& link_;
  WorkerPage& page_;
  CommandReader reader_;
  AnswerWriter answers_;
  peer::Report report_;
};

void Peer::answer(AnswerKind kind, uint64_t sequence, const void* data, uint32_t bytes) {
  AnswerHeader* header = nullptr;
  const auto place = [&] { return (header = answers_.reserve(bytes)) != nullptr; };
  if (wait_until(link_, Side::kWorker, place) != WaitResult::kReady) exit(0);
  header->kind = uint16_t(kind);
  header->sequence = sequence;
  if (bytes != 0) memcpy(payload_of(header), data, bytes);
  answers_.publish(header);
}

void Peer::burst(const Command& command, bool words) {
  peer::Burst burst;
  memcpy(&burst, command.payload, sizeof burst);
  peer::Numbers numbers{burst.seed};
  std::vector<unsigned char> bytes(burst.bytes_max);
  for (uint32_t i = 1; i <= burst.count; ++i) {
    const uint32_t n = burst.bytes_max == 0 ? 0 : uint32_t(numbers.next() % burst.bytes_max);
    peer::fill(numbers, bytes.data(), n);
    answer(AnswerKind::kData, command.header.sequence, bytes.data(), n);
    if (!words) continue;
    page_.stream_progress[peer::kProgressSlot].store(i, std::memory_order_release);
    link_.note(page_.stream_progress[peer::kProgressSlot]);
    page_.event_done[kEventSlots - 1].store(i, std::memory_order_release);
    link_.note(page_.event_done[kEventSlots - 1]);
    notify(link_, Side::kWorker);
  }
  answer(AnswerKind::kResult, command.header.sequence, nullptr, 0);
}

bool Peer::execute(const Command& command) {
  const CommandHeader& header = command.header;
  if (header.call == peer::kStopWithout) return false;
  if (report_.commands++ == 0) report_.first = header.sequence;
  switch (header.call) {
    case peer::kEcho:
      answer(AnswerKind::kResult, header.sequence, command.payload, header.payload_bytes);
      break;
    case peer::kHash:
      report_.hash = peer::mix(report_.hash, command.payload, header.payload_bytes);
      break;
    case peer::kReport:
      answer(AnswerKind::kResult, header.sequence, &report_, sizeof report_);
      break;
    case peer::kBurst:
      burst(command, false);
      break;
    case peer::kWords:
      burst(command, true);
      break;
    case peer::kSleep: {
      uint32_t ms;
      memcpy(&ms, command.payload, sizeof ms);
      sleep_us(ms * 1000);
      break;
    }
    default:
      break;
  }
  reader_.consume(command);
  if (header.call != peer::kStop) return true;
  strcpy(page_.next_endpoint, "unix=/there");
  page_.next_epoch.store(2);
  link_.note(page_.next_epoch);
  page_.state.store(uint64_t(ChannelState::kMoved));
  link_.note(page_.state);
  notify(link_, Side::kWorker);
  wait_until(link_, Side::kWorker, [] { return false; });  // until the client has seen it and closed
  return false;
}

// A signal that the client noted after publishing command n must not be seen before that command.
void Peer::check_signals() {
  const uint64_t signalled = link_.region().client().signals[peer::kSignalSlot].load(std::memory_order_acquire);
  CommandReader ahead = reader_;
  Command command;
  uint64_t last = page_.acknowledged.load();
  while (last < signalled && ahead.next(&command) == ReadState::kRecord) last = command.header.sequence;
  if (last < signalled) ++report_.violations;
}

int Peer::run() {
  if (wait_until(link_, Side::kWorker, [&] { return link_.ready(); }) != WaitResult::kReady) return 0;
  reader_ = CommandReader(link_.region());
  answers_ = AnswerWriter(link_.region());
  page_.state.store(uint64_t(ChannelState::kLive));
  link_.note(page_.state);
  notify(link_, Side::kWorker);
  while (wait_until(link_, Side::kWorker, [&] { return reader_.ready(); }) == WaitResult::kReady) {
    check_signals();
    Command command;
    ReadState state = ReadState::kEmpty;
    for (int i = 0; i < 64 && (state = reader_.next(&command)) == ReadState::kRecord; ++i) {
      if (!execute(command)) return 0;
    }
    notify(link_, Side::kWorker);
    if (state != ReadState::kMalformed) continue;
    page_.error.store(1);
    link_.note(page_.error);
    page_.state.store(uint64_t(ChannelState::kFailed));
    link_.note(page_.state);
    notify(link_, Side::kWorker);
    wait_until(link_, Side::kWorker, [] { return false; });
    return peer::kExitMalformed;
  }
  return 0;
}

int refuse(int socket, const std::string& message) {
  DoorRefused refused;
  refused.code = 1;
  set_text(refused.message, message.substr(0, kDoorMessageBytes - 1));
  (void)send_frame(socket, DoorType::kRefused, &refused, sizeof refused).ok();
  return 2;
}

int serve(int socket, const char* name) {
  DoorType type;
  std::string payload;
  int region_fd = -1;
  if (!receive_frame(socket, 10'000, &type, &payload, &region_fd).ok() || type != DoorType::kOpen) return 2;
  const Transport* transport = find_transport(name);
  if (transport == nullptr) return refuse(socket, "no such transport");
  std::string data;
  std::unique_ptr<Link> link;
  const Outcome outcome = transport->accept(socket, region_fd, &data, &link);
  if (!outcome.ok()) return refuse(socket, outcome.message());
  DoorOpened opened;
  opened.worker_pid = uint32_t(getpid());
  if (!set_text(opened.transport_data, data)) return refuse(socket, "transport data too long");
  if (!send_frame(socket, DoorType::kOpened, &opened, sizeof opened).ok()) return 2;
  return Peer(*link).run();
}

}  // namespace
}  // namespace tide

int main(int argc, char** argv) { return argc == 3 ? tide::serve(atoi(argv[1]), argv[2]) : 2; }
