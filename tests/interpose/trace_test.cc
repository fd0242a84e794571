// What the tracer writes, its reader gives back: whole, cut, damaged, of several processes, with no room left.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "interpose/trace/reader.h"
#include "interpose/trace/recorder.h"
#include "interpose/trace/table.h"

namespace tide::trace {
namespace {

uint16_t number_of(const std::string& name) {
  for (uint32_t i = 0; i < kFunctionCount; ++i) {
    if (kFunctions[i].name == name) return uint16_t(i);
  }
  ADD_FAILURE() << name;
  return 0;
}

void record(const char* name, CUresult result, uint64_t begin, std::vector<uint64_t> words) {
  words.resize(20);
  take_down(*thread_buffer(), {number_of(name), result, begin, begin + 5, {}, words.data()});
}

char read_one(int fd) {
  char word = 0;
  return read(fd, &word, 1) == 1 ? word : char(0);
}

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// All calls of a file, as long as the file is there; their arguments are not.
std::vector<Call> calls_of(TraceFile& file) {
  std::vector<Call> all;
  const Outcome o = file.for_each_call([&](const Call& call) { all.push_back(call); });
  EXPECT_TRUE(o.ok()) << o.message();
  return all;
}

// Of damaged files: what can be shown of each call is.
uint64_t look_at_all(TraceFile& file) {
  uint64_t calls = 0;
  (void)file.for_each_call([&](const Call& call) {
    (void)file.arguments(call);
    (void)file.kernel_name(call);
    ++calls;
  });
  return calls;
}

class Trace : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "tide-trace-" + std::to_string(getpid());
    unlink(path_.c_str());
    ASSERT_TRUE(begin_file(path_, &path_).ok());
    setenv("TIDE_TRACE", path_.c_str(), 1);
  }
  void TearDown() override { unlink(path_.c_str()); }

  // A process traces once, so each that is traced is a new one. Its exit status.
  static int in_process(const std::function<void()>& what, bool quick = false) {
    const pid_t child = fork();
    if (child == 0) {
      what();
      quick ? _exit(0) : exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  }

  TraceFile read() {
    TraceFile file;
    const Outcome o = TraceFile::read(path_, &file);
    EXPECT_TRUE(o.ok()) << o.message();
    return file;
  }

  std::string refusal(const ReadLimits& limits = {}) {
    TraceFile file;
    return TraceFile::read(path_, &file, limits).message();
  }

  std::string path_;
};

TEST_F(Trace, arguments_of_every_kind_come_back) {
  ASSERT_EQ(
      0, in_process([] {
        uint64_t module = 0xc705000000100000, function = 0xc706000000100000, bytes = 40;
        float ms = 1.5f;
        int minor = -7;
        record("cuModuleGetFunction", CUDA_SUCCESS, 100, {uint64_t(&function), module, uint64_t("saxpy")});
        record("cuLaunchKernel", CUDA_SUCCESS, 200, {function, 79, 1, 1, 128, 1, 1, 0, 0, 0x7ffd, 0});
        record("cuEventElapsedTime", CUDA_SUCCESS, 300, {uint64_t(&ms), 1, 2});
        record("cuDeviceGetAttribute", CUDA_SUCCESS, 400, {uint64_t(&minor), 33, 0});
        record("cuMemGetInfo_v2", CUDA_SUCCESS, 500, {0, uint64_t(&bytes)});
        record("cuModuleGetFunction", CUDA_ERROR_NOT_FOUND, 600, {uint64_t(&function), module, uint64_t("a\n\"b")});
        record("cuModuleGetFunction", CUDA_ERROR_INVALID_HANDLE, 700, {uint64_t(&function), 12, 13});
      }));
  TraceFile file = read();
  EXPECT_TRUE(file.problems().empty());
  std::vector<std::string> lines;
  const Outcome visited = file.for_each_call([&](const Call& call) {
    std::string line = file.function(call).name + std::to_string(call.result);
    for (const Argument& argument : file.arguments(call)) line += " " + argument.text;
    lines.push_back(line + " " + file.kernel_name(call));
  });
  EXPECT_TRUE(visited.ok());
  const std::vector<std::string> expected = {
      "cuModuleGetFunction0 0xc706000000100000 0xc705000000100000 saxpy saxpy",
      "cuLaunchKernel0 0xc706000000100000 79 1 1 128 1 1 0 0x0 0x7ffd 0x0 saxpy",
      "cuEventElapsedTime0 1.5 0x1 0x2 ",
      "cuDeviceGetAttribute0 -7 33 0 ",
      "cuMemGetInfo_v20 null 40 ",
      "cuModuleGetFunction500 - 0xc705000000100000 a\\x0a\"b ",
      "cuModuleGetFunction400 - 0xc - ",
  };
  EXPECT_EQ(lines, expected);
}

TEST_F(Trace, how_a_call_travelled_comes_back) {
  ASSERT_EQ(0, in_process([] {
              static TravelCounters counters;  // as the library would count
              ThreadBuffer& buffer = *thread_buffer();
              const TravelCounters before = {1, 20, 300, 4000, 50000};
              counters = {2, 22, 333, 4444, 55555};
              buffer.travelled = &counters;
              const uint64_t words[1] = {};
              take_down(buffer, {number_of("cuCtxSynchronize"), CUDA_ERROR_ILLEGAL_ADDRESS, 10, 12, before, words});
            }));
  TraceFile file = read();
  const std::vector<Call> calls = calls_of(file);
  ASSERT_EQ(calls.size(), 1u);
  const Call& call = calls[0];
  EXPECT_EQ(call.result, CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(call.duration_ns, 2u);
  EXPECT_EQ(call.travel.commands, 1u);
  EXPECT_EQ(call.travel.sent_bytes, 2u);
  EXPECT_EQ(call.travel.received_bytes, 33u);
  EXPECT_EQ(call.travel.round_trips, 444u);
  EXPECT_EQ(call.travel.wait_ns, 5555u);
}

constexpr uint64_t kMany = 40'000;

void record_many() {
  for (uint64_t i = 0; i < kMany; ++i) record("cuMemFree_v2", CUDA_SUCCESS, 1000 + 10 * i, {i});
}

TEST_F(Trace, threads_and_more_calls_than_a_buffer_holds) {
  ASSERT_EQ(0, in_process([] {
              std::thread other(record_many);
              record_many();
              other.join();
              std::thread(record_many).join();  // takes a buffer over
            }));
  TraceFile file = read();
  EXPECT_TRUE(file.problems().empty());
  ASSERT_EQ(file.processes().size(), 1u);
  std::map<uint32_t, uint64_t> next;
  uint64_t calls = 0, last_ns = 0;
  const Outcome visited = file.for_each_call([&](const Call& call) {
    EXPECT_EQ(file.arguments(call)[0].number, next[call.thread]++);
    EXPECT_GE(call.begin_ns, last_ns) << "in the order of their begins";
    last_ns = call.begin_ns;
    ++calls;
  });
  EXPECT_TRUE(visited.ok()) << visited.message();
  EXPECT_EQ(calls, 3 * kMany);
  EXPECT_EQ(next.size(), 3u);
}

TEST_F(Trace, a_forked_child_writes_its_own_calls_and_none_of_its_parents) {
  ASSERT_EQ(0, in_process([] {
              record("cuInit", CUDA_SUCCESS, 10, {0});
              ASSERT_EQ(0, in_process([] { record("cuCtxDetach", CUDA_SUCCESS, 30, {5}); }));
              ASSERT_EQ(0, in_process([] {}));  // calls nothing, writes nothing
              record("cuCtxSetCurrent", CUDA_SUCCESS, 20, {5});
            }));
  TraceFile file = read();
  EXPECT_TRUE(file.problems().empty());
  ASSERT_EQ(file.processes().size(), 2u);
  const std::vector<Call> calls = calls_of(file);
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_EQ(calls[0].process, calls[1].process);
  EXPECT_NE(calls[0].process, calls[2].process);
  EXPECT_EQ(file.processes()[calls[2].process].parent, file.processes()[calls[0].process].pid);
}

TEST_F(Trace, between_the_profilers_marks) {
  ASSERT_EQ(0, in_process([] {
              const char* const names[] = {"cuCtxSynchronize", "cuProfilerStart", "cuMemFree_v2",   "cuCtxGetCurrent",
                                           "cuProfilerStop",   "cuMemFree_v2",    "cuProfilerStart"};
              uint64_t begin = 0;
              for (const char* name : names) record(name, CUDA_SUCCESS, begin += 10, {0});
            }));
  TraceFile file = read();
  file.keep_profiled();
  const std::vector<Call> calls = calls_of(file);
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(file.function(calls[0]).name, "cuMemFree_v2");
  EXPECT_EQ(file.function(calls[1]).name, "cuCtxGetCurrent");
}

TEST_F(Trace, a_killed_process_loses_only_its_buffers) {
  ASSERT_EQ(0, in_process(record_many, true));
  TraceFile file = read();
  ASSERT_EQ(file.problems().size(), 1u);
  EXPECT_NE(file.problems()[0].find("did not end its trace"), std::string::npos);
  const size_t calls = calls_of(file).size();
  EXPECT_GT(calls, kMany - kBufferBytes / 6);
  EXPECT_LT(calls, kMany);
}

TEST_F(Trace, without_room_the_program_goes_on_and_the_trace_says_so) {
  const int status = in_process([] {
    const rlimit small = {200'000, 200'000};
    ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &small));
    record_many();
  });
  EXPECT_EQ(status, 0);
  TraceFile file = read();
  EXPECT_FALSE(file.problems().empty());
  const size_t calls = calls_of(file).size();
  EXPECT_GT(calls, 1000u);
  EXPECT_LT(calls, kMany);
}

TEST_F(Trace, cut_anywhere_it_is_read_as_far_as_it_goes) {
  ASSERT_EQ(0, in_process([] {
              for (int i = 0; i < 3; ++i) {
                std::thread([] { record("cuInit", CUDA_SUCCESS, 10, {0}); }).join();
              }
            }));
  const std::string whole = contents(path_);
  FileHead head;
  memcpy(&head, whole.data(), sizeof head);
  const size_t frames_at = sizeof head + head.table_bytes;
  for (size_t length = frames_at; length < whole.size(); ++length) {
    put(path_, whole.substr(0, length));
    TraceFile file = read();
    EXPECT_LE(calls_of(file).size(), 3u);
    EXPECT_TRUE(length == frames_at || !file.problems().empty()) << length;
  }
  for (size_t length = 0; length < frames_at; length += 997) {
    put(path_, whole.substr(0, length));
    EXPECT_NE(refusal(), "") << length;
  }
  // A piece in the middle: the frames behind it are found again, wherever they begin.
  put(path_, whole.substr(0, frames_at + 13) + whole.substr(frames_at + 60));
  TraceFile file = read();
  EXPECT_EQ(calls_of(file).size(), 3u);
  ASSERT_FALSE(file.problems().empty());
  EXPECT_NE(file.problems()[0].find("are damaged"), std::string::npos) << file.problems()[0];
}

TEST_F(Trace, any_byte_may_be_wrong) {
  ASSERT_EQ(0, in_process([] { record("cuModuleGetFunction", CUDA_ERROR_NOT_FOUND, 1, {1, 2, uint64_t("name")}); }));
  const std::string whole = contents(path_);
  for (size_t at = whole.size() - 400; at < whole.size(); ++at) {
    std::string wrong = whole;
    wrong[at] = char(wrong[at] ^ 0x55);
    put(path_, wrong);
    TraceFile file;
    (void)TraceFile::read(path_, &file);
    EXPECT_LE(look_at_all(file), 1u);
  }
}

TEST_F(Trace, wrong_bytes_with_a_right_check_sum_do_no_harm) {
  ASSERT_EQ(0, in_process([] {
              record("cuModuleGetFunction", CUDA_ERROR_NOT_FOUND, 1, {1, 2, uint64_t("name")});
              record("cuLaunchKernel", CUDA_SUCCESS, 2, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
            }));
  const std::string whole = contents(path_);
  FileHead file_head;
  memcpy(&file_head, whole.data(), sizeof file_head);
  FrameHead head;
  for (size_t at = sizeof file_head + file_head.table_bytes; at < whole.size();
       at += sizeof head + (head.bytes + 7) / 8 * 8) {
    memcpy(&head, whole.data() + at, sizeof head);
    for (size_t i = 0; i < 8 * head.bytes; ++i) {
      std::string wrong = whole;
      char* payload = wrong.data() + at + sizeof head;
      payload[i / 8] = char(payload[i / 8] ^ 1 << i % 8);
      FrameHead fixed = head;
      fixed.check = check_of(payload, head.bytes);
      memcpy(wrong.data() + at, &fixed, sizeof fixed);
      put(path_, wrong);
      TraceFile file;
      ASSERT_TRUE(TraceFile::read(path_, &file).ok());
      look_at_all(file);
    }
  }
}

TEST_F(Trace, other_files_are_refused) {
  const std::string whole = contents(path_);
  put(path_, "");
  EXPECT_NE(refusal().find("is not a trace"), std::string::npos);
  put(path_, std::string(100'000, 'x'));
  EXPECT_NE(refusal().find("is not a trace"), std::string::npos);
  std::string other = whole;
  other[8] = 9;
  put(path_, other);
  EXPECT_NE(refusal().find("format 9"), std::string::npos);
  path_ += ".none";
  EXPECT_NE(refusal().find("No such file"), std::string::npos);
}

TEST_F(Trace, calls_in_each_other_come_outer_first_also_from_a_later_frame) {
  ASSERT_EQ(0, in_process([] {
              uint64_t words[20] = {};
              const auto call = [&](const char* name, uint64_t begin, uint64_t end) {
                take_down(*thread_buffer(), {number_of(name), CUDA_SUCCESS, begin, end, {}, words});
              };
              call("cuMemFree_v2", 2'000, 2'100);
              call("cuCtxSynchronize", 2'000, 5'000'000'000);  // a second later: written
              call("cuCtxGetCurrent", 3'000, 3'001);
              call("cuInit", 1'000, 6'000'000'000);
            }));
  TraceFile file = read();
  std::vector<std::string> names;
  for (const Call& call : calls_of(file)) names.push_back(file.function(call).name);
  EXPECT_EQ(names, (std::vector<std::string>{"cuInit", "cuCtxSynchronize", "cuMemFree_v2", "cuCtxGetCurrent"}));
}

TEST_F(Trace, what_would_take_too_much_memory_is_refused) {
  ASSERT_EQ(0, in_process([] {
              std::thread other(record_many);
              record_many();
              other.join();
            }));
  ASSERT_EQ(0, in_process([] { record("cuInit", CUDA_SUCCESS, 10, {0}); }));
  EXPECT_NE(refusal({.frames = 3}).find("more than 3 pieces"), std::string::npos);
  EXPECT_NE(refusal({.processes = 1}).find("more than 1 processes"), std::string::npos);
  const auto visit = [&](uint64_t open_bytes) {
    TraceFile file;
    EXPECT_TRUE(TraceFile::read(path_, &file, {.open_bytes = open_bytes}).ok());
    return file.for_each_call([](const Call&) {}).message();
  };
  EXPECT_EQ(visit(4u << 20), "");  // of a MiB: few frames are open at a time
  EXPECT_NE(visit(kBufferBytes), "");
}

long most_memory_kib() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST_F(Trace, a_long_file_takes_little_memory) {
  ASSERT_EQ(0, truncate(path_.c_str(), off_t(1) << 30));  // zeros, where frames should be
  ASSERT_EQ(0, in_process([] { record("cuInit", CUDA_SUCCESS, 10, {0}); }));
  const long before = most_memory_kib();
  TraceFile file = read();
  EXPECT_EQ(calls_of(file).size(), 1u);
  EXPECT_FALSE(file.problems().empty());
  EXPECT_LT(most_memory_kib() - before, 64 << 10);
}

TEST_F(Trace, a_file_that_shrinks_while_it_is_read_is_an_error) {
  ASSERT_EQ(0, in_process(record_many));
  TraceFile file = read();
  ASSERT_EQ(0, truncate(path_.c_str(), 100'000));
  EXPECT_NE(file.for_each_call([](const Call&) {}).message().find("changed while it was read"), std::string::npos);
}

TEST_F(Trace, a_trace_that_a_job_writes_is_not_made_anew) {
  const std::string other = path_ + ".2";
  std::string absolute;
  int ready[2], go[2];
  ASSERT_TRUE(pipe(ready) == 0 && pipe(go) == 0);
  const pid_t holder = fork();
  if (holder == 0) {
    std::string mine;
    char word = begin_file(other, &mine).ok() ? 'y' : 'n';
    if (write(ready[1], &word, 1) != 1 || read_one(go[0]) != 'g') _exit(1);
    _exit(0);
  }
  ASSERT_EQ(read_one(ready[0]), 'y');
  put(other, contents(other) + "frames");
  const Outcome refused = begin_file(other, &absolute);
  EXPECT_NE(refused.message().find("is the trace of a job that still runs"), std::string::npos) << refused.message();
  EXPECT_NE(contents(other).find("frames"), std::string::npos);
  ASSERT_EQ(write(go[1], "g", 1), 1);
  waitpid(holder, nullptr, 0);
  EXPECT_TRUE(begin_file(other, &absolute).ok());
  EXPECT_EQ(contents(other).find("frames"), std::string::npos);
  unlink(other.c_str());
}

TEST_F(Trace, a_file_that_is_no_trace_is_not_written_over) {
  std::string absolute;
  EXPECT_FALSE(begin_file(path_, &absolute).ok());  // ours, and we still run
  unlink(path_.c_str());
  put(path_, "#!/bin/sh");
  EXPECT_FALSE(begin_file(path_, &absolute).ok());
  EXPECT_EQ(contents(path_), "#!/bin/sh");
  EXPECT_FALSE(begin_file("/dev/null", &absolute).ok());
  EXPECT_FALSE(begin_file(testing::TempDir(), &absolute).ok());
  EXPECT_FALSE(begin_file(path_ + "/none", &absolute).ok());
}

}  // namespace
}  // namespace tide::trace
