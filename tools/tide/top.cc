#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/clock.h"
#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/show.h"
#include "tools/tide/top_view.h"

namespace tide::cli {
namespace {

using Answer = capnp::Response<control::Pool::TopResults>;

constexpr uint32_t kJobsAll = 10'000, kJobsOnScreen = 200;
constexpr uint32_t kLiveMs = 3'000, kLiveLeastMs = 1'000;  // keys are read behind that
constexpr uint64_t kIntervalMsLeast = 500, kIntervalMsMost = 3'600'000;

volatile sig_atomic_t ended_by = 0, resized = 0;
void note_end(int number) { ended_by = number; }
void note_size(int) { resized = 1; }

// The terminal while `tide top` has it: the other screen, no cursor, keys at once. As before when this falls.
class Screen {
 public:
  Screen() {
    raw_ = tcgetattr(STDIN_FILENO, &before_) == 0;
    if (raw_) {
      termios now = before_;
      now.c_lflag &= ~tcflag_t(ICANON | ECHO);
      now.c_cc[VMIN] = 0;
      now.c_cc[VTIME] = 0;
      tcsetattr(STDIN_FILENO, TCSANOW, &now);
    }
    say("\033[?1049h\033[?25l");
  }
  ~Screen() {
    say("\033[?25h\033[?1049l");
    if (raw_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // False: nobody reads it any more.
  bool show(const std::vector<std::string>& lines) {
    std::string text = "\033[H";
    for (size_t i = 0; i < lines.size(); ++i) text += (i == 0 ? "" : "\n") + lines[i] + "\033[K";
    return say(text + "\033[J");
  }
  static TopSize size() {
    winsize window = {};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0 || window.ws_row == 0) return {};
    return {.columns = window.ws_col, .rows = window.ws_row};
  }

 private:
  static bool say(const std::string& text) {
    for (size_t done = 0; done < text.size();) {
      const ssize_t wrote = write(STDOUT_FILENO, text.data() + done, text.size() - done);
      if (wrote < 0 && errno != EINTR) return false;
      done += wrote > 0 ? size_t(wrote) : 0;
    }
    return true;
  }
  termios before_ = {};
  bool raw_ = false;
};

void print_json(const Answer& top) {
  Json json;
  json.object().add("now_ms", top.getNowMs()).key("gpus").list();
  for (const auto gpu : top.getGpus()) {
    json.object()
        .add("gpu", place_text(gpu.getServer(), gpu.getGpu()))
        .add("model", std::string(gpu.getModel()))
        .add("usable", gpu.getUsable())
        .add("memory_bytes", gpu.getMemoryBytes());
    if (gpu.getHeard()) json.add("used_bytes", gpu.getUsedBytes()).add("busy", gpu.getBusyPermille() / 1000.0);
    json.add("jobs", std::string(gpu.getJobs())).end();
  }
  json.end().key("jobs").list();
  for (const auto job : top.getJobs()) {
    json.object()
        .add("id", std::string(job.getId()))
        .add("name", std::string(job.getName()))
        .add("queue", std::string(job.getQueue()))
        .add("user", std::string(job.getUser()))
        .add("state", std::string(state_name(job.getState())))
        .add("vgpus", job.getVgpus())
        .add("physical_gpus", job.getPhysicalGpus())
        .add("part", job.getPart() / 1000.0)
        .add("busy", job.getBusyPermille() / 1000.0)
        .add("used_bytes", job.getUsedBytes())
        .add("submitted_ms", job.getSubmittedMs())
        .add("started_ms", job.getStartedMs())
        .end();
  }
  json.end().key("queues").list();
  for (const auto queue : top.getQueues()) {
    json.object()
        .add("name", std::string(queue.getName()))
        .add("allocated", double(queue.getAllocated()) / 1000)
        .add("fair_share", double(queue.getFairShare()) / 1000)
        .add("running_jobs", queue.getRunningJobs())
        .add("waiting_jobs", queue.getWaitingJobs())
        .end();
  }
  json.end()
      .add("jobs_running", top.getRunning())
      .add("jobs_waiting", top.getWaiting())
      .add("jobs_suspended", top.getSuspended())
      .end()
      .print();
}

Outcome ask(Asker& asker, uint32_t jobs_max, uint32_t limit_ms, kj::Maybe<Answer>* answer) {
  auto request = asker.pool().topRequest();
  request.setJobsMax(jobs_max);
  return asker.ask(request.send(), answer, limit_ms);
}

int print_once(Asker& asker, bool as_json) {
  kj::Maybe<Answer> got;
  if (const Outcome outcome = ask(asker, kJobsAll, kAnswerMs, &got); !outcome.ok()) return fail(outcome.message());
  const Answer& top = KJ_ASSERT_NONNULL(got);
  if (as_json) {
    print_json(top);
    return kOk;
  }
  const TopSize size{.columns = isatty(STDOUT_FILENO) ? Screen::size().columns : 120, .rows = 0};
  for (const std::string& line : top_lines(top, size)) puts(line.c_str());
  return kOk;
}

// Until a key is there, somebody has said that it is over, the window has another size, or `end_ns`. True: it is over.
bool wait(uint64_t end_ns) {
  while (ended_by == 0 && resized == 0) {
    const uint64_t now = now_ns();
    if (now >= end_ns) return false;
    pollfd keys = {STDIN_FILENO, POLLIN, 0};
    const int ready = poll(&keys, 1, int(std::min<uint64_t>((end_ns - now) / 1'000'000 + 1, 100)));
    if (ready <= 0) continue;
    char key = 0;
    const ssize_t got = read(STDIN_FILENO, &key, 1);
    if (got <= 0 || key == 'q' || key == 'Q' || key == 3) return true;
  }
  resized = 0;
  return ended_by != 0;
}

// The pool's answer; or why there is none, and then it is looked for anew: its scheduler may have been replaced.
Outcome ask_or_connect(const Options& options, kj::Own<Asker>* asker, bool* connected, kj::Maybe<Answer>* answer) {
  const uint64_t began = now_ns();
  if (!*connected) {
    *asker = nullptr;  // a thread has one event loop
    *asker = kj::heap<Asker>();
    const Outcome found = (*asker)->connect(options, kLiveMs);
    if (!found.ok()) return found;
    *connected = true;
  }
  const uint64_t took_ms = std::min<uint64_t>((now_ns() - began) / 1'000'000, kLiveMs - kLiveLeastMs);
  const Outcome outcome = ask(**asker, kJobsOnScreen, kLiveMs - uint32_t(took_ms), answer);
  *connected = outcome.ok();
  return outcome;
}

int watch(const Options& options, kj::Own<Asker> asker, uint64_t interval_ms) {
  struct sigaction action = {};
  action.sa_handler = note_end;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaction(number, &action, nullptr);
  action.sa_handler = SIG_IGN;  // stopped, it would leave the shell this terminal
  sigaction(SIGTSTP, &action, nullptr);
  action.sa_handler = note_size;
  sigaction(SIGWINCH, &action, nullptr);
  {
    Screen screen;
    bool over = false, connected = true;
    while (!over) {
      kj::Maybe<Answer> got;
      const TopSize size = Screen::size();
      const Outcome outcome = ask_or_connect(options, &asker, &connected, &got);
      std::vector<std::string> lines;
      KJ_IF_MAYBE (top, got) {
        lines = top_lines(*top, size);
      } else {
        lines = {fitting("tide: " + outcome.message(), size.columns), fitting("tries again; q ends", size.columns)};
      }
      over = !screen.show(lines) || wait(now_ns() + interval_ms * 1'000'000);
    }
  }
  return ended_by != 0 && ended_by != SIGINT ? 128 + ended_by : kOk;
}

}  // namespace

int top(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide top [--interval TIME] [--once] [--json]\n\n"
      "GPUs, jobs and queues of the pool, live. q quits. Where the output is no terminal it is printed once.\n"
      "  --interval TIME  how often it is looked (default 2s, at least 500ms)\n"
      "  --once           print it once\n"
      "Of GPUs and jobs BUSY is the part of the last second in which work was under way, GIB the GPU memory in use; "
      "of\n"
      "jobs GPUS is the physical GPUs of its virtual ones, WAIT the time until it started. Jobs that run come first,\n"
      "those with most GPUs before the others, then those that wait.\n";
  if (!options.parse(words, {{"interval"}, {"once", 0, false}, {"json", 0, false}}, kHelp) ||
      !options.expect_words(0, ""))
    return options.status();
  uint64_t interval_ms = 2'000;
  if (!options.duration("interval", &interval_ms)) return options.status();
  if (interval_ms < kIntervalMsLeast || interval_ms > kIntervalMsMost)
    return options.usage_error("--interval is 500ms to 1h");
  auto asker = kj::heap<Asker>();
  if (const Outcome outcome = asker->connect(options); !outcome.ok()) return fail(outcome.message());
  const bool live = isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
  if (options.has("once") || options.has("json") || !live) return print_once(*asker, options.has("json"));
  return watch(options, kj::mv(asker), interval_ms);
}

}  // namespace tide::cli
