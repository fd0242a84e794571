#pragma once

// A stream: a queue of tasks that one thread of its own runs in order. Every task has a number; whoever must wait for
// it waits until the stream has completed that number. Order between streams is tickets that a task waits for first.
//
// Threads: any, but submit() only under the context's order lock (context.h), so that two tasks never wait for each
// other.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "softgpu/driver/cuda_api.h"
#include "softgpu/sim/time_model.h"

namespace softgpu {

struct Context;
class Stream;

// One task of one stream.
struct Ticket {
  std::shared_ptr<Stream> stream;  // null: nothing to wait for
  uint64_t number = 0;

  bool done() const;
  void wait() const;
};

struct Task {
  // An error poisons the context. Not called once the context is poisoned, unless `always`.
  std::function<CUresult()> run;
  std::vector<Ticket> after;
  bool always = false;
  // So short that, when nothing is pending, the caller does it sooner than a thread is woken.
  bool brief = false;
  // Where not empty: whether it would end without waiting for somebody else.
  std::function<bool()> ready{};
};

// The program's signal handlers shall not run in threads that it does not know.
void start_quiet_thread(std::function<void()> body);

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(Context& context, CUstream handle, unsigned flags, int priority);
  ~Stream();

  Ticket submit(Task task);
  Ticket last();  // the last task submitted so far
  bool idle();    // nothing submitted that is not completed
  bool done(uint64_t number);
  void wait(uint64_t number);
  // Asked in vain: work that runs only when it is wanted is, after some such questions (stream_order.h).
  void polled();
  // For the draw of seeded runs: whether the first task in the queue can run now, and running it.
  bool ready();
  void run_next();
  void close();  // no more tasks will come; those that wait are still run

  Context& context() const { return context_; }
  CUstream handle() const { return handle_; }
  unsigned flags() const { return flags_; }
  int priority() const { return priority_; }
  uint64_t id() const { return id_; }
  // What cuStreamSetAttribute set; of no effect here. Guarded by attributes_mu.
  std::mutex attributes_mu;
  std::map<int, CUlaunchAttributeValue> attributes;
  bool capturing() const;                       // what is submitted becomes nodes of a graph
  sim::StreamClock& clock() { return clock_; }  // of the time model
  bool blocking() const { return (flags_ & CU_STREAM_NON_BLOCKING) == 0; }

 private:
  void work();
  void await_task(std::unique_lock<std::mutex>& lock);
  void complete(std::unique_lock<std::mutex>& lock);
  void run(Task& task);

  Context& context_;
  const CUstream handle_;
  const unsigned flags_;
  const int priority_;
  const uint64_t id_;
  sim::StreamClock clock_;

  std::mutex mu_;
  std::condition_variable arrived_;    // for the thread
  std::condition_variable completed_;  // for those that wait
  std::deque<Task> queue_;             // guarded by mu_
  uint64_t submitted_count_ = 0;       // guarded by mu_
  uint64_t completed_count_ = 0;       // guarded by mu_
  uint64_t demanded_count_ = 0;        // of a late stream: may run; guarded by mu_
  unsigned polls_ = 0;                 // in vain since it last did something; guarded by mu_
  bool running_ = false;               // the thread was started; guarded by mu_
  bool closed_ = false;                // guarded by mu_
};

}  // namespace softgpu
