// What a worker, an agent or the scheduler can write, against the decoders in the program's process (libFuzzer;
// tests/fuzz/run). The first byte of the input says which decoder, the rest is what it gets.

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "interpose/channel.h"
#include "interpose/door_answers.h"
#include "interpose/library_answer.h"
#include "tests/fuzz/ground.h"

namespace tide {
// The rest of the preload library is not here.
constinit thread_local ThreadState thread_state = {};
}  // namespace tide

namespace tide::fuzz {
namespace {

constexpr int kParcelsMost = 64;
constexpr int kAnswersMost = 64;
constexpr uint64_t kRow = 24, kPitch = 40, kRows = 8;

void read_ring(Input& in) {
  const Region region = fresh_region();
  const uint64_t tail = uint64_t{in.take<uint32_t>()} * kRecordAlign;
  region.client().answer_tail.store(tail);
  const auto more = in.take<uint16_t>();
  const std::span<const std::byte> bytes = in.rest();
  put_around(region.answers(), kAnswerRingBytes, tail, bytes);
  region.worker().answer_head.store(tail + bytes.size() + more);
  AnswerReader reader(region);
  Answer answer;
  uint64_t sum = 0;
  while (reader.ready() && reader.next(&answer) == ReadState::kRecord) {
    for (uint32_t i = 0; i < answer.header.payload_bytes; ++i) sum += uint64_t(answer.payload[i]);
    if (sum % 3 == 0) reader.consume(answer);
  }
  if (reader.reason() == nullptr) abort();
}

std::vector<uint32_t> words_of(Region region) {
  const ClientPage& client = region.client();
  const WorkerPage& worker = region.worker();
  const void* const words[] = {&worker.answer_head,
                               &worker.command_tail,
                               &worker.acknowledged,
                               &worker.state,
                               &worker.epoch,
                               &worker.next_epoch,
                               &worker.next_endpoint,
                               &worker.error,
                               &worker.error_sequence,
                               &worker.errors,
                               &worker.sticky,
                               &worker.staging_unwanted,
                               &worker.content_slots,
                               &worker.held,
                               &worker.asleep,
                               &worker.stream_progress[0],
                               &worker.stream_progress[4095],
                               &worker.event_done[0],
                               &worker.event_done[65535],
                               &client.command_head,
                               &client.answer_tail,
                               &client.signals,
                               &client.counters,
                               region.commands(),
                               region.answers()};
  std::vector<uint32_t> found;
  for (const void* word : words) found.push_back(index_of(region, word));
  return found;
}

void write_commands(CommandWriter& commands, Input& in) {
  for (int i = in.take<uint8_t>() % 4; i > 0; --i) {
    CommandHeader* const header = commands.reserve(in.take<uint8_t>() * 16u);
    if (header == nullptr) return;
    header->call = 1;
    memset(payload_of(header), 0x5a, header->payload_bytes);
    commands.publish(header);
  }
}

// Of every other copy somebody knows where it belongs.
struct CheckedLandings : Landings {
  bool put(const AnswerHeader& header, uint64_t at, const std::byte* from, uint64_t bytes) override {
    if (at + bytes > header.payload_bytes || header.payload_bytes > kAnswerRingBytes) abort();
    for (uint64_t i = 0; i < bytes; ++i) sum += uint64_t(from[i]);
    return header.sequence % 2 == 0;
  }
  uint64_t sum = 0;
};

void take_parcels(Input& in) {
  const Region region = fresh_region();
  const uint64_t begin = uint64_t{in.take<uint8_t>()} * kRecordAlign;  // a worker before this one was here
  region.worker().answer_head.store(begin);
  region.client().answer_tail.store(begin);
  CommandWriter commands(region);
  write_commands(commands, in);
  Replica replica(region, Side::kClient);
  CheckedLandings landings;
  replica.land_in(&landings);
  Parcel out;
  while (replica.next(&out)) {
  }
  const std::vector<uint32_t> words = words_of(region);
  AnswerReader reader(region);
  Answer answer;
  RawParcel parcel;
  for (int i = 0; i < kParcelsMost && in.any(); ++i) {
    read_parcel(in, uint64_t(i), replica.received(), words, &parcel);
    const std::byte* const ring = parcel.ring.empty() ? nullptr : parcel.ring.data();
    if (replica.apply(parcel.header, parcel.entries, ring) != nullptr) return;
    const auto wish = in.take<uint8_t>();
    if ((wish & 1) != 0) write_commands(commands, in);
    if ((wish & 2) != 0) replica.next(&out);
    while ((wish & 4) != 0 && reader.ready() && reader.next(&answer) == ReadState::kRecord) reader.consume(answer);
  }
}

class NearLink : public Link {
 public:
  explicit NearLink(Region region) { region_ = region; }
  bool progress() override { return false; }
  void note(const Word&) override {}
  void wake() override {}
  void sleep(uint32_t, uint32_t) override {}
  bool alive() override { return true; }
  const char* transport() const override { return "fuzz"; }
  void abandon() override {}
  void land_in(Landings* landings) override { landings_ = landings; }
  Landings* landings() const { return landings_; }

 private:
  Landings* landings_ = nullptr;
};

// Answers with whole headers, taken in by a channel that waits for some of them.
void take_answers(Input& in) {
  const Region region = fresh_region();
  auto made = std::make_unique<NearLink>(region);
  const NearLink& link = *made;
  const std::unique_ptr<Channel> channel = Channel::adopt(region, std::move(made));
  Reply result, described;
  std::vector<std::byte> landed(kPitch * kRows);
  const Landing landing{landed.data(), kPitch, kRow, kRows};
  const auto nothing = [](std::byte*) {};
  channel->send({.call = Call::tideNull, .reply = &result}, nothing);
  channel->send({.call = Call::tideLoadLibrary, .reply = &described, .library = true}, nothing);
  channel->send({.call = Call::tideCopyOut, .stream = 0, .landing = &landing}, nothing);
  WorkerPage& page = region.worker();
  page.error.store(in.take<uint8_t>() % 3 * 700);
  page.sticky.store(in.take<uint8_t>() % 2);
  page.errors.store(in.take<uint8_t>() % 2);
  AnswerWriter answers(region);
  for (int i = 0; i < kAnswersMost && in.any(); ++i) {
    const auto wish = in.take<uint8_t>();
    AnswerHeader wished;
    wished.kind = wish % 8;
    wished.sequence = in.take<uint8_t>();
    wished.flags = (wish & 8) != 0 ? in.take<uint16_t>() : 1;
    wished.result = (wish & 16) != 0 ? in.take<int32_t>() : in.take<uint8_t>();
    wished.offset = (wish & 32) != 0 ? in.take<uint64_t>() : in.take<uint8_t>();
    std::span<const std::byte> payload = in.counted();
    if (AnswerKind(wished.kind) == AnswerKind::kText) wished.result &= 1;  // not to the fuzzer's own output
    static const std::byte page[ToldPage::kBytes] = {};
    if ((wish & 64) != 0) payload = page;
    AnswerHeader* const header = answers.reserve(uint32_t(payload.size()));
    if (header == nullptr) break;
    header->kind = wished.kind, header->flags = wished.flags, header->sequence = wished.sequence;
    header->result = wished.result, header->offset = wished.offset;
    if (!payload.empty()) memcpy(payload_of(header), payload.data(), payload.size());
    const bool whole = (wish & 64) == 0;
    const uint64_t at = whole ? 0 : payload.size() / 2;
    if (wished.kind == uint16_t(AnswerKind::kData) &&
        link.landings()->put(*header, at, payload.data() + at, payload.size() - at)) {
      header->flags = kAnswerLanded;
    }
    answers.publish(header);
    if ((wish & 128) != 0) channel->drain();
  }
  channel->drain();
  for (const auto& [address, page] : channel->take_told()) {
    if (address % ToldPage::kBytes != 0) abort();
  }
  channel->take_error();
  for (size_t row = 0; row < kRows; ++row) {  // nothing is written between the rows
    for (size_t at = kRow; at < kPitch; ++at) {
      if (landed[row * kPitch + at] != std::byte{0}) abort();
    }
  }
  std::vector<FoundKernel> kernels;
  if (described.done.load()) parse_kernels(described.payload, 3, &kernels);
}

// A frame of the scheduler's or an agent's door.
void hear(Input& in) {
  const auto wish = in.take<uint8_t>();
  const bool whole = (wish & 1) != 0;
  const uint16_t named = whole ? in.take<uint8_t>() : 0;
  const std::vector<std::byte> bytes = frame_bytes(in, whole, named);
  DoorType type{};
  std::string payload;
  if (!frame_of(bytes, (wish >> 4) % 8, (wish & 8) != 0, &type, &payload)) return;
  std::vector<VgpuPlace> places;
  PoolUsage usage;
  DoorPlace place;
  DoorOpened opened;
  int refusal = 0;
  if (type == DoorType::kJob) parse_job(payload, &places);
  if (type == DoorType::kUsage) parse_usage(payload, &usage);
  if (type == DoorType::kRefused) parse_refusal(payload);
  if (type == DoorType::kPlace && parse_place(payload, &place).ok() && strlen(place.endpoint) >= kEndpointBytes)
    abort();
  if (parse_opened(type, payload, &opened, &refusal).ok() && strlen(opened.transport_data) >= kEndpointBytes) abort();
  Endpoint endpoint;
  Endpoint::parse(opened.transport_data, &endpoint);
  if (!places.empty()) Endpoint::parse(places[0].endpoint, &endpoint);
}

void describe(Input& in) {
  const auto count = in.take<uint16_t>();
  const std::span<const std::byte> bytes = in.rest();
  const std::vector<std::byte> payload(bytes.begin(), bytes.end());
  std::vector<FoundKernel> kernels;
  if (!parse_kernels(payload, count, &kernels)) return;
  for (const FoundKernel& kernel : kernels) {
    const std::string copy(kernel.name);
    if (copy.size() != kernel.header.name_bytes) abort();
  }
}

void unpack(Input& in) {
  static Unpacker unpacker;
  const auto bytes = in.take<uint32_t>() % (kPackedPieceMax + 2);
  const std::vector<std::byte> packed = [&] {
    const auto rest = in.rest();
    return std::vector<std::byte>(rest.begin(), rest.end());
  }();
  std::vector<std::byte> to(bytes);
  unpacker.unpack(packed, to.data(), bytes);
}

}  // namespace
}  // namespace tide::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  setenv("TIDE_LOG", "off", 1);
  if (freopen("/dev/null", "w", stdout) == nullptr) abort();  // what a kernel "printed"
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
      take_parcels(in);
      break;
    case 2:
      take_answers(in);
      break;
    case 3:
      hear(in);
      break;
    case 4:
      describe(in);
      break;
    default:
      unpack(in);
  }
  return 0;
}
