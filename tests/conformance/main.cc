// Runs the cases, each in a process of its own: an error that poisons a context, a hang or a crash ends one case.
//
// With --backend softgpu or remote the program starts itself again where that driver is what a program loads: with the
// software GPU in LD_LIBRARY_PATH, or under `tide run`.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <vector>

#include "driver.h"

namespace conformance {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kHelp = R"(conformance: the driver API against what CUDA's documentation and the real driver say

  conformance [--backend softgpu|remote|native|LIBRARY] [--only REGEX] [--list] [--verbose]
              [--coverage FILE] [--timeout SECONDS] [--build DIR]

  --backend     softgpu: the software GPU itself; remote: the same behind Tidepool (`tide run`); native (the default):
                the libcuda.so.1 that the loader finds; or a library's path
  --only        cases whose name (Area.case) matches
  --coverage    writes JSON: each function called, and by which cases
  --timeout     for each case, default 60
  --build       the build folder, default that of this program

Each case runs twice where it can: with the plain functions and, as Area.case/per_thread, with the forms for per-thread
default streams. Ends with 0 if all passed, 1 if not, 2 on wrong usage.
)";

struct Options {
  std::string backend = "native", only, coverage, build;
  bool list = false, verbose = false;
  int timeout_s = 60;
};

struct Case {
  std::string name;  // Area.case
  bool per_thread;
  std::string title() const { return name + (per_thread ? "/per_thread" : ""); }
};

struct Outcome {
  bool passed = false;
  std::string skipped;  // why
  std::string output;
  std::set<std::string> called;
};

std::vector<Case> all_cases(const Options& options) {
  const std::regex only(options.only);
  std::vector<Case> cases;
  const testing::UnitTest& unit = *testing::UnitTest::GetInstance();
  for (int s = 0; s < unit.total_test_suite_count(); s++) {
    const testing::TestSuite& suite = *unit.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); t++) {
      const std::string name = std::string(suite.name()) + "." + suite.GetTestInfo(t)->name();
      for (const bool per_thread : {false, true}) {
        const Case one{name, per_thread};
        if (std::regex_search(one.title(), only)) cases.push_back(one);
      }
    }
  }
  return cases;
}

// What a child says of itself at its end, one item a line.
void report(int fd, bool passed) {
  std::string text;
  for (const std::string& name : called()) text += "called " + name + "\n";
  const testing::UnitTest& unit = *testing::UnitTest::GetInstance();
  if (unit.skipped_test_count() > 0) text += "skipped\n";
  text += passed ? "passed\n" : "failed\n";
  for (size_t at = 0; at < text.size();) {
    const ssize_t written = write(fd, text.data() + at, text.size() - at);
    if (written <= 0) break;
    at += static_cast<size_t>(written);
  }
}

[[noreturn]] void be_child(const Case& one, const char* library, int output, int reports) {
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  if (!open_driver(library)) _exit(1);
  use_per_thread_streams(one.per_thread);
  testing::GTEST_FLAG(filter) = one.name;
  testing::GTEST_FLAG(brief) = true;
  const int status = RUN_ALL_TESTS();
  fflush(nullptr);
  report(reports, status == 0);
  exit(status);  // not _exit: what drivers do at exit is part of the case
}

// Reads both pipes to their ends, or until the time is over.
void read_both(int output, int reports, Clock::time_point until, std::string* text, std::string* said) {
  pollfd waits[2] = {{output, POLLIN, 0}, {reports, POLLIN, 0}};
  std::string* into[2] = {text, said};
  while (waits[0].fd >= 0 || waits[1].fd >= 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0 || poll(waits, 2, static_cast<int>(left)) <= 0) return;
    for (int i = 0; i < 2; i++) {
      if (waits[i].revents == 0) continue;
      char piece[4096];
      const ssize_t got = read(waits[i].fd, piece, sizeof piece);
      if (got > 0) into[i]->append(piece, static_cast<size_t>(got));
      if (got <= 0) waits[i].fd = -1;
    }
  }
}

// A child that closed its pipes ends soon, or hangs in what it does at exit.
bool ended(pid_t child, Clock::time_point until, int* status) {
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  pollfd wait = {handle, POLLIN, 0};
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
  if (handle >= 0) {
    poll(&wait, 1, left < 0 ? 0 : static_cast<int>(left));
    close(handle);
  }
  return waitpid(child, status, WNOHANG) == child;
}

Outcome run(const Case& one, const char* library, int timeout_s) {
  int output[2], reports[2];
  if (pipe2(output, O_CLOEXEC) != 0 || pipe2(reports, O_CLOEXEC) != 0) return {};
  fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) be_child(one, library, output[1], reports[1]);
  close(output[1]);
  close(reports[1]);
  Outcome outcome;
  std::string said;
  const auto until = Clock::now() + std::chrono::seconds(timeout_s);
  read_both(output[0], reports[0], until, &outcome.output, &said);
  close(output[0]);
  close(reports[0]);
  int status = 0;
  if (!ended(child, until, &status)) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    outcome.output += "took longer than " + std::to_string(timeout_s) + " s\n";
  } else if (WIFSIGNALED(status)) {
    outcome.output += std::string("ended by a signal: ") + strsignal(WTERMSIG(status)) + "\n";
  }
  std::istringstream lines(said);
  bool said_passed = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("called ")) outcome.called.insert(line.substr(7));
    if (line == "skipped") outcome.skipped = "skipped";
    if (line == "passed") said_passed = true;
  }
  outcome.passed = said_passed && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (!outcome.skipped.empty()) {
    const size_t at = outcome.output.find("Skipped\n");
    if (at != std::string::npos)
      outcome.skipped = outcome.output.substr(at + 8, outcome.output.find('\n', at + 8) - at - 8);
  }
  return outcome;
}

// --- the list of cases ----------------------------------------------------------------------------------------------

bool write_coverage(const std::string& path, const std::map<std::string, std::set<std::string>>& cases) {
  std::ofstream file(path);
  file << "{\n";
  const char* separator = "";
  for (const auto& [function, names] : cases) {
    file << separator << " \"" << function << "\": [";
    const char* comma = "";
    for (const std::string& name : names) {
      file << comma << "\"" << name << "\"";
      comma = ", ";
    }
    file << "]";
    separator = ",\n";
  }
  file << "\n}\n";
  return file.good();
}

// The output without what the test runner says of itself.
std::string what_failed(const std::string& output) {
  static const std::regex chatter(R"(^(Note: |\[| \d+ FAILED TEST|$).*)");
  std::istringstream lines(output);
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    if (!std::regex_match(line, chatter)) text += "  " + line + "\n";
  }
  return text;
}

int run_all(const Options& options) {
  const char* library = options.backend == "native" ? "libcuda.so.1" : options.backend.c_str();
  std::map<std::string, std::set<std::string>> coverage;
  int passed = 0, failed = 0, skipped = 0;
  for (const Case& one : all_cases(options)) {
    const Outcome outcome = run(one, library, options.timeout_s);
    for (const std::string& function : outcome.called) coverage[function].insert(one.name);
    const bool was_skipped = outcome.passed && !outcome.skipped.empty();
    (was_skipped ? skipped : outcome.passed ? passed : failed)++;
    if (was_skipped) printf("skipped  %s: %s\n", one.title().c_str(), outcome.skipped.c_str());
    if (!outcome.passed) printf("FAILED   %s\n%s", one.title().c_str(), what_failed(outcome.output).c_str());
    if (options.verbose && outcome.passed && !was_skipped) printf("ok       %s\n", one.title().c_str());
    fflush(stdout);
  }
  printf("conformance: %d cases: %d passed, %d failed, %d skipped; %zu functions called\n", passed + failed + skipped,
         passed, failed, skipped, coverage.size());
  if (!options.coverage.empty() && !write_coverage(options.coverage, coverage)) {
    fprintf(stderr, "conformance: cannot write %s\n", options.coverage.c_str());
    return 1;
  }
  return failed == 0 && passed > 0 ? 0 : 1;
}

// --- starting again where the backend is ----------------------------------------------------------------------------

std::string own_path() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : "";
}

int start_again(const Options& options, int argc, char** argv) {
  const std::string self = own_path();
  const std::string build = options.build.empty() ? self.substr(0, self.rfind("/tests/conformance")) : options.build;
  std::vector<std::string> words;
  setenv("SOFTGPU_PROFILE", "h200", 0);
  setenv("SOFTGPU_DEVICES", "2", 0);
  setenv("SOFTGPU_MEMORY", "256MiB", 0);
  if (options.backend == "softgpu") {
    const std::string folder = build + "/softgpu/driver";
    const char* old = getenv("LD_LIBRARY_PATH");
    setenv("LD_LIBRARY_PATH", (folder + (old != nullptr ? ":" + std::string(old) : "")).c_str(), 1);
  } else {
    words = {build + "/tools/tide/tide", "run", "--local", "-g", "2", "--"};
  }
  words.push_back(self);
  for (int i = 1; i < argc; i++) {
    if (std::string(argv[i]) == "--backend") {
      i++;
    } else {
      words.emplace_back(argv[i]);
    }
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  fprintf(stderr, "conformance: cannot start %s: %s\n", arguments[0], strerror(errno));
  return 1;
}

bool read_options(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    if (word == "--list" || word == "--verbose") {
      (word == "--list" ? options->list : options->verbose) = true;
      continue;
    }
    const std::map<std::string, std::string*> texts = {{"--backend", &options->backend},
                                                       {"--only", &options->only},
                                                       {"--coverage", &options->coverage},
                                                       {"--build", &options->build}};
    if (i + 1 == argc) return false;
    if (const auto text = texts.find(word); text != texts.end()) {
      *text->second = argv[++i];
    } else if (word == "--timeout" && atoi(argv[i + 1]) > 0) {
      options->timeout_s = atoi(argv[++i]);
    } else {
      return false;
    }
  }
  return true;
}

int start(int argc, char** argv) {
  Options options;
  if (argc == 2 && (std::string(argv[1]) == "--help" || std::string(argv[1]) == "-h")) {
    fputs(kHelp, stdout);
    return 0;
  }
  try {
    if (!read_options(argc, argv, &options)) {
      fputs(kHelp, stderr);
      return 2;
    }
    if (options.backend == "softgpu" || options.backend == "remote") return start_again(options, argc, argv);
    if (!options.list) return run_all(options);
    for (const Case& one : all_cases(options)) printf("%s\n", one.title().c_str());
    return 0;
  } catch (const std::regex_error& error) {
    fprintf(stderr, "conformance: --only %s: %s\n", options.only.c_str(), error.what());
    return 2;
  }
}

}  // namespace
}  // namespace conformance

int main(int argc, char** argv) {
  int none = 1;
  char* alone[] = {argv[0], nullptr};
  testing::InitGoogleTest(&none, alone);
  return conformance::start(argc, argv);
}
