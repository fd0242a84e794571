#include "softgpu/driver/stream.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "api/graph/capture.h"
#include "softgpu/driver/context.h"

namespace softgpu {
namespace {

uint64_t next_stream_id() {
  static std::atomic<uint64_t> next{10};  // 0, 1 and 2 stand for the default streams
  return next++;
}

// The program's signal handlers shall not run in threads that it does not know.
void start_quiet_thread(std::function<void()> body) {
  sigset_t all, before;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(std::move(body)).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

bool Ticket::done() const { return stream == nullptr || stream->done(number); }

void Ticket::wait() const {
  if (stream != nullptr) stream->wait(number);
}

Stream::Stream(Context& context, CUstream handle, unsigned flags, int priority)
    : context_(context), handle_(handle), flags_(flags), priority_(priority), id_(next_stream_id()) {}

Stream::~Stream() = default;

bool Stream::capturing() const { return tide::graph::capture_status(this) != CU_STREAM_CAPTURE_STATUS_NONE; }

Ticket Stream::submit(Task task) {
  const std::lock_guard lock(mu_);
  if (!running_) {
    running_ = true;
    start_quiet_thread([self = shared_from_this()] { self->work(); });
  }
  queue_.push_back(std::move(task));
  arrived_.notify_one();
  return {shared_from_this(), ++submitted_count_};
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
  std::unique_lock lock(mu_);
  completed_.wait(lock, [&] { return completed_count_ >= number; });
}

void Stream::close() {
  const std::lock_guard lock(mu_);
  closed_ = true;
  arrived_.notify_one();
}

void Stream::work() {
  std::unique_lock lock(mu_);
  while (true) {
    arrived_.wait(lock, [&] { return !queue_.empty() || closed_; });
    if (queue_.empty()) return;
    Task task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    run(task);
    task = {};  // what it holds may take the lock when it goes
    lock.lock();
    ++completed_count_;
    completed_.notify_all();
  }
}

void Stream::run(Task& task) {
  for (const Ticket& ticket : task.after) ticket.wait();
  if (context_.error() != CUDA_SUCCESS && !task.always) return;
  const CUresult result = task.run();
  if (result != CUDA_SUCCESS) context_.fail(result);
}

}  // namespace softgpu
