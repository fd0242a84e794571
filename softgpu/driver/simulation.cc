#include "softgpu/driver/simulation.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "softgpu/driver/control.h"
#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

constexpr size_t kFreedRemembered = 4096;
constexpr uint32_t kSleepStepUs = 2000;  // between two looks whether the context was destroyed

thread_local Stream* t_stream = nullptr;

bool bad_setting(const char* name, const char* value, const std::string& what) {
  tide::log(tide::LogLevel::kError, "%s=%s is not understood: %s", name, value, what.c_str());
  return false;
}

bool read_switch(const char* name, bool* out) {
  const char* text = std::getenv(name);
  if (text == nullptr) return true;
  if (std::strcmp(text, "0") != 0 && std::strcmp(text, "1") != 0) return bad_setting(name, text, "expected 0 or 1");
  *out = text[0] == '1';
  return true;
}

// 0 when it is no number: a text only names the machine (see identity_seed() in device.cc).
uint64_t read_seed() {
  const char* text = std::getenv("SOFTGPU_SEED");
  if (text == nullptr || *text < '0' || *text > '9') return 0;
  char* end = nullptr;
  const uint64_t seed = std::strtoull(text, &end, 10);
  return *end == 0 ? seed : 0;
}

void sleep_unless_cancelled(const Context& context, uint64_t ns) {
  const uint64_t until = tide::now_ns() + ns;
  for (uint64_t now = tide::now_ns(); now < until && !context.cancel; now = tide::now_ns()) {
    tide::sleep_us(static_cast<uint32_t>(std::min<uint64_t>((until - now) / 1000 + 1, kSleepStepUs)));
  }
}

const char* find_isa(const char* text) {
  for (const char* name : {"v2", "v3", "v4"}) {
    if (std::strcmp(text, name) == 0) return name;
  }
  return nullptr;
}

// From the card's own numbers: four instructions of warps a cycle and multiprocessor, two transfers a memory cycle.
sim::CardSpeed speed_of(const Profile& profile) {
  sim::CardSpeed speed;
  speed.multiprocessors = static_cast<uint32_t>(profile.multiprocessors);
  speed.instructions_per_ns = 4.0 * profile.multiprocessors * profile.clock_khz / 1e6;
  speed.bytes_per_ns = 2.0 * profile.memory_clock_khz / 1e6 * profile.memory_bus_bits / 8;
  speed.link_bytes_per_ns = profile.major >= 9 ? 50 : 25;
  return speed;
}

}  // namespace

Simulation& simulation() {
  static Simulation* const the = new Simulation;
  return *the;
}

StreamScope::StreamScope(Stream& stream) : before_(t_stream) { t_stream = &stream; }
StreamScope::~StreamScope() { t_stream = before_; }
Stream* StreamScope::current() { return t_stream; }

bool Simulation::configure_checks(CheckOptions* options) {
  const char* text = std::getenv("SOFTGPU_CHECK");
  const std::string check = text == nullptr ? "off" : text;
  if (check != "off" && check != "page" && check != "exact") {
    return bad_setting("SOFTGPU_CHECK", text, "expected off, page or exact");
  }
  options->granularity = check == "exact" ? 1 : check == "page" ? 4096 : 0;
  return read_switch("SOFTGPU_CHECK_UNINIT", &options->uninitialised) &&
         read_switch("SOFTGPU_CHECK_RACE", &options->races) && read_switch("SOFTGPU_CHECK_FATAL", &options->fatal);
}

bool Simulation::configure() {
  began_ns_ = tide::now_ns();
  seed_ = read_seed();
  if (const char* text = std::getenv("SOFTGPU_QUANTUM")) {
    char* end = nullptr;
    const long quantum = std::strtol(text, &end, 10);
    if (*text == 0 || *end != 0 || quantum < 1 || quantum > 1'000'000) {
      return bad_setting("SOFTGPU_QUANTUM", text, "expected a number of instructions from 1 to 1000000");
    }
    quantum_ = static_cast<unsigned>(quantum);
  }
  if (const char* text = std::getenv("SOFTGPU_ISA"); text != nullptr && find_isa(text) == nullptr) {
    return bad_setting("SOFTGPU_ISA", text, "expected v2, v3 or v4");
  }
  CheckOptions options;
  if (!configure_checks(&options)) return false;
  const auto report = [](const std::string& line) { tide::log(tide::LogLevel::kWarning, "%s", line.c_str()); };
  if (options.memory()) {
    CheckOptions with_count = options;
    with_count.count_bytes = true;
    checker_ = std::make_unique<Checker>(with_count, allocations_, report);
  }
  counter_ = std::make_unique<Checker>(CheckOptions{.count_bytes = true}, allocations_, report);
  std::string error;
  if (const char* text = std::getenv("SOFTGPU_TIME")) {
    sim::TimeSettings settings;
    if (!sim::parse_time(text, &settings, &error)) return bad_setting("SOFTGPU_TIME", text, error);
    set_time(settings);
  }
  if (const char* text = std::getenv("SOFTGPU_FAULTS")) {
    std::vector<sim::PlannedFault> planned;
    if (*text != 0 && !sim::parse_faults(text, &planned, &error)) return bad_setting("SOFTGPU_FAULTS", text, error);
    faults.add(std::move(planned));
  }
  if (const char* text = std::getenv("SOFTGPU_CONTROL")) control_path_ = text;
  return true;
}

void Simulation::start() {
  if (!control_path_.empty()) start_control(control_path_);
}

double Simulation::elapsed_s() const { return static_cast<double>(tide::now_ns() - began_ns_) / 1e9; }

sim::CardClock& Simulation::card(const Device& device) {
  const std::lock_guard lock(mu_);
  auto& card = cards_[static_cast<size_t>(device.index)];
  if (card == nullptr) card = std::make_unique<sim::CardClock>(speed_of(device.profile));
  return *card;
}

sim::TimeSettings Simulation::time() const { return {mode_.load(), factor_.load()}; }

void Simulation::set_time(const sim::TimeSettings& settings) {
  // The model's time only goes on: from what it has come to.
  host_ns_ = latest_ns_.load();
  scaled_from_ns_ = latest_ns_.load();
  scaled_began_ns_ = tide::now_ns();
  factor_ = settings.factor;
  mode_ = settings.mode;
}

uint64_t Simulation::model_now() {
  if (mode_ == sim::TimeMode::kVirtual) return host_ns_;
  const auto passed = static_cast<double>(tide::now_ns() - scaled_began_ns_.load()) / factor_.load();
  return scaled_from_ns_ + static_cast<uint64_t>(passed);
}

void Simulation::came_to(uint64_t ns) {
  uint64_t before = latest_ns_;
  while (before < ns && !latest_ns_.compare_exchange_weak(before, ns)) {
  }
}

uint64_t Simulation::event_time_ns() {
  Stream* stream = StreamScope::current();
  if (mode_ == sim::TimeMode::kOff || stream == nullptr) return tide::now_ns();
  stream->clock().advance_to(model_now());
  return stream->clock().ns;
}

void Simulation::host_saw(const sim::StreamClock& clock) {
  if (mode_ != sim::TimeMode::kVirtual || StreamScope::current() != nullptr) return;
  uint64_t before = host_ns_;
  const uint64_t time = clock.ns;
  while (before < time && !host_ns_.compare_exchange_weak(before, time)) {
  }
}

// Scaled time: what took less here than there waits.
void Simulation::hold_back(const Context& context, uint64_t began_ns, uint64_t took_ns) {
  if (mode_ != sim::TimeMode::kScaled) return;
  const auto wanted = static_cast<uint64_t>(static_cast<double>(took_ns) * factor_.load());
  const uint64_t passed = tide::now_ns() - began_ns;
  if (passed < wanted) sleep_unless_cancelled(context, wanted - passed);
}

void Simulation::lose(const Device& device) {
  lost_[static_cast<size_t>(device.index)] = true;
  driver().contexts.for_each([&](Context& context) {
    if (&context.device == &device) context.fail(CUDA_ERROR_UNKNOWN);
  });
}

void Simulation::flip(const Device& device, const sim::PlannedFault& fault) {
  uint64_t address = fault.address;
  uint64_t bit = fault.bit % 8;
  if (address == 0) {
    const std::vector<Range> ranges = driver().memory.device_ranges(device);
    uint64_t total = 0;
    for (const Range& range : ranges) total += range.bytes;
    if (total == 0) return;
    uint64_t at = fault.seed * 0x9E3779B97F4A7C15 % total;
    bit = fault.bit == ~uint64_t{0} ? fault.seed % 8 : bit;
    for (const Range& range : ranges) {
      if (at < range.bytes) {
        address = range.address + at;
        break;
      }
      at -= range.bytes;
    }
  }
  std::byte value{};
  const auto host = reinterpret_cast<uint64_t>(&value);
  if (address - kWindowBase >= kWindowBytes || !driver().memory.covered(address, 1)) {
    tide::log(tide::LogLevel::kWarning, "fault '%s': nothing is at %#llx", fault.text.c_str(),
              static_cast<unsigned long long>(address));
    return;
  }
  driver().memory.copy(host, address, 1);
  value ^= static_cast<std::byte>(1u << bit);
  driver().memory.copy(address, host, 1);
  tide::log(tide::LogLevel::kWarning, "fault '%s': bit %u of %#llx is flipped", fault.text.c_str(),
            static_cast<unsigned>(bit), static_cast<unsigned long long>(address));
}

CUresult Simulation::apply(const Context& context, const std::vector<sim::PlannedFault>& due, Launch* launch,
                           double* slow) {
  for (const sim::PlannedFault& fault : due) {
    tide::log(tide::LogLevel::kWarning, "GPU %d has a planned fault: %s", context.device.index, fault.text.c_str());
    switch (fault.action) {
      case sim::FaultAction::kEcc:
        return CUDA_ERROR_ECC_UNCORRECTABLE;
      case sim::FaultAction::kIllegal:
        return CUDA_ERROR_ILLEGAL_ADDRESS;
      case sim::FaultAction::kBus:
        lose(context.device);
        return CUDA_ERROR_UNKNOWN;
      case sim::FaultAction::kHang:
        launch->hold = true;
        break;
      case sim::FaultAction::kSlow:
        *slow = std::max(1.0, fault.factor);
        break;
      case sim::FaultAction::kFlip:
        flip(context.device, fault);
        break;
      default:
        break;
    }
  }
  return CUDA_SUCCESS;
}

Fault Simulation::run_grid(const Context& context, const std::string& kernel, Launch* launch, CUresult* planned) {
  launch->quantum = quantum_;
  launch->seed = seed_;
  launch->owner = static_cast<uint32_t>(context.device.index);
  const bool timed = mode_ != sim::TimeMode::kOff;
  launch->checker = checker_ != nullptr ? checker_.get() : timed ? counter_.get() : nullptr;
  double slow = 1;
  if (lost(context.device.index)) {
    *planned = CUDA_ERROR_UNKNOWN;
    return {};
  }
  if (!faults.empty()) {
    const auto due = faults.due({sim::FaultSite::kKernel, context.device.index, kernel, elapsed_s()});
    *planned = apply(context, due, launch, &slow);
    if (*planned != CUDA_SUCCESS) return {};
  }
  const uint64_t began = tide::now_ns();
  Counters counters;
  const Fault fault = run(*launch, driver().pool(), &counters);
  if (timed) {
    const uint64_t blocks = uint64_t{launch->grid.x} * launch->grid.y * launch->grid.z;
    const sim::KernelCost cost{counters.instructions, counters.bytes, blocks, slow};
    sim::StreamClock unnamed;
    sim::StreamClock* clock = StreamScope::current() != nullptr ? &StreamScope::current()->clock() : &unnamed;
    came_to(card(context.device).run_kernel(clock, cost, model_now()));
    hold_back(context, began, card(context.device).kernel_ns(cost));
  } else if (slow > 1) {
    sleep_unless_cancelled(context, static_cast<uint64_t>(static_cast<double>(tide::now_ns() - began) * (slow - 1)));
  }
  return fault;
}

bool Simulation::begin_copy(uint64_t bytes, bool to_device, bool from_device) {
  Stream* stream = StreamScope::current();
  if (stream == nullptr || (faults.empty() && mode_ == sim::TimeMode::kOff)) return true;
  const Context& context = stream->context();
  bool kept = true;
  for (const auto& fault : faults.due({sim::FaultSite::kCopy, context.device.index, {}, elapsed_s()})) {
    tide::log(tide::LogLevel::kWarning, "GPU %d has a planned fault: %s", context.device.index, fault.text.c_str());
    if (fault.action == sim::FaultAction::kLostCopy) kept = false;
    if (fault.action == sim::FaultAction::kSlowCopy) sleep_unless_cancelled(context, fault.ms * 1'000'000);
  }
  if (mode_ == sim::TimeMode::kOff) return kept;
  const uint64_t began = tide::now_ns();
  sim::CardClock& its_card = card(context.device);
  if (to_device && from_device) {
    const sim::KernelCost cost{0, 2 * bytes, ~uint64_t{0}, 1};
    came_to(its_card.run_kernel(&stream->clock(), cost, model_now()));
    hold_back(context, began, its_card.kernel_ns(cost));
  } else {
    came_to(its_card.run_copy(&stream->clock(), bytes, to_device, model_now()));
    hold_back(context, began, its_card.copy_ns(bytes));
  }
  return kept;
}

bool Simulation::allocation_fails(const Device& device) {
  if (faults.empty()) return false;
  const auto due = faults.due({sim::FaultSite::kAllocation, device.index, {}, elapsed_s()});
  for (const auto& fault : due) {
    tide::log(tide::LogLevel::kWarning, "GPU %d has a planned fault: %s", device.index, fault.text.c_str());
  }
  return !due.empty();
}

bool Simulation::LiveAllocations::find(uint64_t address, uint64_t* start, uint64_t* bytes) const {
  const auto range = driver().memory.find(address);
  if (!range || !range->usable()) return false;
  *start = range->address;
  *bytes = range->bytes;
  return true;
}

void Simulation::LiveAllocations::freed(uint64_t address, uint64_t bytes) {
  const std::lock_guard lock(mu_);
  if (freed_.size() < kFreedRemembered) {
    freed_.emplace_back(address, bytes);
  } else {
    freed_[next_++ % kFreedRemembered] = {address, bytes};
  }
}

std::string Simulation::LiveAllocations::describe(uint64_t address) const {
  {
    const std::lock_guard lock(mu_);
    for (const auto& [start, bytes] : freed_) {
      if (address - start < bytes) {
        return tide::format("%llu bytes into %llu that were freed", static_cast<unsigned long long>(address - start),
                            static_cast<unsigned long long>(bytes));
      }
    }
  }
  uint64_t before = 0, bytes = 0;
  for (const auto& device : driver().devices) {
    for (const Range& range : driver().memory.device_ranges(*device)) {
      if (range.address <= address && range.address >= before) before = range.address, bytes = range.bytes;
    }
  }
  if (before == 0) return "in no allocation";
  return tide::format("%llu bytes behind the start of an allocation of %llu",
                      static_cast<unsigned long long>(address - before), static_cast<unsigned long long>(bytes));
}

}  // namespace softgpu
