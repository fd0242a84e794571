// Makes the inputs that the fuzzer begins with: what both sides say when all is well, in the form that the targets take
// (worker.cc, client.cc). seeds FOLDER writes FOLDER/worker and FOLDER/client.

#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "api/library_info.h"
#include "api/payload.h"
#include "base/limits.h"
#include "base/pack.h"
#include "calls.h"
#include "commands.h"
#include "interpose/door_answers.h"
#include "transport/door.h"
#include "transport/frame.h"
#include "transport/replica.h"

namespace tide::fuzz {
namespace {

class Bytes {
 public:
  template <class T>
  Bytes& add(const T& value) {
    return add(&value, sizeof value);
  }
  Bytes& add(const void* data, size_t bytes) {
    all_.append(static_cast<const char*>(data), bytes);
    return *this;
  }
  Bytes& add(const Bytes& other) { return add(other.all_.data(), other.all_.size()); }
  Bytes& pad(size_t to) {
    all_.resize((all_.size() + to - 1) / to * to);
    return *this;
  }
  Bytes& counted(const Bytes& other) { return add(uint16_t(other.all_.size())).add(other); }
  const std::string& all() const { return all_; }

 private:
  std::string all_;
};

class Folder {
 public:
  Folder(const std::string& parent, const char* name) : path_(parent + "/" + name) { mkdir(path_.c_str(), 0755); }
  void put(const std::string& name, const Bytes& bytes) const {
    FILE* const file = fopen((path_ + "/" + name).c_str(), "wb");
    if (file == nullptr) return;
    fwrite(bytes.all().data(), 1, bytes.all().size(), file);
    fclose(file);
  }

 private:
  const std::string path_;
};

// --- commands, as execute() takes them

constexpr uint8_t kAsk = 1, kEverything = 8 | 16 | 32;  // settle, poll, read the answers

Bytes script() { return Bytes().add(uint8_t{5}).add(uint8_t{0}); }

void say(Bytes& to, uint16_t call, const Bytes& payload, bool ask = false) {
  to.add(uint8_t(kEverything | (ask ? kAsk : 0))).add(call).counted(payload);
}
template <class C>
void say(Bytes& to, Call call, const C& command, const Bytes& data = {}, bool ask = false) {
  Bytes payload;
  payload.add(command);
  if (!data.all().empty()) payload.pad(16).add(data);
  say(to, uint16_t(call), payload, ask);
}
template <class C>
Bytes text(const C& characters) {
  return Bytes().add(characters, sizeof characters);
}

const uint64_t kMemory = vgpu_range_base(0);
constexpr char kImage[] = "kernel nothing 16\nglobal word 64\n";

// A context with its stream, memory, a library with a kernel and a variable, a stream and two events.
Bytes begun() {
  Bytes all = script();
  say(all, Call::tideCreateContext, command::CreateContext{1, 0, 0, 1});
  say(all, Call::tideMapMemory, command::MapMemory{kMemory, kChunkBytes});
  say(all, Call::tideStage, command::Stage{1, sizeof kImage, 0, sizeof kImage}, text(kImage));
  say(all, Call::tideLoadLibrary, command::LoadLibrary{1, 1}, {}, true);
  say(all, Call::tideCreateStream, command::CreateStream{1, 0, 0, 0});
  say(all, Call::tideCreateEvent, command::CreateEvent{1, 0});
  say(all, Call::tideCreateEvent, command::CreateEvent{2, 0});
  return all;
}

Bytes bundle(uint32_t kind, uint64_t cut = 0) {
  const char name[] = "unit.o";
  Bytes parts;
  for (int i = 0; i < 2; ++i) {
    parts.add(uint32_t{1}).add(uint32_t(sizeof name)).add(uint64_t{sizeof kImage});
    parts.add(text(name)).pad(8).add(text(kImage)).add(char{0}).pad(8);
  }
  const uint64_t bytes = cut != 0 ? cut : 24 + parts.all().size();
  return Bytes().add("tidbndl1", 8).add(kind).add(uint32_t{2}).add(bytes).add(parts);
}

void work(const Folder& to) {
  const std::string zeros(4096, '\0'), mixed = "abcdefgh" + zeros;
  Bytes all = begun();
  say(all, Call::tideLaunch, command::Launch{1ull << 32, 1, 1, 1, 1, 1, 1, 0, 0, 0, 16, 0},
      Bytes().add(zeros.data(), 16));
  say(all, Call::tideCopyIn, command::CopyIn{kMemory, 64, 32, 2}, Bytes().add(zeros.data(), 64));
  say(all, Call::tideCopyOut, command::CopyOut{kMemory, 64, 32, 2, 2, 0, 0, 0, 0});
  say(all, Call::tideCopyWithin, command::CopyWithin{kMemory, 64, kMemory + 4096, 64, 32, 2});
  say(all, Call::tideRecordEvent, command::RecordEvent{1, 0});
  say(all, Call::tideWaitEvent, command::WaitEvent{1, 0});
  say(all, Call::tideRecordEvent, command::RecordEvent{2, 0});
  say(all, Call::tideElapsed, command::Elapsed{1, 2}, {}, true);
  say(all, Call::tideWaitSignal, command::WaitSignal{3, 0, 5});
  say(all, Call::tideGlobal, command::Global{1, 5}, text("word"), true);
  say(all, uint16_t(Call::tideFetch), Bytes().add(uint64_t{0}));
  say(all, uint16_t(Call::tidePeerAddress), Bytes());
  say(all, uint16_t(Call::tideFetch), Bytes().add(command::Fetch{}));
  say(all, Call::tideUnmapMemory, command::UnmapMemory{kMemory, kChunkBytes});
  to.put("work", all);
  all = begun();
  Packer packer;
  const auto packed = packer.pack(reinterpret_cast<const std::byte*>(mixed.data()), uint32_t(mixed.size()));
  const auto packed_copy = [&](PackForm form, uint32_t slot, const Bytes& data) {
    say(all, Call::tideCopyInPacked,
        command::CopyInPacked{kMemory, 0, mixed.size(), 1, uint32_t(form), slot, 7, 8, data.all().size()}, data);
  };
  packed_copy(PackForm::kPacked, 1, Bytes().add(packed.data(), packed.size()));
  packed_copy(PackForm::kKept, 1, {});
  packed_copy(PackForm::kPlain, 2, Bytes().add(mixed.data(), mixed.size()));
  packed_copy(PackForm::kPlain, kNoContent, Bytes().add(mixed.data(), mixed.size()));
  to.put("packed", all);
  for (uint32_t kind = 0; kind <= 2; ++kind) {
    all = begun();
    const Bytes image = bundle(kind, kind == 0 ? 8 : 0);  // one says that it is shorter than its header
    say(all, Call::tideStage, command::Stage{2, image.all().size(), 0, image.all().size()}, image);
    say(all, Call::tideLoadLibrary, command::LoadLibrary{2, 2}, {}, true);
    to.put("bundle" + std::to_string(kind), all);
  }
}

void host(const Folder& to) {
  Bytes all = begun();
  say(all, Call::tideMapHost, command::MapHost{kHostZoneBase, 8192, 0, 1}, {}, true);
  const std::string bytes(64, 'x');
  say(all, Call::tideWriteHost, command::WriteHost{kHostZoneBase, 64, 8, 1, 0},
      Bytes().add(~uint64_t{0}).add(bytes.data(), bytes.size()));
  say(all, Call::tideReadHost, command::ReadHost{kHostZoneBase, 64}, {}, true);
  say(all, Call::tideChangedHost, command::ChangedHost{kHostZoneBase, 8192}, {}, true);
  say(all, Call::tideUnmapHost, command::UnmapHost{kHostZoneBase, 8192});
  to.put("host", all);
}

// A kernel's number is its library's and its place there.
uint64_t handle_of(const std::string& parameter) {
  const bool kernel =
      parameter.find("func") != std::string::npos || parameter.find("kernel") != std::string::npos || parameter == "f";
  return kernel ? uint64_t{1} << 32 : 1;
}

// Each function of the table once, with plausible values.
void rows(const Folder& to) {
  for (const CallRow& row : kCallRows) {
    if (row.travel == Travel::kLocal || row.travel == Travel::kRefuse) continue;
    Bytes payload, arrays;
    for (int i = 0; i < row.param_count; ++i) {
      const ParamKind kind = row.params[i].kind;
      if (kind == ParamKind::kDevice) payload.add(kMemory).add(uint64_t{64});
      if (kind == ParamKind::kValue) payload.add(uint64_t{1});
      if (kind == ParamKind::kHandle) payload.add(handle_of(row.params[i].name));
      if (kind == ParamKind::kIn)
        arrays.add(uint64_t{row.params[i].bytes})
            .add(std::string(row.params[i].bytes, '\1').data(), row.params[i].bytes)
            .pad(8);
      if (kind == ParamKind::kString) arrays.add(uint64_t{5}).add("word", 5).pad(8);
    }
    Bytes all = begun();
    say(all, row.number, payload.add(arrays), row.travel == Travel::kSync);
    to.put(std::string("row-") + row.name, all);
  }
}

// --- rings and parcels

Bytes record(uint16_t kind, uint64_t sequence, const std::string& payload) {
  CommandHeader header;
  header.bytes = uint32_t((sizeof header + payload.size() + 15) / 16 * 16);
  header.call = kind;
  header.sequence = sequence;
  header.payload_bytes = uint32_t(payload.size());
  return Bytes().add(header).add(payload.data(), payload.size()).pad(16);
}

Bytes ring(bool to_worker, uint32_t begin) {
  Bytes all;
  all.add(uint8_t{0}).add(begin);
  if (to_worker) all.add(uint16_t{0});
  all.add(uint16_t{0});
  for (uint64_t i = 1; i <= 4; ++i) all.add(record(1, to_worker ? i : 0, std::string(i * 9, 'p')));
  return all;
}

// As read_parcel() takes it, for words chosen by their place in the target's list.
Bytes parcel(uint8_t flags, const Bytes& ring, const std::vector<std::pair<uint16_t, uint16_t>>& words) {
  Bytes all;
  all.add(uint8_t{0}).add(flags).counted(ring).add(uint8_t(words.size()));
  for (const auto& [word, value] : words) all.add(word).add(value);
  return all.add(uint8_t{0xf});
}

void parcels(const Folder& worker, const Folder& client) {
  const Bytes one = record(1, 1, "12345678"), two = record(1, 2, "12345678");
  const uint16_t bytes = uint16_t(one.all().size());
  // command_head is the first word of the worker's list, answer_head of the client's.
  Bytes state = parcel(kParcelSynced, {}, {{11, 0}, {12, 0}, {2, 1}});
  Bytes all = Bytes().add(uint8_t{2}).add(state).add(uint8_t{1});
  all.add(parcel(0, one, {{0, bytes}})).add(uint8_t{1}).add(parcel(0, two, {{0, uint16_t(2 * bytes)}, {5, 1}}));
  worker.put("parcels", all);
  worker.put("resumed", Bytes()
                            .add(uint8_t{3})
                            .add(uint8_t{0})
                            .add(uint8_t{0})
                            .add(uint8_t{1})
                            .add(uint8_t{0})
                            .add(uint8_t{1})
                            .add(state)
                            .add(parcel(0, one, {{0, bytes}})));
  Bytes told = Bytes().add(uint8_t{2}).add(state).add(uint8_t{5}).add(uint8_t{2});
  told.add(parcel(0, one, {{0, bytes}})).add(uint8_t{0x0f}).add(uint8_t{2});
  told.add(uint8_t{4}).add(uint8_t{0}).add(uint64_t{32}).add(uint16_t{0}).add(uint8_t{0}).add(uint8_t{0});
  worker.put("delivered", told);
  Bytes begin = Bytes().add(uint8_t{1}).add(uint8_t{0}).add(uint8_t{2}).add(uint8_t{1}).add(uint8_t{2});
  begin.add(parcel(kParcelSynced, {}, {}));
  begin.add(parcel(0, record(1, 0, "answered"), {{0, bytes}, {2, 1}, {1, 32}, {7, 3}, {9, 1}, {14, 2}}));
  client.put("parcels", begin);
}

// --- doors, answers, descriptions

template <class T>
Bytes frame(uint8_t selector, uint8_t wish, DoorType type, const T& payload, const Bytes& more = {}) {
  DoorHeader header;
  header.type = uint16_t(type);
  header.payload_bytes = uint32_t(sizeof payload + more.all().size());
  return Bytes().add(selector).add(wish).add(header).add(payload).add(more);
}

void doors(const Folder& worker, const Folder& client) {
  DoorOpen open;
  set_text(open.job, "job-1");
  set_text(open.transport, "shm");
  worker.put("open", frame(4, 0x18, DoorType::kOpen, open));
  worker.put("open-payload", Bytes().add(uint8_t{4}).add(uint8_t{1}).add(open));
  for (const uint16_t version : {uint16_t(kDoorVersion - 1), uint16_t(kDoorVersion + 1)}) {
    DoorHeader header;
    header.version = version;
    worker.put("version-" + std::to_string(version), Bytes().add(uint8_t{4}).add(uint8_t{0}).add(header));
  }
  DoorOpened opened;
  set_text(opened.transport_data, "host=a;unix=/b;tcp=127.0.0.1:1");
  client.put("opened", frame(3, 0, DoorType::kOpened, opened));
  client.put("refused", frame(3, 0, DoorType::kRefused, DoorRefused{}));
  client.put("place", frame(3, 0, DoorType::kPlace, DoorPlace{}));
  DoorVgpu vgpu;
  vgpu.device_info_bytes = sizeof(DeviceInfo);
  DeviceInfo stranger;
  ++stranger.version;
  client.put("newer-info", frame(3, 0, DoorType::kJob, DoorJob{.vgpu_count = 1}, Bytes().add(vgpu).add(stranger)));
  client.put("job", frame(3, 0, DoorType::kJob, DoorJob{.vgpu_count = 1}, Bytes().add(vgpu).add(DeviceInfo{})));
  client.put("no-place", frame(3, 0, DoorType::kOpened, DoorOpened{}));
  set_text(opened.transport_data, "host=a;host=b");
  client.put("two-hosts", frame(3, 0, DoorType::kOpened, opened));
  set_text(opened.transport_data, "host=a");
  client.put("only-host", frame(3, 0, DoorType::kOpened, opened));
  client.put("many", frame(3, 0, DoorType::kJob, DoorJob{.vgpu_count = kVgpusMax + 1}));
  vgpu.device_info_bytes = 4;
  client.put("other-info", frame(3, 0, DoorType::kJob, DoorJob{.vgpu_count = 1}, Bytes().add(vgpu).add(uint32_t{1})));
  client.put("usage",
             frame(3, 0, DoorType::kUsage, DoorUsage{1, 1}, Bytes().add(DoorVgpuUsage{}).add(DoorClientUsage{})));
}

Bytes description() {
  return Bytes()
      .add(LibraryHeader{0, 1, 0, 0})
      .add(KernelHeader{4, 2, 16, 1024})
      .add("name", 4)
      .pad(8)
      .add(ParamEntry{0, 8})
      .add(ParamEntry{8, 8});
}

void answers(const Folder& client) {
  const std::string plain(192, 'z');
  Packer packer;
  const auto packed = packer.pack(reinterpret_cast<const std::byte*>(plain.data()), uint32_t(plain.size()));
  const auto answer = [](uint8_t wish, AnswerKind kind, uint8_t sequence, uint8_t result, const Bytes& payload) {
    return Bytes().add(uint8_t(wish | uint8_t(kind))).add(sequence).add(result).add(uint8_t{0}).counted(payload);
  };
  Bytes all = Bytes().add(uint8_t{2}).add(uint8_t{1}).add(uint8_t{1}).add(uint8_t{1});
  all.add(answer(128, AnswerKind::kResult, 1, 0, Bytes().add(uint64_t{5})));
  all.add(answer(128, AnswerKind::kLibrary, 2, 0, description()));
  all.add(answer(128, AnswerKind::kPackedData, 3, 192, Bytes().add(packed.data(), packed.size())));
  all.add(answer(64 | 128, AnswerKind::kPage, 3, 0, {}));
  all.add(answer(0, AnswerKind::kText, 3, 1, Bytes().add("hello", 5)));
  client.put("answers", all);
  client.put("data", Bytes()
                         .add(uint8_t{2})
                         .add(uint8_t{0})
                         .add(uint16_t{0})
                         .add(answer(128, AnswerKind::kData, 3, 0, Bytes().add(plain.data(), 192))));
  client.put("description", Bytes().add(uint8_t{4}).add(uint16_t{1}).add(description()));
  client.put("packed", Bytes().add(uint8_t{5}).add(uint32_t{192}).add(packed.data(), packed.size()));
}

}  // namespace
}  // namespace tide::fuzz

int main(int argc, char** argv) {
  using namespace tide::fuzz;
  if (argc != 2) return 2;
  const Folder worker(argv[1], "worker"), client(argv[1], "client");
  work(worker);
  host(worker);
  rows(worker);
  worker.put("ring", ring(true, 3));
  worker.put("ring-end", ring(true, (16u << 20) / 16 - 10));
  client.put("ring", ring(false, 3));
  worker.put("region", Bytes()
                           .add(uint8_t{1})
                           .add(uint8_t{0})
                           .add(tide::ClientPage{}.magic)
                           .add(tide::kRegionVersion)
                           .add(uint64_t{tide::kRegionBytes}));
  parcels(worker, client);
  doors(worker, client);
  answers(client);
  return 0;
}
