#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "scheduler/simulate/trace.h"

namespace tide::simulate {
namespace {

constexpr const char* kHeader = "job_id,user_or_team,submit_s,duration_s,gpus_requested\n";

struct Row {
  const char* what;
  const char* text;   // behind the header
  const char* error;  // the first; empty: none
};

constexpr Row kRows[] = {
    {"a good row", "a,x,0,10,1\n", ""},
    {"no newline at the end, and one of another system", "a,x,0,10,1\r\nb,x,0.5,1e3,8", ""},
    {"quotes", "\"a,\"\"1\"\"\",x,0,10,1\n", ""},
    {"an empty line", "a,x,0,10,1\n\nb,x,1,10,1\n", ""},
    {"too few fields", "a,x,0,10\n", "t.csv:2: 4 fields; the first line has 5"},
    {"too many", "a,x,0,10,1,1\n", "t.csv:2: 6 fields; the first line has 5"},
    {"no id", ",x,0,10,1\n", "t.csv:2: job_id is empty"},
    {"an id twice", "a,x,0,10,1\na,x,1,10,1\n", "t.csv:3: there is a job 'a' already"},
    {"no duration", "a,x,0,,1\n", "t.csv:2: duration_s is empty"},
    {"a duration of nothing", "a,x,0,0,1\n", "t.csv:2: duration_s '0' is no time above 0 in seconds"},
    {"a negative one", "a,x,0,-1,1\n", "t.csv:2: duration_s '-1' is no time above 0 in seconds"},
    {"words", "a,x,0,10,1\nb,x,soon,10,1\n", "t.csv:3: submit_s 'soon' is no time in seconds"},
    {"not a number", "a,x,nan,10,1\n", "t.csv:2: submit_s 'nan' is no time in seconds"},
    {"no end", "a,x,0,inf,1\n", "t.csv:2: duration_s 'inf' is no time above 0 in seconds"},
    {"a rest behind a number", "a,x,0s,10,1\n", "t.csv:2: submit_s '0s' is no time in seconds"},
    {"no GPU", "a,x,0,10,0\n", "t.csv:2: gpus_requested '0' is no whole number from 1 to 65536"},
    {"part of a GPU", "a,x,0,10,0.5\n", "t.csv:2: gpus_requested '0.5' is no whole number from 1 to 65536"},
    {"far too many GPUs", "a,x,0,10,99999\n", "t.csv:2: gpus_requested '99999' is no whole number from 1 to 65536"},
    {"a clock that goes back", "a,x,5,10,1\nb,x,4,10,1\n",
     "t.csv:3: the clock goes back: submit_s 4 is before the 5 of line 2 (--sort puts such rows in order)"},
    {"a clock that jumps", "a,x,5,10,1\nb,x,1500000000,10,1\n", "t.csv:3: the clock jumps by 17361 days from line 2"},
    {"an open quote", "\"a,x,0,10,1\n", "t.csv:2: a quote that does not end"},
};

TEST(Trace, may_say_what_users_think) {
  const TraceFile file = parse_trace("job_id,submit_s,duration_s,gpus,estimate_s\na,0,10,1,20\nb,1,10,1,\n", "t", {});
  ASSERT_EQ(file.parts.size(), 1u);
  EXPECT_EQ(file.parts[0].jobs[0].estimate_s, 20);
  EXPECT_EQ(file.parts[0].jobs[1].estimate_s, 0);
  const TraceFile wrong = parse_trace("job_id,submit_s,duration_s,gpus,estimate_s\na,0,10,1,-3\n", "t", {});
  ASSERT_EQ(wrong.errors.size(), 1u);
  EXPECT_EQ(wrong.errors[0].text(), "t:2: estimate_s '-3' is no time above 0 in seconds");
}

TEST(Trace, rows) {
  for (const Row& row : kRows) {
    const TraceFile file = parse_trace(std::string(kHeader) + row.text, "t.csv", {});
    EXPECT_EQ(file.errors.empty() ? "" : file.errors[0].text(), row.error) << row.what;
    EXPECT_EQ(file.parts.empty(), !file.errors.empty()) << row.what;
  }
}

TEST(Trace, deadlines_and_teams_as_parts) {
  const std::string header = "job_id,user_or_team,submit_s,duration_s,gpus_requested,deadline_s\n";
  const TraceFile file = parse_trace(header + "a,x,5,10,1,20\nb,y,1,10,1,\n", "t.csv", {.by_team = true});
  ASSERT_EQ(file.parts.size(), 2u);
  EXPECT_EQ(file.parts[0].name, "x");
  EXPECT_EQ(file.parts[0].jobs[0].deadline_s, 20);
  EXPECT_EQ(file.parts[1].jobs[0].deadline_s, 0);
  for (const auto& [row, error] : std::initializer_list<std::pair<const char*, const char*>>{
           {"a,x,5,10,1,5\n", "t.csv:2: deadline_s is not after submit_s"},
           {"a,x,5,10,1,-7\n", "t.csv:2: deadline_s '-7' is no time in seconds"}}) {
    const TraceFile wrong = parse_trace(header + row, "t.csv", {});
    ASSERT_EQ(wrong.errors.size(), 1u);
    EXPECT_EQ(wrong.errors[0].text(), error);
  }
}

TEST(Trace, headers) {
  const auto error = [](const std::string& text) {
    const TraceFile file = parse_trace(text, "t.csv", {});
    return file.errors.empty() ? "" : file.errors[0].text();
  };
  EXPECT_EQ(error(""), "t.csv: is empty; a trace is a CSV with a first line that names its columns");
  EXPECT_EQ(error("job_id,submit_s,duration_s\n"),
            "t.csv:1: no column 'gpus_requested'; a trace needs job_id, submit_s, duration_s, gpus_requested in its "
            "first line");
  EXPECT_EQ(error("job_id,id,submit_s,duration_s,gpus\n"), "t.csv:1: two columns for job_id");
  EXPECT_EQ(error("job_id,submit_s,duration_s,gpus_requested\n"), "t.csv: has no jobs");
  EXPECT_EQ(error("\xEF\xBB\xBFid,submit,duration,gpus,min_gpus\na,0,1,2,3\n"),
            "t.csv:2: min_gpus 3 is more than its 2 GPUs");
}

TEST(Trace, reads_what_a_job_is) {
  const TraceFile file = parse_trace("gpus,id,team,submit,duration,min_gpus,colour\n4,a,x,1.5,10,2,red\n", "t.csv", {});
  ASSERT_EQ(file.parts.size(), 1u);
  const Job& job = file.parts[0].jobs.at(0);
  EXPECT_EQ(job.id + job.team, "ax");
  EXPECT_EQ(job.submit_s, 1.5);
  EXPECT_EQ(job.duration_s, 10);
  EXPECT_EQ(job.gpus, 4u);
  EXPECT_EQ(job.min_gpus, 2u);
  EXPECT_EQ(job.line, 2u);
}

TEST(Trace, a_file_may_hold_several) {
  const TraceFile file = parse_trace(
      "job_id,submit_s,duration_s,gpus_requested,queue_vc_trace\na,5,1,1,one\nb,6,1,1,one\na,0,1,1,two\n", "t.csv", {});
  ASSERT_EQ(file.parts.size(), 2u);
  EXPECT_EQ(file.parts[0].name, "one");
  EXPECT_EQ(file.parts[1].jobs.size(), 1u);
}

TEST(Trace, wrong_rows_are_left_out_and_rows_are_sorted_only_when_asked) {
  const std::string text = std::string(kHeader) + "a,x,5,10,1\nb,x,4,10,1\nc,x,6,none,1\nd,x,7,10,1\n";
  const TraceFile skipped = parse_trace(text, "t.csv", {.skip_bad = true});
  EXPECT_EQ(skipped.wrong_rows, 2u);
  ASSERT_EQ(skipped.parts.size(), 1u);
  EXPECT_EQ(skipped.parts[0].jobs.size(), 2u);
  const TraceFile sorted = parse_trace(text, "t.csv", {.skip_bad = true, .sort = true});
  EXPECT_EQ(sorted.wrong_rows, 1u);
  EXPECT_EQ(sorted.parts[0].jobs[0].id, "b");
}

TEST(Trace, many_wrong_rows_are_counted_and_few_are_told) {
  std::string text = kHeader;
  for (int i = 0; i < 1000; ++i) text += "a\n";
  const TraceFile file = parse_trace(text, "t.csv", {});
  EXPECT_EQ(file.wrong_rows, 1000u);
  EXPECT_EQ(file.errors.size(), kTraceErrorsMax);
}

class TraceOnDisk : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / "tide-trace-XXXXXX").string();
    ASSERT_NE(mkdtemp(path_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::string path_;
};

TEST_F(TraceOnDisk, is_read_plain_and_compressed_and_never_in_part) {
  const std::string plain = path_ + "/a.csv", packed = path_ + "/a.csv.gz", cut = path_ + "/cut.csv.gz";
  std::string text = kHeader;
  for (int i = 0; i < 2000; ++i) text += "job-" + std::to_string(i) + ",x," + std::to_string(i) + ",10,1\n";
  std::ofstream(plain) << text;
  const gzFile file = gzopen(packed.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, text.data(), unsigned(text.size())), int(text.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
  for (const std::string& path : {plain, packed}) {
    const TraceFile read = read_trace(path, {});
    ASSERT_EQ(read.parts.size(), 1u) << read.errors.at(0).text();
    EXPECT_EQ(read.parts[0].jobs.size(), 2000u);
  }
  std::filesystem::copy(packed, cut);
  std::filesystem::resize_file(cut, std::filesystem::file_size(cut) / 2);
  const TraceFile read = read_trace(cut, {});
  EXPECT_TRUE(read.parts.empty());
  ASSERT_FALSE(read.errors.empty());
  EXPECT_NE(read.errors[0].text().find("gzip file"), std::string::npos) << read.errors[0].text();
  EXPECT_EQ(read_trace(path_ + "/none.csv", {}).errors.at(0).text(),
            path_ + "/none.csv: cannot be read: No such file or directory");
  EXPECT_NE(read_trace(path_, {}).errors.at(0).text().find("cannot be read"), std::string::npos);
}

}  // namespace
}  // namespace tide::simulate
