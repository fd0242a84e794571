#include "fake_worker.h"

#include <sys/mman.h>

#include <cstring>

#include "api/payload.h"
#include "base/clock.h"
#include "base/limits.h"
#include "transport/wait.h"

namespace tide {
namespace {

constexpr uint64_t kArenaBytes = 1u << 30;
constexpr uint64_t kSavedBytes = 8u << 20;  // where the first allocations lie

class FakeLink : public Link {
 public:
  FakeLink(Region region, std::atomic<bool>* alive) : alive_(alive) { region_ = region; }
  bool progress() override { return false; }
  void note(const Word&) override {}
  void wake() override {}
  void sleep(uint32_t timeout_us, uint32_t) override { sleep_us(std::min(timeout_us, 50u)); }
  bool alive() override { return alive_->load(); }
  const char* transport() const override { return "fake"; }
  void abandon() override {}

 private:
  std::atomic<bool>* alive_;
};

}  // namespace

DeviceInfo fake_device() {
  DeviceInfo info;
  const std::pair<CUdevice_attribute, int> values[] = {{CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 2147483647},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 232448},
                                                       {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
                                                       {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},
                                                       {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048},
                                                       {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9}};
  for (const auto& [attribute, value] : values) {
    info.attributes[attribute] = value;
    info.attribute_known[attribute] = 1;
  }
  strcpy(info.name, "fake");
  info.driver_version = CUDA_VERSION;
  info.total_memory = 1u << 30;
  info.greatest_stream_priority = -5;
  return info;
}

FakeWorker::FakeWorker() {
  if (!create_region(&fd_, &region_).ok()) abort();
  arena_ = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena_ == MAP_FAILED) abort();
  begin();
}

FakeWorker::FakeWorker(std::unique_ptr<Link> link, uint64_t epoch, const FakeWorker* before) : link_(std::move(link)) {
  region_ = link_->region();
  if (before != nullptr) {
    kernels = before->kernels;
    events_ = before->events_;
    arena_ = before->arena_;  // the memory moved with the vGPU
    host_fd_ = before->host_fd_;
  } else {
    arena_ = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena_ == MAP_FAILED) abort();
  }
  region_.worker().epoch.store(epoch);
  begin();
}

FakeWorker::FakeWorker(std::unique_ptr<Link> link, uint64_t epoch, const FakeCheckpoint& from)
    : kernels(from.kernels), link_(std::move(link)), recovered_(epoch), events_(from.events) {
  region_ = link_->region();
  arena_ = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena_ == MAP_FAILED) abort();
  memcpy(arena_, from.memory.data(), from.memory.size());
  thread_ = std::thread([this] { be_recovered(); });
}

void FakeWorker::begin() {
  reader_ = CommandReader(region_);
  writer_ = AnswerWriter(region_);
  region_.worker().state.store(uint64_t(ChannelState::kLive));
  thread_ = std::thread([this] { run(); });
}

void FakeWorker::be_recovered() {
  while (!stop_ && region_.client().recovered.load() != recovered_) sleep_us(100);
  if (stop_) return;
  region_.worker().epoch.store(recovered_);
  reader_ = CommandReader(region_);
  writer_ = AnswerWriter(region_);
  region_.worker().state.store(uint64_t(ChannelState::kLive));
  run();
}

FakeCheckpoint FakeWorker::checkpoint() {
  WorkerPage& page = region_.worker();
  FakeCheckpoint made{page.acknowledged.load(), page.answer_head.load(), {}, events_, kernels};
  const auto* const memory = static_cast<const std::byte*>(arena_);
  made.memory.assign(memory, memory + kSavedBytes);
  page.safe_answers.store(made.answers);
  page.safe_sequence.store(made.sequence);
  return made;
}

FakeWorker::~FakeWorker() = default;  // the memory stays: another worker may have it by now

void FakeWorker::stop() {
  stop_ = true;
  thread_.join();
}

std::unique_ptr<Link> FakeWorker::make_link() { return std::make_unique<FakeLink>(region_, &alive_); }

void FakeWorker::run() {
  while (!stop_) {
    if (!alive_) {
      sleep_us(200);
      continue;
    }
    const bool got = take_commands();
    const bool ran = run_streams();
    if ((got || ran) && link_ != nullptr) notify(*link_, Side::kWorker);
    if (!got && !ran) sleep_us(20);
  }
}

bool FakeWorker::take_commands() {
  Command c;
  bool any = false;
  while (reader_.next(&c) == ReadState::kRecord) {
    any = true;
    SeenCommand s{Call(c.header.call), c.header.context, c.header.stream, c.header.sequence, {}};
    s.payload.assign(c.payload, c.payload + c.header.payload_bytes);
    {
      const std::lock_guard lock(mu_);
      seen_.push_back(s);
    }
    if (s.stream != kNoStream)
      streams_[s.stream].push_back(s);
    else
      at_once(s, (c.header.flags & kCommandAnswer) != 0);
    reader_.consume(c);
  }
  return any;
}

bool FakeWorker::run_streams() {
  bool any = false;
  for (auto& [slot, queue] : streams_) {
    while (!held_ && !queue.empty() && execute(queue.front())) {
      region_.worker().stream_progress[slot].store(queue.front().sequence, std::memory_order_release);
      queue.pop_front();
      any = true;
    }
  }
  return any;
}

// Shared pages of the program lie at its own addresses here, too.
void FakeWorker::map_host(const SeenCommand& c) {
  const auto command = c.as<command::MapHost>();
  if (command.shared == 0 || link_ == nullptr) return;
  if (host_fd_ < 0) host_fd_ = link_->take_descriptor();
  if (host_fd_ < 0) return;
  mmap(reinterpret_cast<void*>(command.address), command.bytes, PROT_READ | PROT_WRITE,
       MAP_SHARED | MAP_FIXED_NOREPLACE, host_fd_, off_t(command.address - kHostZoneBase));
}

std::byte* FakeWorker::at(uint64_t address) {
  if (host_fd_ >= 0 && address - kHostZoneBase < kHostZoneBytes) return reinterpret_cast<std::byte*>(address);
  return static_cast<std::byte*>(arena_) + (address - kWindowBase) % kVgpuRangeBytes % kArenaBytes;
}

void FakeWorker::fetch(const SeenCommand& c) {
  const auto command = c.as<command::Fetch>();
  FetchAnswer answer;
  answer.state = FetchState::kDone;
  if (!fetches_end.empty()) {
    answer.state = fetches_end.front();
    fetches_end.pop_front();
  }
  for (uint64_t row = 0; answer.state == FetchState::kDone && row < command.height; ++row) {
    memcpy(at(command.destination + row * command.destination_pitch),
           peer->at(command.source + row * command.source_pitch), command.width);
  }
  this->answer(AnswerKind::kData, c.sequence, 0, &answer, sizeof answer);
}

bool FakeWorker::execute(const SeenCommand& c) {
  switch (c.call) {
    case Call::tidePeerAddress: {
      PeerAddressAnswer answer;
      answer.ok = 1;
      if (gives_memory) this->answer(AnswerKind::kData, c.sequence, 0, &answer, sizeof answer);
      return true;
    }
    case Call::tideFetch:
      fetch(c);
      return true;
    case Call::tideCopyIn: {
      const auto command = c.as<command::CopyIn>();
      const std::byte* data = c.payload.data() + command::kCopyInDataOffset;
      for (uint64_t row = 0; row < command.height; ++row) {
        memcpy(at(command.destination + row * command.pitch), data + row * command.width, command.width);
      }
      return true;
    }
    case Call::tideCopyOut: {
      const auto command = c.as<command::CopyOut>();
      std::vector<std::byte> packed;
      for (uint64_t row = 0; row < command.height; ++row) {
        const std::byte* from = at(command.source + row * command.pitch);
        packed.insert(packed.end(), from, from + command.width);
      }
      for (size_t offset = 0; offset < packed.size(); offset += 100'000) {
        answer(AnswerKind::kData, c.sequence, 0, packed.data() + offset,
               std::min<size_t>(100'000, packed.size() - offset), offset);
      }
      return true;
    }
    case Call::tideCopyWithin: {
      const auto command = c.as<command::CopyWithin>();
      for (uint64_t row = 0; row < command.height; ++row) {
        memmove(at(command.destination + row * command.destination_pitch),
                at(command.source + row * command.source_pitch), command.width);
      }
      return true;
    }
    case Call::tideRecordEvent:
      region_.worker().event_done[c.as<command::RecordEvent>().event].store(c.sequence, std::memory_order_release);
      return true;
    case Call::tideWaitSignal: {
      const auto command = c.as<command::WaitSignal>();
      return region_.client().signals[command.slot].load(std::memory_order_acquire) >= command.value;
    }
    default:
      return true;
  }
}

void FakeWorker::at_once(const SeenCommand& c, bool wants_answer) {
  CUresult result = CUDA_SUCCESS;
  std::vector<std::byte> out;
  if (c.call == Call::tideMapMemory) {
    mapped_bytes += c.as<command::MapMemory>().bytes;
  } else if (c.call == Call::tideUnmapMemory) {
    mapped_bytes -= c.as<command::UnmapMemory>().bytes;
  } else if (c.call == Call::tideStage) {
    const auto s = c.as<command::Stage>();
    const std::lock_guard lock(mu_);
    auto& stage = stages_[s.stage];
    stage.resize(s.total);
    memcpy(stage.data() + s.offset, c.payload.data() + command::kStageDataOffset, s.bytes);
  } else if (c.call == Call::tideMapHost) {
    map_host(c);
  } else if (c.call == Call::tideLoadLibrary) {
    return answer_library(c.sequence);
  } else if (c.call == Call::tideElapsed) {
    const ElapsedAnswer elapsed{1.5f, 0};
    out.assign(reinterpret_cast<const std::byte*>(&elapsed), reinterpret_cast<const std::byte*>(&elapsed + 1));
  } else if (c.call == Call::tideGlobal) {
    const auto g = c.as<command::Global>();
    const std::string name(reinterpret_cast<const char*>(c.payload.data()) + command::kGlobalDataOffset, g.name_bytes);
    const auto it = globals.find(name);
    if (it == globals.end()) {
      result = CUDA_ERROR_NOT_FOUND;
    } else {
      const GlobalAnswer found{it->second.first, it->second.second, 0};
      out.assign(reinterpret_cast<const std::byte*>(&found), reinterpret_cast<const std::byte*>(&found + 1));
    }
  } else if (wants_answer && answer_call) {
    result = answer_call(c, &out);
  }
  if (wants_answer) answer(AnswerKind::kResult, c.sequence, result, out.data(), out.size());
}

void FakeWorker::answer(AnswerKind kind, uint64_t sequence, int result, const void* payload, size_t bytes,
                        uint64_t offset, uint16_t flags) {
  const std::lock_guard lock(answer_mu_);
  AnswerHeader* header;
  while ((header = writer_.reserve(uint32_t(bytes))) == nullptr && !stop_) sleep_us(20);
  if (header == nullptr) return;
  if (bytes != 0) memcpy(header + 1, payload, bytes);
  header->kind = uint16_t(kind);
  header->flags = flags;
  header->sequence = sequence;
  header->result = result;
  header->offset = offset;
  writer_.publish(header);
}

void FakeWorker::answer_library(uint64_t sequence) {
  std::vector<std::byte> out;
  const auto add = [&](const void* data, size_t bytes) {
    const auto* p = static_cast<const std::byte*>(data);
    out.insert(out.end(), p, p + bytes);
    out.resize((out.size() + 7) / 8 * 8);
  };
  LibraryHeader header{load_result, 0, 0, 0};
  if (load_result != CUDA_SUCCESS) {
    header.message_bytes = uint32_t(load_message.size());
    add(&header, sizeof header);
    add(load_message.data(), load_message.size());
  } else {
    header.kernel_count = uint32_t(kernels.size());
    add(&header, sizeof header);
    for (const FakeKernel& k : kernels) {
      const KernelHeader kernel{uint32_t(k.name.size()), uint32_t(k.params.size()), k.param_bytes, k.max_threads};
      add(&kernel, sizeof kernel);
      add(k.name.data(), k.name.size());
      add(k.params.data(), k.params.size() * sizeof(ParamEntry));
    }
  }
  const size_t half = out.size() / 2;  // in two parts, to see them put together
  answer(AnswerKind::kLibrary, sequence, load_result, out.data(), half, 0, 0);
  answer(AnswerKind::kLibrary, sequence, load_result, out.data() + half, out.size() - half, half, kLibraryLastPart);
}

void FakeWorker::set_error(CUresult code, bool sticky) {
  WorkerPage& page = region_.worker();
  page.error.store(code);
  page.sticky.store(sticky);
  page.errors.fetch_add(1);
}

void FakeWorker::set_moved(const char* endpoint, uint64_t epoch) {
  WorkerPage& page = region_.worker();
  strncpy(page.next_endpoint, endpoint, sizeof page.next_endpoint - 1);
  page.next_epoch.store(epoch);
  page.state.store(uint64_t(ChannelState::kMoved));
}

void FakeWorker::print(const std::string& text) { answer(AnswerKind::kText, 0, 1, text.data(), text.size()); }

std::vector<SeenCommand> FakeWorker::seen(Call call) const {
  const std::lock_guard lock(mu_);
  std::vector<SeenCommand> result;
  for (const SeenCommand& s : seen_) {
    if (s.call == call) result.push_back(s);
  }
  return result;
}

std::vector<std::byte> FakeWorker::staged(uint64_t stage) const {
  const std::lock_guard lock(mu_);
  const auto it = stages_.find(stage);
  return it == stages_.end() ? std::vector<std::byte>{} : it->second;
}

}  // namespace tide
