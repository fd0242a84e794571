// UCX and libibverbs inside of somebody else's process: neither libc's code nor the signal handlers nor the environment
// may change.

#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <map>
#include <thread>
#include <vector>

#include "tests/transport/channel.h"
#include "transport/verbs.h"

extern char** environ;

namespace tide {
namespace {

constexpr size_t kCodeBytes = 64;

// What UCX rewrites and takes when it is loaded without care.
constexpr const char* kFunctions[] = {"mmap", "mmap64", "munmap", "mremap", "shmat",  "shmdt",   "madvise",
                                      "brk",  "sbrk",   "malloc", "free",   "calloc", "realloc", "open"};

using Code = std::map<std::string, std::array<unsigned char, kCodeBytes>>;

Code code_of_libc() {
  Code code;
  for (const char* name : kFunctions) {
    const void* function = dlsym(RTLD_DEFAULT, name);
    EXPECT_NE(function, nullptr) << name;
    if (function != nullptr) memcpy(code[name].data(), function, kCodeBytes);
  }
  return code;
}

std::vector<const void*> signal_handlers() {
  std::vector<const void*> handlers;
  for (int number = 1; number < 65; ++number) {
    struct sigaction action {};
    const bool known = sigaction(number, nullptr, &action) == 0;
    handlers.push_back(known ? reinterpret_cast<const void*>(action.sa_sigaction) : nullptr);
  }
  return handlers;
}

std::vector<std::string> environment() {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) all.push_back(*entry);
  return all;
}

bool is_loaded(const char* part) {
  struct Search {
    const char* part;
    bool found;
  } search{part, false};
  const auto look = [](dl_phdr_info* info, size_t, void* data) {
    auto* s = static_cast<Search*>(data);
    s->found |= strstr(info->dlpi_name, s->part) != nullptr;
    return 0;
  };
  dl_iterate_phdr(look, &search);
  return search.found;
}

// Shows that the next test can fail: loaded without our care, UCX takes handlers and rewrites libc. First, because it
// needs a process that has not loaded UCX yet.
TEST(Hygiene, ucx_without_our_care_takes_handlers_and_rewrites_libc) {
  const pid_t pid = fork();
  if (pid == 0) {
    const auto handlers = signal_handlers();
    const Code code = code_of_libc();
    const bool loaded = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL) != nullptr;
    _exit(loaded && signal_handlers() != handlers && code_of_libc() != code ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Hygiene, ucx_leaves_libc_signals_and_environment_alone) {
  const auto own_handler = [](int) {};
  signal(SIGUSR1, own_handler);
  const Code code = code_of_libc();
  const auto handlers = signal_handlers();
  const auto variables = environment();
  EXPECT_FALSE(is_loaded("libucs"));
  ClientRegion memory;
  {
    Connection worker(memory, "ucx");
    ASSERT_TRUE(worker.connected()) << worker.failure();
    std::vector<unsigned char> answer;
    ASSERT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
    EXPECT_TRUE(is_loaded("libucs"));
    EXPECT_EQ(code_of_libc(), code);
    EXPECT_EQ(signal_handlers(), handlers);
    EXPECT_EQ(environment(), variables);
  }
  EXPECT_EQ(code_of_libc(), code);
  EXPECT_EQ(signal_handlers(), handlers);
}

// libibverbs needs no such care, which is why it is no plugin; this says so.
TEST(Hygiene, verbs_leave_libc_signals_and_environment_alone) {
  const Code code = code_of_libc();
  const auto handlers = signal_handlers();
  const auto variables = environment();
  const Outcome usable = verbs_usable();
  EXPECT_EQ(usable.ok(), usable.message().empty());
  EXPECT_EQ(code_of_libc(), code);
  EXPECT_EQ(signal_handlers(), handlers);
  EXPECT_EQ(environment(), variables);
}

// Whoever finds the worker's port first: the client that has the cookie gets the channel all the same.
TEST(Hygiene, garbage_on_the_listener_does_not_keep_the_client_out) {
  ClientRegion memory;  // outlives the link
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  std::string data;
  std::unique_ptr<Link> worker, client;
  const Outcome accepted = find_transport("ucx")->accept(pair[1], -1, &data, &worker);
  ASSERT_TRUE(accepted.ok()) << accepted.message();
  int stranger = -1;
  ASSERT_TRUE(connect_tcp(data.substr(0, data.find('/')), 1000, &stranger).ok());
  const std::string garbage(5000, 'g');
  EXPECT_GT(send(stranger, garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
  for (int i = 0; i < 20; ++i) {
    worker->progress();
    sleep_us(2000);
  }
  std::atomic<bool> stop{false};
  std::thread loop([&] {
    while (!stop.load()) worker->progress();
  });
  const Outcome connected = find_transport("ucx")->connect(memory.region(), pair[0], data.c_str(), &client);
  EXPECT_TRUE(connected.ok()) << connected.message();
  client.reset();  // before its far side rests: else UCX cannot close, and keeps its thread
  stop = true;
  loop.join();
  EXPECT_TRUE(worker->ready());
  close(stranger);
}

TEST(Hygiene, a_malformed_address_of_a_worker_is_refused) {
  for (const char* data : {"", "127.0.0.1:1", "127.0.0.1:1/00", "/0123456789abcdef0123456789abcdeg"}) {
    std::unique_ptr<Link> link;
    const Outcome outcome = find_transport("ucx")->connect(Region{}, -1, data, &link);
    EXPECT_EQ(outcome.message(), "the worker's UCX address is malformed") << data;
    EXPECT_EQ(link, nullptr);
  }
}

}  // namespace
}  // namespace tide
