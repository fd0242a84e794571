#include "interpose/service.h"

#include <sched.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/threads.h"
#include "commands.h"
#include "interpose/crossing.h"
#include "interpose/futex.h"
#include "interpose/gate.h"
#include "interpose/process.h"
#include "interpose/thread.h"
#include "interpose/transfer.h"

namespace tide {
namespace {

constexpr uint64_t kWindowBytes = 4u << 20;       // of a copy between vGPUs
constexpr uint64_t kLookAfterNs = 5'000'000;      // how often channels are looked after
constexpr uint64_t kHeldMostNs = 60'000'000'000;  // without being told again
constexpr uint64_t kTellCountersNs = 100'000'000;
// The longer the program has done nothing, the longer the service thread sleeps.
constexpr uint32_t kIdleMostUs = 100'000, kIdleShare = 10;
constexpr uint32_t kIdleUs = 5'000, kCopiesUs = 500, kTaskUs = 100;
constexpr uint32_t kExchangeUs = 1'000;      // how often mirrors of host memory are made equal while kernels run
constexpr uint32_t kExchangeIdleUs = 5'000;  // and looked at otherwise
constexpr int kYields = 50;                  // before sleeping between two rounds over the tasks

// A thread that runs as long as the process. `*runs`: whether it does.
Outcome start_for_ever(std::function<void()> body, bool* runs) {
  if (*runs) return {};
  const SignalsBlocked blocked;
  Thread thread;
  if (Outcome outcome = thread.start(std::move(body)); !outcome.ok()) return outcome;
  thread.detach();
  *runs = true;
  return {};
}

}  // namespace

Outcome Service::start() {
  const std::lock_guard lock(mu_);
  return start_for_ever([this] { serve(); }, &started_);
}

Outcome Service::start_callbacks() {
  const std::lock_guard lock(mu_);
  return start_for_ever([this] { call(); }, &callbacks_started_);
}

void Service::add(std::unique_ptr<Task> task) {
  // Runs already, but where the channels were adopted.
  if (Outcome o = start(); !o.ok()) log(LogLevel::kError, "%s", o.message().c_str());
  const bool calls = task->host_function != nullptr || task->callback != nullptr;
  if (calls) calls_open_.fetch_add(1);
  {
    const std::lock_guard lock(mu_);
    added_.push_back(std::move(task));
  }
  poke();
}

void Service::poke() {
  poked_.fetch_add(1);
  futex_wake(poked_);
}

// A thread of its own: it waits for workers, which may wait for what the service thread signals.
Outcome Service::start_exchange() {
  const std::lock_guard lock(mu_);
  const auto exchange = [this] {
    while (true) sleep_us(process_.host.exchange() ? kExchangeUs : kExchangeIdleUs);
  };
  return start_for_ever(exchange, &exchange_started_);
}

void Service::serve() {
  commanded_ns_ = now_ns();
  uint64_t looked = 0;
  int rounds_without_news = 0;
  while (true) {
    const uint32_t poked = poked_.load();
    {
      const std::lock_guard lock(mu_);
      for (auto& task : added_) tasks_.push_back(std::move(task));
      added_.clear();
    }
    bool news = false;
    for (auto& task : tasks_) news |= advance(*task);
    std::erase_if(tasks_, [](const auto& task) { return task->step == Task::Step::kOver; });
    if (tasks_.empty() || now_ns() - looked > kLookAfterNs) {
      look_after_channels();
      looked = now_ns();
    }
    if (news) {
      rounds_without_news = 0;
      continue;
    }
    if (tasks_.empty()) {
      rest(poked);
    } else if (++rounds_without_news < kYields) {
      sched_yield();
    } else {
      futex_wait(poked_, poked, kTaskUs);
    }
  }
}

uint64_t Service::commands() const {
  uint64_t sum = 0;
  for (Vgpu* v : process_.devices) {
    if (v->is_open()) sum += v->channel().counters().commands.load(std::memory_order_relaxed);
  }
  return sum;
}

void Service::rest(uint32_t poked) {
  bool copies = false;
  for (Vgpu* v : process_.devices) copies |= v->is_open() && v->channel().copies_pending();
  const uint64_t now = now_ns(), sent = commands();
  if (sent != commands_ || copies) commanded_ns_ = now;
  commands_ = sent;
  const uint64_t still_us = (now - commanded_ns_) / 1000 / kIdleShare;
  if (copies || still_us <= kIdleUs) return futex_wait(poked_, poked, copies ? kCopiesUs : kIdleUs);
  lies_still_.store(true);
  // Who wakes the worker with a command sees that we lie still, or we see the command.
  if (commands() == sent) futex_wait(poked_, poked, uint32_t(std::min<uint64_t>(still_us, kIdleMostUs)));
  lies_still_.store(false);
}

void Service::look_after_channels() {
  const bool tells = now_ns() - told_ns_ > kTellCountersNs;
  if (tells) told_ns_ = now_ns();
  uint64_t held = 0;
  for (Vgpu* vgpu : process_.devices) {
    if (!vgpu->is_open()) continue;
    vgpu->channel().drain();
    vgpu->staging.give_up_if_asked(*vgpu);
    vgpu->memory->look_after();
    if (vgpu->channel().look_after() && tells) vgpu->channel().tell_counters();
    held += vgpu->channel().held();
  }
  // A worker that hangs lets nobody go.
  if (held != std::exchange(held_, held)) held_ns_ = now_ns();
  const bool shut = held != 0 && now_ns() - held_ns_ < kHeldMostNs;
  if (live_process.load(std::memory_order_relaxed) == &process_) shut_gate(shut);
}

bool Service::reached(const Point& point) {
  Channel& channel = point.vgpu->channel();
  return point.event ? channel.event_done(point.slot, point.sequence) : channel.done(point.slot, point.sequence);
}

// True when the task got on.
bool Service::advance(Task& task) {
  switch (task.step) {
    case Task::Step::kWaiting:
      if (!std::all_of(task.after.begin(), task.after.end(), [this](const Point& p) { return reached(p); }))
        return false;
      if (task.host_function != nullptr || task.callback != nullptr) {
        task.step = Task::Step::kCalling;
        const std::lock_guard lock(call_mu_);
        calls_.push_back(&task);
        call_word_.fetch_add(1);
        futex_wake(call_word_);
      } else if (task.width != 0 && task.from.vgpu == nullptr) {
        write_from_host(task);
      } else if (task.width == 0 || task.height == 0) {
        finish(task);
      } else if (peers_.begin(task)) {
        task.step = Task::Step::kFetching;
      } else {
        carry_over(task);
      }
      return true;
    case Task::Step::kFetching: {
      const PeerCopies::State state = peers_.look(task);
      if (state == PeerCopies::State::kThroughProgram) carry_over(task);
      if (state == PeerCopies::State::kDone) finish(task);
      return state != PeerCopies::State::kWaits;
    }
    case Task::Step::kReading:
      if (!reached({.vgpu = task.from.vgpu, .slot = task.from_slot, .sequence = task.sequence})) return false;
      write_window(task);
      return true;
    case Task::Step::kWriting:
      if (!reached({.vgpu = task.to.vgpu, .slot = task.to_slot, .sequence = task.sequence})) return false;
      finish(task);
      return true;
    case Task::Step::kCalling:
      if (!task.called.load(std::memory_order_acquire)) return false;
      finish(task);
      return true;
    case Task::Step::kOver:
      return false;
  }
  return false;
}

// Through the program's own memory, window by window.
void Service::carry_over(Task& task) {
  if (!read_window(task)) finish(task);
}

// Asks the source for the next part; false when nothing is to be had any more.
bool Service::read_window(Task& task) {
  const bool part_of_row = task.width > kWindowBytes;
  task.window_rows = part_of_row ? 1 : std::min(task.height - task.row, kWindowBytes / task.width);
  task.window_bytes = part_of_row ? std::min(task.width - task.column, kWindowBytes) : task.width;
  task.bounce.resize(task.window_rows * task.window_bytes);
  Stream* stream = nullptr;
  if (copy_stream(process_, *task.from.vgpu, &stream) != CUDA_SUCCESS) return false;
  task.from_slot = stream->slot;
  const Landing landing{task.bounce.data(), task.window_bytes, task.window_bytes, task.window_rows};
  const uint64_t address = task.from.address + task.row * task.from.pitch + task.column;
  task.step = Task::Step::kReading;
  return send_copy_out(*stream, address, task.from.pitch, landing, &task.sequence) == CUDA_SUCCESS;
}

void Service::write_window(Task& task) {
  Stream* stream = nullptr;
  if (task.from.vgpu->channel().failed()) {
    task.from.vgpu->channel().forget(task.sequence);  // bytes of it may still be coming
    return finish(task);
  }
  if (copy_stream(process_, *task.to.vgpu, &stream) != CUDA_SUCCESS) return finish(task);
  task.to_slot = stream->slot;
  const uint64_t address = task.to.address + task.row * task.to.pitch + task.column;
  const HostRect source{task.bounce.data(), task.window_bytes};
  uint64_t sequence = 0;
  if (send_copy_in(*stream, address, task.to.pitch, source, task.window_bytes, task.window_rows, &sequence) !=
      CUDA_SUCCESS) {
    return finish(task);
  }
  task.column += task.window_bytes;
  if (task.column == task.width) {
    task.column = 0;
    task.row += task.window_rows;
  }
  if (task.row < task.height) {
    if (!read_window(task)) finish(task);
    return;
  }
  task.sequence = sequence;
  task.step = Task::Step::kWriting;
}

void Service::write_from_host(Task& task) {
  Stream* stream = nullptr;
  const HostRect source{reinterpret_cast<const std::byte*>(task.from.address), task.from.pitch};
  if (copy_stream(process_, *task.to.vgpu, &stream) != CUDA_SUCCESS ||
      send_copy_in(*stream, task.to.address, task.to.pitch, source, task.width, task.height, &task.sequence) !=
          CUDA_SUCCESS) {
    return finish(task);
  }
  task.to_slot = stream->slot;
  task.step = Task::Step::kWriting;
}

void Service::finish(Task& task) {
  if (task.host_function != nullptr || task.callback != nullptr) calls_open_.fetch_sub(1);
  for (const SignalPoint& s : task.signals) {
    s.vgpu->channel().signal(s.slot, s.value);
    s.vgpu->signals.give(s.slot, 0);
    s.vgpu->holds.fetch_sub(1);
  }
  task.step = Task::Step::kOver;
}

void Service::call() {
  while (true) {
    const uint32_t seen = call_word_.load();
    Task* task = nullptr;
    {
      const std::lock_guard lock(call_mu_);
      if (!calls_.empty()) {
        task = calls_.front();
        calls_.pop_front();
      }
    }
    if (task == nullptr) {
      futex_wait(call_word_, seen, 1'000'000);
      continue;
    }
    Channel& channel = task->after[0].vgpu->channel();
    const CUresult status = channel.sticky();
    ++thread_state.in_callback;
    if (task->callback != nullptr)
      task->callback(task->callback_stream, status, task->user_data);
    else if (status == CUDA_SUCCESS)
      task->host_function(task->user_data);
    --thread_state.in_callback;
    task->called.store(true, std::memory_order_release);
    poke();
  }
}

}  // namespace tide
