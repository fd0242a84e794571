// What a client can write, against the worker's and the agent's decoders (libFuzzer; tests/fuzz/run).
//
// The first byte of the input says which decoder, the rest is what it gets. The decoders are the product's; the driver
// behind them is that of the server's tests, which does everything at once.

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "calls.h"
#include "commands.h"
#include "server/driver_library.h"
#include "server/session.h"
#include "tests/fuzz/ground.h"

extern "C" void fakeDriverActsAtOnce();
extern "C" void fakeDriverForgets();

namespace tide::fuzz {
namespace {

constexpr int kCommandsMost = 64;
constexpr int kParcelsMost = 64;
constexpr uint64_t kQuota = 64u << 20;

// The client's ring as raw bytes, wherever in it the reader stands.
void read_ring(Input& in) {
  const Region region = fresh_region();
  WorkerPage& page = region.worker();
  const uint64_t tail = uint64_t{in.take<uint32_t>()} * kRecordAlign;
  page.command_tail.store(tail);
  page.acknowledged.store(in.take<uint16_t>());
  const auto more = in.take<uint16_t>();
  const std::span<const std::byte> bytes = in.rest();
  put_around(region.commands(), kCommandRingBytes, tail, bytes);
  region.client().command_head.store(tail + bytes.size() + more);
  CommandReader reader(region);
  Command command;
  uint64_t sum = 0;
  while (reader.ready() && reader.next(&command) == ReadState::kRecord) {
    for (uint32_t i = 0; i < command.header.payload_bytes; ++i) sum += uint64_t(command.payload[i]);
    if (sum % 3 == 0) reader.consume(command);
    if (sum % 7 == 0) reader.rewind();
    if (sum % 21 == 6) break;
  }
  if (reader.reason() == nullptr) abort();
}

// A client's memory as an agent hands it over.
void map_region(Input& in) {
  const auto wish = in.take<uint8_t>();
  const int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  const uint64_t size = (wish & 1) != 0 ? in.take<uint64_t>() >> 24 : kRegionBytes;
  if (fd < 0 || ftruncate(fd, off_t(size)) != 0) abort();
  const std::span<const std::byte> bytes = in.rest();
  if (!bytes.empty() && write(fd, bytes.data(), bytes.size()) < 0) abort();
  if ((wish & 2) == 0) fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  Region region;
  const bool good = map_shared_region((wish & 4) != 0 ? -1 : fd, &region).ok();
  if (good && region.client().version != kRegionVersion) abort();
  if (good) unmap_region(region);
  close(fd);
}

// The words that a client has something to say about, and some that it has not.
std::vector<uint32_t> words_of(Region region) {
  const ClientPage& client = region.client();
  const WorkerPage& worker = region.worker();
  const void* const words[] = {&client.command_head,  &client.answer_tail,
                               &client.counters,      &client.renewed,
                               &client.trips,         &client.signals[0],
                               &client.signals[1023], &client.doorbell,
                               &worker.state,         &worker.epoch,
                               &worker.next_epoch,    &worker.command_tail,
                               &worker.acknowledged,  &worker.answer_head,
                               &worker.error,         &worker.errors,
                               &worker.sticky,        &worker.content_slots,
                               &worker.held,          &worker.asleep,
                               &worker.event_done[0], &worker.event_done[65535],
                               &worker.next_endpoint, &worker.stream_progress,
                               region.answers()};
  std::vector<uint32_t> found;
  for (const void* word : words) found.push_back(index_of(region, word));
  return found;
}

// Answers of this worker, so that the client has something to acknowledge.
void publish(AnswerWriter& answers, Replica& replica, Region region, Input& in) {
  AnswerHeader* const header = answers.reserve(in.take<uint8_t>() * 16u);
  if (header == nullptr) return;
  header->kind = uint16_t(AnswerKind::kResult);
  memset(payload_of(header), 0x5a, header->payload_bytes);
  answers.publish(header);
  WorkerPage& page = region.worker();
  page.stream_progress[3].fetch_add(1);
  replica.note(page.stream_progress[3]);
}

void read_commands(CommandReader& reader, uint64_t* read, bool consume) {
  Command command;
  while (reader.ready() && reader.next(&command) == ReadState::kRecord) {
    *read += command.header.payload_bytes;
    if (consume) reader.consume(command);
  }
}

// Parcels from a client: its state, and then what it says. `resumed`: the worker has a session already.
void take_parcels(Input& in, bool resumed) {
  const Region region = fresh_region();
  WorkerPage& page = region.worker();
  std::optional<uint64_t> resumed_at;
  if (resumed) {
    const uint64_t tail = uint64_t{in.take<uint8_t>()} * kRecordAlign;
    page.command_tail.store(tail);
    region.client().command_head.store(tail);
    page.acknowledged.store(in.take<uint8_t>());
    page.stream_progress[3].store(in.take<uint8_t>());
    resumed_at = tail + in.take<uint8_t>();
    AnswerWriter before(region);
    for (int i = in.take<uint8_t>() % 4; i > 0; --i) {
      if (AnswerHeader* header = before.reserve(64); header != nullptr) before.publish(header);
    }
  }
  Replica replica(region, Side::kWorker, resumed_at);
  const std::vector<uint32_t> words = words_of(region);
  AnswerWriter answers(region);
  std::optional<CommandReader> reader;
  uint64_t read = 0;
  RawParcel parcel;
  Parcel out;
  for (int i = 0; i < kParcelsMost && in.any(); ++i) {
    read_parcel(in, uint64_t(i), replica.received(), words, &parcel);
    const std::byte* const ring = parcel.ring.empty() ? nullptr : parcel.ring.data();
    if (replica.apply(parcel.header, parcel.entries, ring) != nullptr) return;
    const auto wish = in.take<uint8_t>();
    if (!replica.synced()) continue;
    if (!reader) {
      reader.emplace(region);
      answers = AnswerWriter(region);
    }
    if ((wish & 1) != 0) read_commands(*reader, &read, (wish & 2) != 0);
    if ((wish & 4) != 0) publish(answers, replica, region, in);
    if ((wish & 8) != 0) replica.next(&out);
  }
}

// A frame at an agent's door.
void knock(Input& in) {
  const auto wish = in.take<uint8_t>();
  DoorOpen open;
  const bool whole = (wish & 1) != 0;
  const uint16_t named = whole && (wish & 2) != 0 ? in.take<uint16_t>() : uint16_t(DoorType::kOpen);
  const std::vector<std::byte> bytes = frame_bytes(in, whole, named);
  DoorType type{};
  std::string payload;
  if (!frame_of(bytes, (wish >> 4) % 8, (wish & 8) != 0, &type, &payload)) return;
  if (type != DoorType::kOpen || payload.size() < sizeof open) return;
  memcpy(&open, payload.data(), sizeof open);
  if (check_open(open).ok() && (strlen(open.job) >= kIdBytes || open.vgpu >= kVgpusMax)) abort();
}

// The region of a session on this machine.
class NearLink : public Link {
 public:
  explicit NearLink(Region region) { region_ = region; }
  bool progress() override { return false; }
  void note(const Word&) override {}
  void wake() override {}
  void sleep(uint32_t, uint32_t) override {}
  bool alive() override { return true; }
  const char* transport() const override { return "fuzz"; }
  bool shares_memory() const override { return shares; }
  void abandon() override {}
  bool shares = true;
};

// For what the driver of the tests does not have and a real one has.
CUresult not_supported() { return CUDA_ERROR_NOT_SUPPORTED; }

const DriverLibrary& library() {
  static const DriverLibrary made = [] {
    DriverLibrary found;
    const auto symbol = [](const char* name) {
      void* const known = dlsym(RTLD_DEFAULT, name);
      return known != nullptr ? known : reinterpret_cast<void*>(&not_supported);
    };
    load_driver(&found.calls, symbol);
    found.set_image_base = reinterpret_cast<decltype(found.set_image_base)>(symbol("softgpuSetImageBase"));
    found.get_image_range = reinterpret_cast<decltype(found.get_image_range)>(symbol("softgpuGetImageRange"));
    if (found.calls.cuInit == nullptr) abort();
    return found;
  }();
  return made;
}

// Sockets to other workers are no part of this: such a command is read only where it is cut short.
bool concerns_others(uint16_t call, size_t bytes) {
  return (call == uint16_t(Call::tidePeerAddress) && bytes >= sizeof(command::PeerAddress)) ||
         (call == uint16_t(Call::tideFetch) && bytes > command::kFetchDataOffset);
}

// Commands with whole headers and any payload, executed by a session: each one is read by the generated code.
void execute(Input& in) {
  const Region region = fresh_region();
  NearLink link(region);
  const auto wish = in.take<uint8_t>();
  link.shares = (wish & 1) == 0;
  Session session(library());
  session.sharing().start({1, 2}, [](ControlType, const ControlShared&, const int*, int) { return true; });
  if (!session.start(0, kQuota).ok()) abort();
  for (Word& signal : region.client().signals) signal.store(~uint64_t{0});
  session.attach(&link);
  alignas(16) static std::byte payload[1u << 17];
  for (int i = 0; i < kCommandsMost && in.any(); ++i) {
    CommandHeader header;
    const auto how = in.take<uint8_t>();
    header.call = in.take<uint16_t>();
    header.flags = how & kCommandAnswer;
    header.sequence = uint64_t(i) + 1;
    header.context = (how & 2) != 0 ? in.take<uint32_t>() : 1;
    header.stream = (how & 4) != 0 ? in.take<uint32_t>() : 0;
    const std::span<const std::byte> bytes = in.counted();
    header.payload_bytes = uint32_t(bytes.size());
    if (!bytes.empty()) memcpy(payload, bytes.data(), bytes.size());
    if (concerns_others(header.call, bytes.size())) continue;
    for (int attempt = 0; attempt < 3 && !session.execute(header, payload); ++attempt) session.poll();
    if ((how & 8) != 0) session.settle();
    if ((how & 16) != 0) session.poll();
    if ((how & 32) != 0) region.client().answer_tail.store(region.worker().answer_head.load());
  }
}

}  // namespace
}  // namespace tide::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  setenv("TIDE_LOG", "off", 1);
  setenv("TIDE_CONTENT_CACHE", "8", 1);
  fakeDriverActsAtOnce();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  using namespace tide::fuzz;
  Input in(data, bytes);
  switch (in.take<uint8_t>() % 6) {
    case 0:
      read_ring(in);
      break;
    case 1:
      map_region(in);
      break;
    case 2:
      take_parcels(in, false);
      break;
    case 3:
      take_parcels(in, true);
      break;
    case 4:
      knock(in);
      break;
    default:
      execute(in);
      fakeDriverForgets();
  }
  return 0;
}
