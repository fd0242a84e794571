#include "server/worker_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

extern "C" {  // glibc 2.36 forgets that
#include <sys/pidfd.h>
}

#include "base/descriptors.h"
#include "base/log.h"

namespace tide {
namespace {

kj::Exception failure(const std::string& text) {
  return kj::Exception(kj::Exception::Type::FAILED, "", 0, kj::heapString(text.c_str()));
}

constexpr int kRendezvousBacklog = 4096;  // agents that may die while the worker is stopped

bool well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

std::string how_it_ended(int status) {
  if (well(status)) return "it ended";
  if (WIFEXITED(status)) return format("it ended with status %d", WEXITSTATUS(status));
  return format("it was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
}

}  // namespace

Outcome WorkerProcess::start(kj::UnixEventPort& events, const std::string& program, const Environment& environment,
                             int rendezvous, kj::Own<WorkerProcess>* worker) {
  int ours = -1, theirs = -1;
  if (Outcome outcome = make_control_pair(&ours, &theirs); !outcome.ok()) return outcome;
  const std::vector<std::string> strings = changed_environment(environment);
  std::vector<char*> env;
  for (const std::string& s : strings) env.push_back(const_cast<char*>(s.c_str()));
  env.push_back(nullptr);
  const std::string number = std::to_string(theirs), place = std::to_string(rendezvous);
  const char* arguments[] = {program.c_str(), "--control", number.c_str(), "--rendezvous", place.c_str(), nullptr};
  const pid_t pid = fork();
  const Outcome not_started = pid < 0 ? fork_failure("cannot start a worker") : Outcome();
  if (pid == 0) {
    ::listen(rendezvous, kRendezvousBacklog);  // here, so that it is this process that listens
    fcntl(rendezvous, F_SETFD, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);  // the agent's event loop blocks some
    fcntl(theirs, F_SETFD, 0);
    execve(program.c_str(), const_cast<char* const*>(arguments), env.data());
    _exit(127);
  }
  close(theirs);
  if (pid < 0) {
    close(ours);
    return not_started;
  }
  *worker = kj::heap<WorkerProcess>(events, ours, pid);
  return {};
}

Outcome WorkerProcess::adopt(kj::UnixEventPort& events, int control, pid_t pid, kj::Own<WorkerProcess>* worker) {
  const int process = pidfd_open(pid, 0);
  // While its end of the connection is open it lives, so the number was not given to another process before that.
  pollfd its_end = {control, 0, 0};
  if (process < 0 || poll(&its_end, 1, 0) != 0) {
    const Outcome failure = Outcome::fail(std::string("its process cannot be watched: ") + strerror(errno));
    if (process >= 0) close(process);
    close(control);
    return failure;
  }
  *worker = kj::heap<WorkerProcess>(events, control, pid, process);
  return {};
}

WorkerProcess::WorkerProcess(kj::UnixEventPort& events, int control, pid_t pid)
    : control_(control),
      observer_(events, control, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      pid_(pid),
      number_(uint32_t(pid)),
      ended_(events.onChildExit(pid_)
                 .then([this](int status) {
                   well_ = well(status);
                   reason_ = how_it_ended(status);
                 })
                 .fork()),
      listening_(listening()) {}

WorkerProcess::WorkerProcess(kj::UnixEventPort& events, int control, pid_t pid, int process)
    : control_(control),
      observer_(events, control, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      process_(process),
      process_observer_(
          kj::heap<kj::UnixEventPort::FdObserver>(events, process, kj::UnixEventPort::FdObserver::OBSERVE_READ)),
      number_(uint32_t(pid)),
      ended_(process_observer_->whenBecomesReadable()
                 .then([this] {
                   hear_last_words();
                   well_ = farewell_;
                   reason_ = well_ ? "it ended" : "it ended; how is not known, since an earlier agent had started it";
                 })
                 .fork()),
      listening_(listening()) {}

WorkerProcess::~WorkerProcess() { kill(); }

void WorkerProcess::kill() {
  killed_ = true;
  if (process_.get() >= 0) pidfd_send_signal(process_, SIGKILL, nullptr, 0);
  KJ_IF_MAYBE (pid, pid_) {
    ::kill(*pid, SIGKILL);
  }
}

// The end of a process may be seen before what it said last.
void WorkerProcess::hear_last_words() {
  ControlMessage message;
  while (receive_control(control_, &message) == ControlState::kMessage) {
    for (const int fd : message.fds) {
      if (fd >= 0) close(fd);
    }
    take(message);
  }
}

kj::Promise<void> WorkerProcess::listening() {
  return listen().eagerlyEvaluate([this](kj::Exception&& e) { reject_all(e.getDescription().cStr()); });
}

bool WorkerProcess::send(ControlType type, const void* payload, size_t bytes, const int* fds, int fd_count) {
  return !gone_ && send_control(control_, type, payload, bytes, fds, fd_count);
}

kj::Promise<ControlMessage> WorkerProcess::await(ControlType type) {
  if (gone_) return failure("the worker has ended");
  auto pair = kj::newPromiseAndFulfiller<ControlMessage>();
  waiting_.emplace(type, kj::mv(pair.fulfiller));
  return kj::mv(pair.promise);
}

kj::Promise<void> WorkerProcess::listen() {
  while (true) {
    ControlMessage message;
    const ControlState state = receive_control(control_, &message);
    if (state == ControlState::kNothing) break;
    if (state == ControlState::kGone) {
      gone_ = true;
      reject_all("the worker has ended");
      return kj::READY_NOW;
    }
    const bool shared = message.type == ControlType::kAskShared || message.type == ControlType::kSharedAnswer;
    if (shared && carry_) carry_(message);
    if (message.type == ControlType::kAdopted && adopted_) adopted_(&message);
    for (const int fd : message.fds) {
      if (fd >= 0) close(fd);
    }
    if (!shared) take(message);
  }
  return observer_.whenBecomesReadable().then([this] { return listen(); });
}

void WorkerProcess::take(const ControlMessage& message) {
  if (message.type == ControlType::kFailed || message.type == ControlType::kMoveFailed) {
    ControlMessage copy = message;
    const auto* text = copy.as<ControlText>();
    reject_all(text == nullptr ? "the worker failed" : text->text);
    return;
  }
  farewell_ |= message.type == ControlType::kFarewell;
  if (message.type == ControlType::kWanted && wanted_) wanted_();
  if (message.type == ControlType::kStatsReply && counted_) {
    ControlMessage copy = message;
    if (const auto* counted = copy.as<ControlStats>()) counted_(*counted);
  }
  // Who has given up waiting must not take the answer of the next.
  for (auto found = waiting_.find(message.type); found != waiting_.end(); found = waiting_.find(message.type)) {
    auto fulfiller = kj::mv(found->second);
    waiting_.erase(found);
    if (!fulfiller->isWaiting()) continue;
    fulfiller->fulfill(ControlMessage(message));
    return;
  }
}

void WorkerProcess::reject_all(const std::string& why) {
  auto waiting = std::move(waiting_);
  waiting_.clear();
  for (auto& [type, fulfiller] : waiting) fulfiller->reject(failure(why));
}

}  // namespace tide
