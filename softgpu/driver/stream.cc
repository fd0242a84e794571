#include "softgpu/driver/stream.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "api/graph/capture.h"
#include "softgpu/driver/context.h"
#include "softgpu/driver/simulation.h"
#include "softgpu/driver/stream_order.h"

namespace softgpu {
namespace {

uint64_t next_stream_id() {
  static std::atomic<uint64_t> next{10};  // 0, 1 and 2 stand for the default streams
  return next++;
}

}  // namespace

void start_quiet_thread(std::function<void()> body) {
  sigset_t all, before;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(std::move(body)).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool Ticket::done() const { return stream == nullptr || stream->done(number); }

void Ticket::wait() const {
  if (stream != nullptr) stream->wait(number);
}

Stream::Stream(Context& context, CUstream handle, unsigned flags, int priority)
    : context_(context), handle_(handle), flags_(flags), priority_(priority), id_(next_stream_id()) {}

Stream::~Stream() = default;

bool Stream::capturing() const { return tide::graph::capture_status(this) != CU_STREAM_CAPTURE_STATUS_NONE; }

Ticket Stream::submit(Task task) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mu_);
    if (!running_ && stream_order() != StreamOrder::kSeeded) {
      running_ = true;
      start_quiet_thread([self = shared_from_this()] { self->work(); });
    }
    queue_.push_back(std::move(task));
    arrived_.notify_one();
    number = ++submitted_count_;
  }
  if (stream_order() == StreamOrder::kSeeded) add_to_draw(shared_from_this());
  return {shared_from_this(), number};
}

Ticket Stream::last() {
  const std::lock_guard lock(mu_);
  if (completed_count_ == submitted_count_) return {};
  return {shared_from_this(), submitted_count_};
}

bool Stream::idle() {
  const std::lock_guard lock(mu_);
  return completed_count_ == submitted_count_;
}

bool Stream::done(uint64_t number) {
  const std::lock_guard lock(mu_);
  return completed_count_ >= number;
}

void Stream::wait(uint64_t number) {
  if (stream_order() == StreamOrder::kSeeded) {
    draw_until(*this, number);
    simulation().host_saw(clock_);
    return;
  }
  std::unique_lock lock(mu_);
  if (demanded_count_ < number) {
    demanded_count_ = number;
    arrived_.notify_one();
  }
  completed_.wait(lock, [&] { return completed_count_ >= number; });
  simulation().host_saw(clock_);
}

void Stream::polled() {
  if (stream_order() == StreamOrder::kEager) return;
  uint64_t number = 0;
  {
    const std::lock_guard lock(mu_);
    if (++polls_ < kPollsMax) return;
    number = demanded_count_ = submitted_count_;
    arrived_.notify_one();
  }
  if (stream_order() == StreamOrder::kSeeded) draw_until(*this, number);
}

void Stream::close() {
  const std::lock_guard lock(mu_);
  closed_ = true;
  arrived_.notify_one();
}

// Until there is a task that may run, or no more will come.
void Stream::await_task(std::unique_lock<std::mutex>& lock) {
  const auto wanted = [&] {
    const bool late = stream_order() == StreamOrder::kLate && !closed_ && demanded_count_ <= completed_count_;
    return queue_.empty() ? closed_ : !late;
  };
  while (!wanted()) {
    if (stream_order() == StreamOrder::kEager || queue_.empty()) {
      arrived_.wait(lock);
    } else if (arrived_.wait_for(lock, std::chrono::milliseconds(kPatienceMs)) == std::cv_status::timeout) {
      demanded_count_ = submitted_count_;
    }
  }
}

void Stream::complete(std::unique_lock<std::mutex>& lock) {
  if (!lock.owns_lock()) lock.lock();
  polls_ = 0;
  ++completed_count_;
  completed_.notify_all();
}

void Stream::work() {
  std::unique_lock lock(mu_);
  while (true) {
    await_task(lock);
    if (queue_.empty()) return;
    Task task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    run(task);
    task = {};  // what it holds may take the lock when it goes
    complete(lock);
  }
}

bool Stream::ready() {
  const std::lock_guard lock(mu_);
  if (queue_.empty()) return false;
  const Task& task = queue_.front();
  const bool free = std::all_of(task.after.begin(), task.after.end(),
                                [this](const Ticket& t) { return t.stream.get() == this || t.done(); });
  return free && (task.ready == nullptr || context_.error() != CUDA_SUCCESS || task.ready());
}

void Stream::run_next() {
  std::unique_lock lock(mu_);
  Task task = std::move(queue_.front());
  queue_.pop_front();
  lock.unlock();
  run(task);
  task = {};
  complete(lock);
}

void Stream::run(Task& task) {
  const StreamScope scope(*this);
  for (const Ticket& ticket : task.after) {
    if (ticket.stream.get() != this) ticket.wait();  // in one stream they are in order anyway
    if (ticket.stream != nullptr) clock_.advance_to(ticket.stream->clock_.ns);
  }
  if (context_.error() != CUDA_SUCCESS && !task.always) return;
  const CUresult result = task.run();
  if (result != CUDA_SUCCESS) context_.fail(result);
}

}  // namespace softgpu
