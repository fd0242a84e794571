#include "softgpu/driver/stream_order.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/mix.h"
#include "softgpu/driver/stream.h"

namespace softgpu {
namespace {

struct Settings {
  StreamOrder order = StreamOrder::kEager;
  uint64_t seed = 0;
};

// A seed that is no number only names the machine.
Settings read_settings() {
  Settings settings;
  const char* late = std::getenv("SOFTGPU_LATE");
  if (late != nullptr && std::strcmp(late, "1") == 0) {
    settings.order = StreamOrder::kLate;
  } else if (late != nullptr && std::strcmp(late, "0") != 0) {
    tide::log(tide::LogLevel::kWarning, "SOFTGPU_LATE=%s is not understood: expected 0 or 1", late);
  }
  const char* text = std::getenv("SOFTGPU_SEED");
  if (text == nullptr || *text < '0' || *text > '9') return settings;
  char* end = nullptr;
  settings.seed = std::strtoull(text, &end, 10);
  if (*end == 0) settings.order = StreamOrder::kSeeded;
  return settings;
}

const Settings& settings() {
  static const Settings the = read_settings();
  return the;
}

struct Draw {
  std::mutex mu;
  std::vector<std::shared_ptr<Stream>> streams;  // with work, in the order in which they got it; guarded by mu
  std::timed_mutex running;                      // whoever holds it runs a task
  std::atomic<uint64_t> drawn{0};
  std::atomic<uint64_t> steps{0};
  std::once_flag watched;
};

Draw& the_draw() {
  static Draw* const the = new Draw;
  return *the;
}

// One task of one stream that can go on. False when there is none. Called with `running` held.
bool step() {
  Draw& d = the_draw();
  std::vector<std::shared_ptr<Stream>> ready;
  {
    const std::lock_guard lock(d.mu);
    std::erase_if(d.streams, [](const auto& s) { return s->idle(); });
    std::copy_if(d.streams.begin(), d.streams.end(), std::back_inserter(ready),
                 [](const auto& s) { return s->ready(); });
  }
  if (ready.empty()) return false;
  ready[draw(ready.size())]->run_next();
  ++d.steps;
  return true;
}

// Looks whether a program only polls memory.
void watch() {
  Draw& d = the_draw();
  uint64_t seen = 0;
  while (true) {
    tide::sleep_us(static_cast<uint32_t>(kPatienceMs * 1000));
    const uint64_t now = d.steps;
    if (now == seen) {
      const std::unique_lock lock(d.running, std::try_to_lock);
      while (lock.owns_lock() && step()) {
      }
    }
    seen = d.steps;
  }
}

}  // namespace

StreamOrder stream_order() { return settings().order; }

size_t draw(size_t count) {
  Draw& d = the_draw();
  return static_cast<size_t>(tide::mix(settings().seed * 0x9E3779B97F4A7C15 + d.drawn++) % count);
}

void add_to_draw(const std::shared_ptr<Stream>& stream) {
  Draw& d = the_draw();
  std::call_once(d.watched, [] { start_quiet_thread(watch); });
  const std::lock_guard lock(d.mu);
  if (std::find(d.streams.begin(), d.streams.end(), stream) == d.streams.end()) d.streams.push_back(stream);
}

void draw_until(Stream& stream, uint64_t number) {
  Draw& d = the_draw();
  constexpr uint32_t kPauseUs = 50;
  while (!stream.done(number)) {
    bool moved = false;
    {
      const std::lock_guard lock(d.running);
      moved = !stream.done(number) && step();
    }
    if (!moved && !stream.done(number)) tide::sleep_us(kPauseUs);  // what it needs comes from another thread
  }
}

}  // namespace softgpu
